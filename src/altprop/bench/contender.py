"""What a contender is: a rule, the net that it needs and the hyperparameters chosen for a task, all plain values."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from altprop import nets, rules, schedules
from altprop.bench import cases, protocol
from altprop.rule import Problem, Rule

BUILDERS: Mapping[str, Callable[..., nn.Sequential]] = {
    "mlp": nets.mlp,
    "conv": nets.conv,
    "vgg8b": nets.vgg8b,
    "local": nets.local,
    "spiking": nets.spiking,
    "recurrent-spiking": nets.recurrent_spiking,
    "spike-coded": nets.spike_coded,
    "rates": nets.rates,
    "black-box": nets.boxed,
    "residual": nets.residual,
    "soft-hebb": nets.soft_hebb,
    "soft-hebb-mlp": nets.soft_hebb_mlp,
}
IMAGES = ("conv", "vgg8b", "local", "soft-hebb")
"""The kinds of net that take images; the others take vectors."""
SPIKING = ("spiking", "recurrent-spiking", "spike-coded")
"""The kinds of net whose activation is a spiking neuron."""


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

    widths: hidden widths (channels for a convolutional or local net); output: whether the net ends in an output block;
    frozen: whether all blocks but the output one stay at their random values; net: the kind of net, where it is not
    the comparison's; label_inputs: features (or channels) that the net takes besides the task's, for a label;
    jitter: training images are shifted by up to so many pixels; net_options: further arguments of the net's builder.
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
    net: str = ""
    label_inputs: int = 0
    jitter: int = 0
    net_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return cases.label(self.rule, self.variant)

    def hyperparameters(self) -> dict[str, Any]:
        """Everything that shapes training, as JSON can hold it."""
        found = asdict(self)
        del found["card"], found["rule"], found["variant"]
        # Left out at their defaults, so that runs measured before these fields existed keep their keys.
        return {k: v for k, v in found.items() if v or k not in ("net", "label_inputs", "jitter", "net_options")}

    def network(self, setting: Setting, seed: int) -> nn.Sequential:
        """The net, its weights drawn from the seed alone."""
        generator = torch.Generator().manual_seed(protocol.seed_of("init", seed))
        shape = [int(n or 0) for n in setting.problem.input_shape]
        classes = setting.problem.outputs if self.output else None
        if not self.widths:  # the linear classifier
            features = nets.linear(math.prod(shape), setting.problem.outputs, self.init, generator)
            return nn.Sequential(nets.Block(pool=nn.Flatten()), nets.Block(features))
        shape[0] += self.label_inputs
        kind, options = self.net or setting.net, {"act": self.act, "init": self.init, "generator": generator}
        net = network(kind, shape, self.widths, classes=classes, **options, **self.net_options)
        if self.frozen:
            net[: len(net) - self.output].requires_grad_(False)
        return net

    def build(self, setting: Setting, seed: int, net: nn.Sequential | None = None) -> Rule:
        """The rule on its own net, or on another one, ready to learn; raises UsageError if it does not support it."""
        optimizer = self.optimizer.get("all", self.optimizer)
        return rules.find(self.rule)(
            self.network(setting, seed) if net is None else net,
            setting.problem,
            optimizer=optimizer,
            schedule=getattr(schedules, self.schedule),
            generator=torch.Generator().manual_seed(protocol.seed_of("rule", seed)),
            **self.options,
        )


def network(kind: str, shape: Sequence[int], widths: Sequence[int], **options: Any) -> nn.Sequential:
    """A net of a kind, for inputs of this shape; widths are channels for "conv" and "local"."""
    if kind == "conv":
        return nets.conv(shape, widths, **options)
    if kind == "vgg8b":
        return nets.vgg8b(shape, widths[0], **options)
    if kind == "local":
        return nets.local(shape, fields(shape, widths), **options)
    if kind in SPIKING:
        options.pop("act", None)  # the neurons are the activation
    if kind in ("residual", "soft-hebb", "soft-hebb-mlp", "spike-coded"):
        options.pop("init", None)  # they bring their own
    if kind == "soft-hebb":
        return nets.soft_hebb(shape, widths, **options)
    return BUILDERS[kind]([math.prod(shape), *widths], **options)


def fields(shape: Sequence[int], channels: Sequence[int]) -> list[tuple[int, int, int]]:
    """(channels, kernel, stride) of the blocks of a locally connected net, after Hinton 2022's for MNIST.

    The first fields are a third of the image wide, a third of each overlaps with the next one, and the strides end at
    the image's edge: 4x4 places for 28x28 and for 32x32 images. Every further block sees 2x2 places.
    """
    sides = shape[1:]
    kernel = math.ceil(min(sides) / 3)
    stride = next(s for s in range(max(1, 2 * kernel // 3), 0, -1) if all((n - kernel) % s == 0 for n in sides))
    found = [(channels[0], kernel, stride)]
    grid = min((n - kernel) // stride + 1 for n in sides)
    for wide in channels[1:]:
        found.append((wide, min(2, grid), 1))
        grid = max(1, grid - 1)
    return found


def hidden(setting: Setting) -> tuple[int, ...]:
    """The common net's hidden widths."""
    return (setting.width,) * setting.depth


TUNED = "schedule and learning rate chosen on validation with one seed"
