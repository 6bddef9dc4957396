"""What an audit tries a rule on: small nets, a small problem, and a way back to where it was."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Problem, Rule

Make = Callable[[nn.Sequential, Problem, torch.Generator], Rule]
"""Builds the rule that is audited; raises UsageError for a net that it does not support."""

INPUTS, CLASSES, WIDTH, DEPTH = 24, 4, 40, 4
KINDS: tuple[tuple[Callable[..., nn.Sequential], bool], ...] = (
    (partial(nets.mlp, act="relu"), True),
    (partial(nets.mlp, act="relu"), False),
    (partial(nets.mlp, act="tanh"), True),
    (partial(nets.mlp, act="tanh"), False),
    (nets.recurrent_spiking, True),
    (nets.spike_coded, False),
)
"""Builders of nets, and whether these have an output block; in the order in which a rule is offered them."""
TRAINING_STEPS = 50
PROGRESS = 0.5


@dataclass(frozen=True)
class Bench:
    """The kind of net that a rule accepts, and fresh rules on it."""

    make: Make
    net: Callable[..., nn.Sequential]
    output_block: bool

    @classmethod
    def find(cls, make: Make) -> "Bench":
        """The first kind of net that the rule accepts; raises UsageError if it is none of them."""
        reason = ""
        for net, output_block in KINDS:
            bench = cls(make, net, output_block)
            try:
                bench.build()
            except UsageError as error:
                reason = str(error)
            else:
                return bench
        raise UsageError(f"the audit has no net for this rule: {reason}")

    def build(self, depth: int = DEPTH, width: int = WIDTH, middle: nn.Module | None = None) -> Rule:
        """A fresh rule, at half of its training, on `depth` hidden blocks, with `middle` in the middle."""
        generator = torch.Generator().manual_seed(1)
        classes = CLASSES if self.output_block else None
        blocks = list(self.net([INPUTS] + [width] * depth, classes=classes, generator=generator))
        if middle is not None:
            blocks.insert(depth // 2, middle)
        rule = self.make(nn.Sequential(*blocks), Problem((INPUTS,), CLASSES), generator)
        rule.progress = PROGRESS
        return rule

    @cached_property
    def trained(self) -> "Subject":
        """A rule in float64 after 50 steps: a fresh net hides feedback (zeros, symmetric weights)."""
        rule = self.build().double()
        untrained = {name: tensor.clone() for name, tensor in rule.state_dict().items()}
        for step in range(TRAINING_STEPS):
            rule.progress = step / TRAINING_STEPS
            rule.step(*batch(16, seed=step, dtype=torch.float64))
        rule.progress = PROGRESS
        return Subject(rule, untrained, rule.training_state())


@dataclass(frozen=True)
class Subject:
    """A trained rule, what it was before, and where to go back to after each trial."""

    rule: Rule
    untrained: dict[str, Tensor]
    state: dict[str, Any]

    def restore(self) -> Rule:
        self.rule.load_training_state(self.state)
        self.rule.zero_grad(set_to_none=True)
        return self.rule


class Opaque(nn.Module):
    """A block without weights that has no derivative: taking it raises."""

    def forward(self, x: Tensor) -> Tensor:
        opaque: Tensor = _NoDerivative.apply(x)  # type: ignore[no-untyped-call]
        return opaque


class _NoDerivative(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept: there is no backward pass."""

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise RuntimeError("a derivative was taken through a block that has none")


def batch(
    size: int, seed: int, dtype: torch.dtype = torch.float32
) -> tuple[Float[Tensor, "batch inputs"], Int[Tensor, " batch"]]:
    """Clusters, one a class: something that every rule can learn."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(CLASSES, INPUTS, generator=torch.Generator().manual_seed(0))
    y = torch.randint(CLASSES, (size,), generator=generator)
    return (centres[y] + 0.5 * torch.randn(size, INPUTS, generator=generator)).to(dtype), y


def later_parameters(rule: Rule, block: int) -> dict[str, nn.Parameter]:
    """Parameters of later blocks and of later heads ("head"; "heads.3" is the head of block 3)."""
    names = {p: name for name, p in rule.named_parameters()}
    later = [p for module in list(rule.net)[block + 1 :] for p in module.parameters()]
    for part, optimizer in rule.optimizers.items():
        word, _, index = part.partition(".")
        if word in ("head", "heads") and (not index.isdigit() or int(index) > block):
            later += [p for group in optimizer.param_groups for p in group["params"]]
    return {names[p]: p for p in later}


def block_parameters(rule: Rule) -> dict[int, dict[str, nn.Parameter]]:
    """Each block's trainable parameters by the rule's names, by the block's place in the net.

    Where a rule leaves all its blocks as they are, what learns on top of block i is the part "heads.i".
    """
    names = {p: name for name, p in rule.named_parameters()}
    blocks = {i: {names[p]: p for p in b.parameters() if p.requires_grad} for i, b in enumerate(rule.net)}
    if not any(blocks.values()):
        groups = {i: rule.optimizers[f"heads.{i}"].param_groups for i in blocks if f"heads.{i}" in rule.optimizers}
        blocks = {i: {names[p]: p for group in found for p in group["params"]} for i, found in groups.items()}
    return {i: parameters for i, parameters in blocks.items() if parameters}


def snapshot(rule: Rule) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in rule.named_parameters()}


def moved(rule: Rule, before: dict[str, Tensor], upto: int | None = None) -> bool:
    """Whether every trainable block before the place `upto` has changed, and to finite values."""
    for block, parameters in block_parameters(rule).items():
        if upto is not None and block >= upto:
            continue
        if not all(bool(torch.isfinite(p).all()) for p in parameters.values()):
            return False
        if all(torch.equal(p, before[name]) for name, p in parameters.items()):
            return False
    return True
