"""The audit: every claim of a rule is tried, so that a rule that lies about itself is caught.

Feedback from later blocks is found by changing their weights and looking at an earlier block's update; locks
and the order of updates by the tracer's order of reads and writes; the rest by running it so. The trials take
place on random clusters and small perceptrons (spiking nets, where a rule takes no others), in float64 where bits
are compared.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from altprop.analysis.feedback import later_blocks
from altprop.analysis.trace import Trace
from altprop.analysis.trials import (
    DEPTH,
    Bench,
    Make,
    Opaque,
    batch,
    block_parameters,
    moved,
    snapshot,
)
from altprop.errors import UsageError, heard
from altprop.rule import Rule

DEPTHS = (4, 16, 64)


@dataclass(frozen=True)
class Finding:
    """One claim: what the rule says, what was measured (details in brackets), and whether they agree."""

    claim: str
    claimed: str
    measured: str
    holds: bool


def audit(make: Make) -> list[Finding]:
    """Try all claims of the rule that `make(net, problem, generator)` builds, one finding each.

    Raises UsageError if the rule supports none of the audit's nets (`trials.KINDS`).
    """
    with heard(lambda warning: None):  # what a rule says of these small nets is not for the user
        trials = _tried(Bench.find(make))
    return [
        Finding(claim, claimed, measured, holds=measured.split(" (")[0] == claimed)
        for claim, (claimed, measured) in trials.items()
    ]


def _tried(bench: Bench) -> dict[str, tuple[str, str]]:
    """Each claim, and what was measured."""
    claims = bench.trained.rule.claims
    return {
        "uses later blocks": (claims.later_blocks, later_blocks(bench)),
        "forward lock": (_yes(claims.forward_lock), forward_lock(bench)),
        "update lock": (_yes(claims.update_lock), update_lock(bench)),
        "order of updates": (claims.order, order(bench)),
        "differentiable blocks": (_yes(claims.differentiable), differentiable(bench)),
        "memory against depth": (claims.memory, memory(bench)),
        "training-only parameters": (_yes(claims.training_only), training_only(bench)),
        "same net predicts": (_yes(claims.same_net), same_net(bench)),
        "needs labels": (_yes(claims.labels), labels(bench)),
        "batch of one": (_yes(claims.batch_of_one), batch_of_one(bench)),
    }


def _yes(value: bool, details: str = "") -> str:
    return ("yes" if value else "no") + (f" ({details})" if details else "")


# The order of reads and writes.


def block_accesses(bench: Bench) -> list[tuple[str, int, str]]:
    """(kind, block, parameter) of one step, in order, as far as the net's blocks go."""
    rule = bench.trained.restore()
    place = {name: i for i, parameters in block_parameters(rule).items() for name in parameters}
    with Trace(dict(rule.named_parameters())) as trace:
        rule.step(*batch(8, seed=101, dtype=torch.float64))
    return [(a.kind, place[a.parameter], a.parameter) for a in trace.accesses if a.parameter in place]


def _before_first_write(accesses: list[tuple[str, int, str]]) -> tuple[list[tuple[str, int, str]], int, int]:
    """What happens until the first block is written, and the places of the first and the last block."""
    blocks = sorted({block for _, block, _ in accesses})
    write = next((i for i, a in enumerate(accesses) if a[:2] == ("write", blocks[0])), len(accesses))
    return accesses[:write], blocks[0], blocks[-1]


def forward_lock(bench: Bench) -> str:
    """Whether the last block is read before the first block is written."""
    early, _, last = _before_first_write(block_accesses(bench))
    return _yes(any(kind == "read" and block == last for kind, block, _ in early))


def update_lock(bench: Bench) -> str:
    """Whether, once the last block has been read, later blocks are read again before the first is written."""
    early, first, last = _before_first_write(block_accesses(bench))
    seen: set[str] = set()
    reached = False
    for kind, block, parameter in early:
        if kind != "read":
            continue
        if reached and parameter in seen and block != first:
            return "yes"
        reached = reached or block == last
        seen.add(parameter)
    return "no"


def order(bench: Bench) -> str:
    """The order of the blocks' first writes: "forward", "backward", "mixed", or "incomplete"."""
    places = list(dict.fromkeys(block for kind, block, _ in block_accesses(bench) if kind == "write"))
    if len(places) < len(block_parameters(bench.trained.rule)):
        return "incomplete (some block is never written)"
    if all(a < b for a, b in pairwise(places)):
        return "forward"
    return "backward" if all(a > b for a, b in pairwise(places)) else "mixed"


# Run it so.


def differentiable(bench: Bench) -> str:
    """Whether a block without a derivative keeps the blocks before it from learning."""
    try:
        rule = bench.build(middle=Opaque())
        before = snapshot(rule)
        for step in range(3):
            rule.step(*batch(16, seed=step))
    except (RuntimeError, UsageError) as error:
        return _yes(True, str(error).split("\n")[0][:100])
    return _yes(not moved(rule, before, upto=DEPTH // 2))


def memory(bench: Bench) -> str:
    """Peak bytes of the second step at three depths (the first creates the optimizer's state)."""
    peaks = []
    for depth in DEPTHS:
        rule = bench.build(depth, width=16)
        rule.step(*batch(32, seed=0))
        with Trace({}) as trace:
            rule.step(*batch(32, seed=1))
        peaks.append(trace.peak_bytes)
    details = ", ".join(f"{peak:,} B at {depth}" for peak, depth in zip(peaks, DEPTHS, strict=True))
    # A number a block may stay (its loss): far from a quarter, where an activation a block makes it tenfold.
    return f"{'flat' if peaks[-1] < 1.25 * peaks[0] else 'grows'} ({details})"


def _prediction(rule: Rule, x: Tensor) -> Trace:
    """One prediction in every way that the rule knows."""
    rule.finish()
    rule.eval()
    with torch.no_grad(), Trace(dict(_weights(rule))) as trace:
        for predict in rule.predictors().values():
            predict(x)
    return trace


def _weights(rule: Rule) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers; a buffer that no state_dict keeps is a constant, which the hyperparameters give."""
    kept = rule.state_dict()
    yield from rule.named_parameters()
    yield from ((name, buffer) for name, buffer in rule.named_buffers() if buffer.numel() and name in kept)


def training_only(bench: Bench) -> str:
    """Whether there are parameters or buffers that no prediction reads; and the operations of a step."""
    x, y = batch(16, seed=102, dtype=torch.float64)
    rule = bench.trained.restore()
    with Trace({}) as step:
        rule.step(x, y)
    with torch.no_grad(), Trace({}) as forward:
        rule.net(x)
    read = {a.parameter for a in _prediction(rule, x).accesses}
    unread = sum(tensor.numel() for name, tensor in _weights(rule) if name not in read)
    ratio = step.operations / max(forward.operations, 1)
    return _yes(unread > 0, f"{unread:,} values; a step costs {ratio:.2f} forward passes")


def same_net(bench: Bench) -> str:
    """Whether every weight that a prediction reads was moved by training."""
    rule = bench.trained.restore()
    read = {a.parameter for a in _prediction(rule, batch(16, seed=103, dtype=torch.float64)[0]).accesses}
    still = [
        name
        for name, tensor in _weights(rule)
        if name in read and tensor.dim() > 1 and torch.equal(tensor, bench.trained.untrained[name])
    ]
    return _yes(not still, f"training never moved {', '.join(still)}" if still else "")


def labels(bench: Bench) -> str:
    """Whether learning without labels fails, or moves nothing."""
    rule = bench.trained.restore()
    before = snapshot(rule)
    rule.train()
    try:
        rule.learn(batch(16, seed=104, dtype=torch.float64)[0], None)
    except Exception:  # whatever a rule does with None: it shows that labels are needed
        return _yes(True)
    return _yes(not moved(rule, before))


def batch_of_one(bench: Bench) -> str:
    """Whether three batches of one sample move every block, to finite values."""
    rule = bench.trained.restore()
    for optimizer in rule.optimizers.values():
        optimizer.state.clear()  # what is left of momentum would move a block that learns no more
    before = snapshot(rule)
    try:
        for seed in range(105, 108):
            rule.step(*batch(1, seed, dtype=torch.float64))
    except (RuntimeError, ValueError, IndexError) as error:
        return _yes(False, str(error).split("\n")[0][:100])
    return _yes(moved(rule, before))
