"""What a block's update takes from later blocks: found by changing their weights and looking at the update.

Same bits after any change: nothing. Equal to 1e-12 after a change in the null space of the activations with which the
rule predicts (so that its predictions for this batch stay): only the prediction; this is the test for weight transport,
and for states that no prediction has, too. Else: all. Predictions are those before the step, so the second trial looks
at what a step would write, and writes nothing: else a rule that predicts again after its first update had others.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from altprop.analysis.trace import Trace
from altprop.analysis.trials import Bench, Subject, batch, block_parameters, later_parameters, moved, snapshot
from altprop.rule import Rule

TOLERANCE = 1e-12
TRIALS = 4


def later_blocks(bench: Bench) -> str:
    """The weakest of "none", "prediction" and "all" that explains every block's update in every trial."""
    found = "none"
    for trial in range(TRIALS):  # one may miss: a sampled negative is often the same with other weights
        found = _feedback(bench.trained, trial, found)
    return found


def _feedback(subject: Subject, trial: int, found: str) -> str:
    """What one batch shows, or `found` if that is more."""
    x, y = batch(3, seed=100 + trial, dtype=torch.float64)  # below the width: activations have a null space
    rule = subject.restore()
    before = snapshot(rule)
    rule.step(x, y)
    plain = snapshot(rule)
    if not moved(rule, before):
        return "nothing (some block did not learn)"
    for block, own in block_parameters(rule).items():
        if found == "none":
            for parameter in later_parameters(subject.restore(), block).values():
                disturb(parameter, trial)
            rule.step(x, y)
            if not all(torch.equal(p, plain[name]) for name, p in own.items()):
                found = "prediction"
        if found == "prediction":
            planned, felt = intentions(subject.restore(), x, y), operands(subject.restore(), x)
            for name, parameter in later_parameters(subject.restore(), block).items():
                if parameter.dim() > 1 and not disturb(parameter, trial, felt[name]):
                    return "all (the activations of its predictions leave no null space to try less)"
            changed = intentions(rule, x, y)
            if not all(bool(((changed[name] - planned[name]).abs() <= TOLERANCE).all()) for name in own):
                return "all"
    return found


def intentions(rule: Rule, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """What one step would write: each parameter's gradient, or the value that it would be given; nothing is written."""
    names: dict[Tensor, str] = {p: name for name, p in rule.named_parameters()}
    found: dict[str, Tensor] = {}

    def update(part: str) -> None:
        for p in (p for group in rule.optimizers[part].param_groups for p in group["params"]):
            found[names[p]] = torch.zeros_like(p) if p.grad is None else p.grad
            p.grad = None

    def assign(parameter: Tensor, value: Tensor) -> None:
        found[names[parameter]] = value.detach().clone()

    rule.__dict__.update(update=update, assign=assign)  # before the class's own, for this one step
    try:
        rule.step(x, y)
    finally:
        del rule.__dict__["update"], rule.__dict__["assign"]
    return found


@torch.no_grad()
def operands(rule: Rule, x: Tensor) -> dict[str, list[Tensor]]:
    """For each parameter, the activations that it meets when the rule predicts in every way that it knows: as it does
    while it learns, when blocks with running statistics have already seen the batch."""
    rule.finish()
    rule.train()
    with Trace(dict(rule.named_parameters()), keep_operands=True) as trace:
        for predict in rule.predictors().values():
            predict(x)
    return trace.operands


@torch.no_grad()
def disturb(parameter: Tensor, seed: int, felt_by: Sequence[Tensor] = ()) -> bool:
    """Change a parameter at random, but only where these activations do not feel it; False where they all do."""
    generator = torch.Generator().manual_seed(seed)
    noise = 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    if felt_by:
        _, sizes, directions = torch.linalg.svd(torch.cat(list(felt_by)), full_matrices=False)
        felt = directions[sizes > 1e-14 * sizes.max()]
        if len(felt) == felt.size(1):
            return False
        flat = noise.flatten(1)
        noise = (flat - flat @ felt.t() @ felt).view_as(noise)
    parameter += noise
    return True
