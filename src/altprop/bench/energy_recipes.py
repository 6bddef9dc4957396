"""The recipes of rules that relax to an equilibrium, and of their kin, with the numbers that they must reach."""

from dataclasses import replace
from typing import Any

from altprop.bench.contender import Card, Contender, Setting, adam, sgd
from altprop.bench.contenders import contender, frozen, reference
from altprop.bench.recipe import Goal, Recipe

ENERGY_HEAD = """# The energy-based family

Made by `make recipes` (this page too); one recipe alone by `python -m altprop.bench.recipes --only NAME`, with its
heading as the name. MNIST: 50,000 training, 10,000 validation and 10,000 test images; what was chosen was chosen on
validation; below is test accuracy at the last epoch, not the best one, one thread. Goals are this project's; published
numbers are their authors', on nets of about this size, where we found one. How near each rule's updates are to
backpropagation's, and how far it is from equilibrium, is on the page about [relaxation](relaxation.md). {interval}.
"""
PCX = "Pinchetti et al. 2025, 25 epochs, best on test"
BOGACZ = "notebook of the Bogacz group, last of 10 epochs"


def on(setting: Setting, rule: str, widths: tuple[int, ...], variant: str = "", **changes: Any) -> Contender:
    """The rule's contender on a net of these hidden widths, with some fields changed; options are added to its own."""
    own = contender(rule, setting)
    options = {**own.options, **changes.pop("options", {})}
    return replace(own, widths=widths, variant=variant, options=options, **changes)


def beside_backprop(setting: Setting, widths: tuple[int, ...], *contenders: Contender) -> list[Contender]:
    """Backprop on the common net and with its hidden blocks frozen, then the rules."""
    common = replace(reference(setting), widths=widths)
    return [common, frozen(common, ""), *contenders]


def coding(setting: Setting) -> list[Contender]:
    widths = (128, 128, 128)
    rules = (
        "predictive-coding",
        "incremental-predictive-coding",
        "nudged-predictive-coding",
        "error-predictive-coding",
        "adaptive-relaxation",
        "fixed-prediction",
        "z-il",
    )
    before = on(setting, "predictive-coding", widths, "states before", options={"states": "before"})
    return beside_backprop(setting, widths, *(on(setting, rule, widths) for rule in rules), before)


def two_blocks(setting: Setting) -> list[Contender]:
    widths, rule = (256, 256), "predictive-coding"
    small = on(setting, rule, widths, "small rate", options={"rate": 0.02, "states": "before"})
    return beside_backprop(setting, widths, on(setting, rule, widths), small)


def both_ways(setting: Setting) -> list[Contender]:
    widths = (256, 256)
    rules = ("bidirectional-predictive-coding", "backward-prediction", "forward-backward-lateral")
    found = beside_backprop(setting, widths, *(on(setting, rule, widths) for rule in rules))
    still = {part: sgd(0.0) for part in ("backward", "lateral")}
    return [*found, frozen(found[-1], "", {**found[-1].optimizer, **still})]


def deep(setting: Setting) -> list[Contender]:
    card = Card(tuning="rates and cost on validation with one seed", note="muPC: residual blocks scaled by depth")
    rates = {"optimizer": {"all": adam(3e-2, eps=1e-12)}, "card": card}
    down = {"order": "gauss-seidel", "sweeps": 8, "rate": 0.8, "output": "squared"}
    at_once = {"sweeps": 64, "rate": 0.3, "output": "squared"}
    rule = "predictive-coding"
    return [
        on(setting, rule, (128,) * 64, "64 residual blocks", options=down, **rates),
        on(setting, rule, (128,) * 128, "128 residual blocks", options=down, **rates),
        on(setting, rule, (128,) * 64, "64 residual blocks, all states at once", options=at_once, **rates),
    ]


def propagated(setting: Setting) -> list[Contender]:
    rule = "equilibrium-propagation"
    found = [on(setting, rule, (512,))]
    found += [on(setting, rule, (512,), nudge, options={"nudge": nudge}) for nudge in ("positive", "negative")]
    return beside_backprop(setting, (512,), *found)


def settled(setting: Setting) -> list[Contender]:
    rules = ("contrastive-hebbian", "generec", "almeida-pineda")
    return beside_backprop(setting, (256,), *(on(setting, rule, (256,)) for rule in rules))


def targets(setting: Setting) -> list[Contender]:
    widths = (256, 256)
    rules = ("difference-target-propagation", "dual-propagation", "dendritic-microcircuit")
    return beside_backprop(setting, widths, *(on(setting, rule, widths) for rule in rules))


ENERGY = (
    Recipe(
        "Predictive coding",
        10,
        {
            ("predictive-coding", ""): Goal(97.5, 98.26, PCX),
            ("error-predictive-coding", ""): Goal(97.5),
            ("incremental-predictive-coding", ""): Goal(98.0, 98.45, PCX),
            ("nudged-predictive-coding", ""): Goal(None, 98.23, PCX),
        },
        chosen=coding,
        controls="none",
        text="784-128-128-128-10. Fixed predictions and Z-IL are backpropagation, found in another way.",
    ),
    Recipe(
        "Predictive coding with two blocks",
        10,
        {("predictive-coding · small rate", ""): Goal(98.2, 98.3, BOGACZ)},
        chosen=two_blocks,
        controls="none",
        text="784-256-256-10; at a small state rate, 0.02, with states before the activation, and at the usual 0.1.",
    ),
    Recipe(
        "Both ways",
        10,
        {("bidirectional-predictive-coding", ""): Goal(96.5), ("backward-prediction", ""): Goal(95.0)},
        chosen=both_ways,
        controls="none",
        text="784-256-256-10. The drawings of these nets are on [a page of their own](energy_drawings.md).",
    ),
    Recipe(
        "Sixty-four blocks",
        2,
        {("predictive-coding · 64 residual blocks", ""): Goal(95.0)},
        net="residual",
        width=128,
        depth=64,
        seeds=1,
        chosen=deep,
        controls="none",
        curve=False,
        text="Residual blocks of 128 units, scaled by depth and width (muPC). Eight sweeps from the output down at a "
        "state rate of 0.8, against 64 sweeps of all states at once at 0.3, by which time the error has only just come "
        "to the first block.",
    ),
    Recipe(
        "Equilibrium propagation",
        10,
        {("equilibrium-propagation", ""): Goal(97.5)},
        chosen=propagated,
        controls="none",
        text="784-512-10; the nudge is centred where nothing is said.",
    ),
    Recipe(
        "Settled nets",
        10,
        {
            ("contrastive-hebbian", ""): Goal(96.5),
            ("generec", ""): Goal(96.5),
            ("almeida-pineda", ""): Goal(97.0),
        },
        chosen=settled,
        controls="none",
        text="784-256-10.",
    ),
    Recipe(
        "Targets",
        10,
        {
            ("difference-target-propagation", ""): Goal(97.5),
            ("dual-propagation", ""): Goal(97.8),
            ("dendritic-microcircuit", ""): Goal(None, 98.04, "Sacramento et al. 2018, 784-500-500-10, in time"),
        },
        chosen=targets,
        controls="none",
        text="784-256-256-10: targets, pairs of states, and microcircuits at their steady state.",
    ),
)
