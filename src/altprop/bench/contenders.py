"""Contenders: what is compared. A rule, the net that it needs and the hyperparameters chosen for a task.

One plain function a contender, from a `Setting` to a `Contender`; and the controls that a rule must beat to mean
anything.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import nn

from altprop import nets, rules, schedules
from altprop.bench import cases, protocol
from altprop.rule import Problem, Rule


@dataclass(frozen=True)
class Setting:
    """What all contenders of one comparison share."""

    task: str
    problem: Problem
    net: str
    width: int
    depth: int


@dataclass(frozen=True)
class Optimizer:
    """An optimizer as plain values: a name in torch.optim and its keyword arguments."""

    name: str = "Adam"
    arguments: Mapping[str, Any] = field(default_factory=lambda: {"lr": 1e-3})

    def __call__(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        kind: Callable[..., torch.optim.Optimizer] = getattr(torch.optim, self.name)
        return kind(parameters, fused=True, **self.arguments)


def adam(lr: float = 1e-3, **arguments: Any) -> Optimizer:
    return Optimizer("Adam", {"lr": lr, **arguments})


def sgd(lr: float, **arguments: Any) -> Optimizer:
    return Optimizer("SGD", {"lr": lr, **arguments})


@dataclass(frozen=True)
class Card:
    """The fairness card: how this contender differs from the others, and how it was tuned."""

    activation: str = "relu"
    label_in_input: bool = False
    tuning: str = "untuned defaults"
    note: str = ""


@dataclass(frozen=True)
class Contender:
    """A rule on a net with hyperparameters; all plain values, so that it can be stored and shown.

    widths: hidden widths (channels for a convolutional net); output: whether the net ends in an output block;
    frozen: whether all blocks but the output one stay at their random values.
    """

    rule: str
    widths: tuple[int, ...]
    variant: str = ""
    output: bool = True
    frozen: bool = False
    act: str = "relu"
    init: str = "kaiming"
    options: Mapping[str, Any] = field(default_factory=dict)
    optimizer: Mapping[str, Optimizer] = field(default_factory=lambda: {"all": adam()})
    schedule: str = "constant"
    batch_size: int | None = None
    card: Card = Card()

    @property
    def label(self) -> str:
        return cases.label(self.rule, self.variant)

    def hyperparameters(self) -> dict[str, Any]:
        """Everything that shapes training, as JSON can hold it."""
        found = asdict(self)
        del found["card"], found["rule"], found["variant"]
        return found

    def network(self, setting: Setting, seed: int) -> nn.Sequential:
        """The net, its weights drawn from the seed alone."""
        generator = torch.Generator().manual_seed(protocol.seed_of("init", seed))
        shape = [int(n or 0) for n in setting.problem.input_shape]
        classes = setting.problem.outputs if self.output else None
        if not self.widths:  # the linear classifier
            features = nets.linear(math.prod(shape), setting.problem.outputs, self.init, generator)
            return nn.Sequential(nets.Block(pool=nn.Flatten()), nets.Block(features))
        if setting.net == "conv":
            net = nets.conv(shape, self.widths, classes=classes, act=self.act, init=self.init, generator=generator)
        else:
            net = nets.mlp([*shape, *self.widths], classes=classes, act=self.act, init=self.init, generator=generator)
        if self.frozen:
            net[: len(net) - self.output].requires_grad_(False)
        return net

    def build(self, setting: Setting, seed: int) -> Rule:
        """The rule on its own net, ready to learn; raises UsageError if the rule does not support the net."""
        optimizer = self.optimizer.get("all", self.optimizer)
        return rules.find(self.rule)(
            self.network(setting, seed),
            setting.problem,
            optimizer=optimizer,
            schedule=getattr(schedules, self.schedule),
            generator=torch.Generator().manual_seed(protocol.seed_of("rule", seed)),
            **self.options,
        )


def hidden(setting: Setting) -> tuple[int, ...]:
    """The common net's hidden widths."""
    return (setting.width,) * setting.depth


TUNED = "schedule and learning rate chosen on validation with one seed"


def backprop(setting: Setting) -> Contender:
    return Contender(
        "backprop", hidden(setting), optimizer={"all": adam(3e-3)}, schedule="cosine", card=Card(tuning=TUNED)
    )


def forward_forward(setting: Setting) -> Contender:
    card = Card(
        label_in_input=True,
        tuning="recipe of Hinton 2022; rates, decay, label, peer and batch size chosen on validation",
        note="one more hidden block in the place of the output block; hard negatives",
    )
    digits = setting.task == "digits"
    blocks, heads, batch_size = (3e-3, 3e-2, 32) if digits else (1e-3, 5e-3, 50)
    return Contender(
        "forward-forward",
        (*hidden(setting), setting.width),
        output=False,
        init="lecun",
        options={"label": 1.4, "peer": 0.03} if digits else {"label": 2.0, "peer": 0.01},
        optimizer={
            "blocks": sgd(blocks, momentum=0.9, weight_decay=1e-2),
            "heads": sgd(heads, momentum=0.9, weight_decay=3e-3),
        },
        schedule="hold_then_fall",
        batch_size=batch_size,
        card=card,
    )


def signal_propagation(setting: Setting) -> Contender:
    card = Card(tuning=TUNED)
    return Contender("signal-propagation", hidden(setting), optimizer={"all": adam(2e-3)}, schedule="cosine", card=card)


def direct_feedback_alignment(setting: Setting) -> Contender:
    card = Card(tuning=TUNED)
    return Contender(
        "direct-feedback-alignment", hidden(setting), optimizer={"all": adam(2e-3)}, schedule="cosine", card=card
    )


def predictive_coding(setting: Setting) -> Contender:
    # Gradients of early blocks can be 1e-4 of backprop's: Adam's usual epsilon would freeze them.
    optimizer = {"all": adam(2e-3, eps=1e-10)}
    return Contender(
        "predictive-coding", hidden(setting), optimizer=optimizer, schedule="fall", card=Card(tuning=TUNED)
    )


def soft_wta(setting: Setting) -> Contender:
    card = Card(
        activation="centred, to the power 2",
        tuning="body's temperature and columns, readout's rate and batch size chosen on validation with one seed",
        note="the first two hidden blocks are one block four times as wide; a linear readout",
    )
    rate = {"digits": 5e-3}.get(setting.task, 2e-3)
    return Contender(
        "soft-wta",
        (4 * setting.width, *hidden(setting)[2:]),
        output=False,
        optimizer={"blocks": sgd(1.0), "head": adam(rate)},
        schedule="fall",
        batch_size={"digits": 32}.get(setting.task, 100),
        card=card,
    )


CONTENDERS: dict[str, Callable[[Setting], Contender]] = {
    "backprop": backprop,
    "forward-forward": forward_forward,
    "signal-propagation": signal_propagation,
    "direct-feedback-alignment": direct_feedback_alignment,
    "predictive-coding": predictive_coding,
    "soft-wta": soft_wta,
}


def contender(name: str, setting: Setting) -> Contender:
    """A rule's contender; a rule that has none of its own gets its defaults on the common net."""
    if name in CONTENDERS:
        return CONTENDERS[name](setting)
    rule = rules.find(name)
    plain = Contender(name, hidden(setting))
    headless = replace(plain, output=False)
    refused = rule.supports(plain.network(setting, 0), setting.problem)
    return headless if refused and not rule.supports(headless.network(setting, 0), setting.problem) else plain


def controls(contenders: list[Contender], setting: Setting) -> list[Contender]:
    """What every comparison holds besides its rules: backprop, a linear classifier, and a readout on random blocks;
    and, for each contender whose net is not the common one, backprop and the frozen readout on that very net."""
    common = backprop(setting)
    found = [common, linear(common, setting), frozen(common, "")]
    for other in contenders:
        if (other.widths, other.act) != (common.widths, common.act):
            where = f"on the net of {other.rule}"
            card = replace(
                common.card, activation=other.act, note=f"the hidden blocks of {other.rule}, and an output block"
            )
            found.append(replace(common, variant=where, widths=other.widths, act=other.act, init=other.init, card=card))
            found.append(frozen(other if other.rule == "soft-wta" else found[-1], f" {where}"))
    return found


def linear(common: Contender, setting: Setting) -> Contender:
    """A linear classifier on the raw input."""
    rate = {"digits": 1e-1}.get(setting.task, 1e-2)
    card = Card("none", tuning=TUNED, note="a linear classifier on the raw input")
    return replace(common, variant="linear", widths=(), optimizer={"all": adam(rate)}, card=card)


def frozen(of: Contender, where: str) -> Contender:
    """The same net with its hidden blocks left at their random values: only the readout learns, at its own rate."""
    card = replace(of.card, tuning=TUNED, note="hidden blocks random and frozen, only the readout learns")
    rate = {"all": adam(3e-2)} if of.rule == "backprop" else {"blocks": sgd(1.0), "head": adam(1e-3)}
    return replace(of, variant=f"frozen{where}", frozen=True, optimizer=rate, card=card)
