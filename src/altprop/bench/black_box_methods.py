"""Who is tried on black boxes: rules that take no derivative through a block, and backprop with one that stands in."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from altprop.bench.cases import STRAIGHT_THROUGH
from altprop.bench.contender import Contender, Setting
from altprop.bench.contenders import contender, frozen
from altprop.bench.rates import rated


@dataclass(frozen=True)
class Method:
    """A rule on a black box.

    Arguments:
        rule: its name.
        way: what tells several ways of one rule apart.
        derivative: what stands for that of the box (see `nets.boxed`).
        readout: whether only the readout learns.
        predictor: which of the rule's ways to predict is looked at.
    """

    rule: str
    way: str = ""
    derivative: str = "none"
    readout: bool = False
    predictor: str = ""

    @property
    def name(self) -> str:
        return f"{self.rule}, {self.way}" if self.way else self.rule

    def variant(self, where: str) -> str:
        """The contender's variant on a certain box."""
        return f"{self.way}, {where}" if self.way else where

    def contender(self, setting: Setting, where: str, hardware: Mapping[str, Any], multiple: float = 1.0) -> Contender:
        """The rule as it is tuned for the task, its rates multiplied, on this hardware (options of `nets.boxed`)."""
        tuned = contender(self.rule, setting)
        chosen = frozen(tuned, "") if self.readout else tuned
        options = {**hardware, "derivative": self.derivative}
        return replace(rated(chosen, multiple), variant=self.variant(where), net_options=options)


STRAIGHT = Method("backprop", STRAIGHT_THROUGH, "straight-through")
FITTED = Method("backprop", "through a fitted model", "fitted")
FORWARD = Method("forward-forward", predictor="head")
SIGNAL = Method("signal-propagation", predictor="output")
NODES, WEIGHTS = Method("node-perturbation"), Method("weight-perturbation")
METHODS = (
    STRAIGHT,
    FITTED,
    Method("mono-forward", predictor="last"),
    SIGNAL,
    FORWARD,
    Method("direct-feedback-alignment"),
    Method("pepita"),
    NODES,
    WEIGHTS,
    Method("backprop", "readout on random blocks", "straight-through", readout=True),
)
