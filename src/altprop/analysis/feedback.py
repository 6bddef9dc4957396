"""What a block's update takes from later blocks: found by changing their weights and looking at the update.

Same bits after any change: nothing. Equal to 1e-12 after a change in the null space of this batch's activations
(so that the net's output stays): only the prediction; this is the test for weight transport too. Else: all.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from altprop.analysis.trace import Trace
from altprop.analysis.trials import Bench, Subject, batch, block_parameters, later_parameters, moved, snapshot

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
    with Trace(dict(rule.named_parameters()), keep_operands=True) as trace:
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
            for name, parameter in later_parameters(subject.restore(), block).items():
                if parameter.dim() > 1 and not disturb(parameter, trial, trace.operands[name]):
                    return "all (the activations of its step leave no null space to try less)"
            rule.step(x, y)
            if not all(bool(((p - plain[name]).abs() <= TOLERANCE).all()) for name, p in own.items()):
                return "all"
    return found


@torch.no_grad()
def disturb(parameter: Tensor, seed: int, operands: Sequence[Tensor] = ()) -> bool:
    """Change a parameter at random, but only where these activations do not feel it; False where they all do."""
    generator = torch.Generator().manual_seed(seed)
    noise = 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    if operands:
        _, sizes, directions = torch.linalg.svd(torch.cat(list(operands)), full_matrices=False)
        felt = directions[sizes > 1e-14 * sizes.max()]
        if len(felt) == felt.size(1):
            return False
        flat = noise.flatten(1)
        noise = (flat - flat @ felt.t() @ felt).view_as(noise)
    parameter += noise
    return True
