"""The recipes of feedback alignment and its kin, with the numbers that they must reach."""

from dataclasses import replace
from typing import Any

from altprop.bench.contender import Card, Contender, Setting, sgd
from altprop.bench.contenders import frozen
from altprop.bench.energy_recipes import on
from altprop.bench.recipe import Goal, Lead, Recipe

FEEDBACK_HEAD = """# The feedback family

Made by `make recipes` (this page too); one recipe alone by `python -m altprop.bench.recipes --only NAME`, with its
heading as the name. MNIST: 50,000 training, 10,000 validation and 10,000 test images; what was chosen was chosen on
validation; below is test accuracy at the last epoch, not the best one, one thread. Goals are this project's; published
numbers are from the papers or logs named beside them, mostly of deeper nets that learn for longer. A
user's own residual net, converted to feedback rules by one line, has [a page of its own](converted.md), and so have
[angles through training, and feedback in only some blocks](feedback_angles.md). {interval}.
"""
CCL = "six layers of 256, 100 epochs, in the CCL paper's first table"
LOG = "log of the code of Nøkland 2016, 2x800, 300 epochs"
WIDTHS = (256, 256)


def feedback(setting: Setting) -> list[Contender]:
    """All on the same net of tanh units, by gradient descent with momentum, but for random target projection."""
    card = Card("tanh", tuning="rate chosen on validation with one seed")
    same: dict[str, Any] = {"act": "tanh", "init": "lecun", "schedule": "fall", "batch_size": 64, "card": card}
    backprop = on(setting, "backprop", WIDTHS, optimizer={"all": sgd(0.05, momentum=0.9)}, **same)
    signs = "sign-symmetry"
    return [
        backprop,
        frozen(backprop, "", {"all": sgd(0.3, momentum=0.9)}),
        on(setting, "feedback-alignment", WIDTHS),
        on(setting, "direct-feedback-alignment", WIDTHS, optimizer={"all": sgd(0.1, momentum=0.9)}, **same),
        on(setting, "kolen-pollack", WIDTHS),
        on(setting, "weight-mirror", WIDTHS),
        on(setting, signs, WIDTHS),
        on(setting, signs, WIDTHS, "fixed magnitudes", options={"magnitudes": "fixed"}),
        on(setting, signs, WIDTHS, "magnitudes of each batch", options={"magnitudes": "batch"}),
        on(setting, "direct-kolen-pollack", WIDTHS),
        on(setting, "sign-direct-feedback-alignment", WIDTHS),
        on(setting, "direct-random-target-projection", WIDTHS),
    ]


def long_run(setting: Setting) -> list[Contender]:
    """Direct feedback alignment as in `feedback`, on a wider net, with images moved."""
    (dfa,) = (c for c in feedback(setting) if c.rule == "direct-feedback-alignment")
    card = replace(dfa.card, tuning="as on the smaller net")
    return [replace(dfa, variant="jitter", widths=(800, 800), jitter=2, card=card)]


FEEDBACK = (
    Recipe(
        "Feedback",
        5,
        {
            ("feedback-alignment", ""): Goal(97.0, 96.96, CCL),
            ("direct-feedback-alignment", ""): Goal(96.4, 97.27, CCL),
            ("kolen-pollack", ""): Goal(97.0),
            ("sign-symmetry", ""): Goal(97.4),
            ("sign-symmetry · fixed magnitudes", ""): Goal(97.4),
            ("sign-symmetry · magnitudes of each batch", ""): Goal(97.2),
            ("direct-random-target-projection", ""): Goal(None, 92.16, CCL),
        },
        chosen=feedback,
        controls="none",
        leads=(Lead("direct-random-target-projection", "backprop · frozen", 1.0),),
        text="784-256-256-10, tanh, gradient descent with momentum 0.9, each rule at its own rate, in batches of 64 "
        "(feedback alignment: 32; signs: no momentum; random target projection: Adam, in batches of 128). The frozen "
        "control is the shallow net, whose hidden blocks stay random.",
    ),
    Recipe(
        "A long run",
        100,
        {("direct-feedback-alignment · jitter", ""): Goal(98.5, 98.95, LOG)},
        seeds=1,
        chosen=long_run,
        controls="none",
        text="784-800-800-10, tanh. Training images are moved by up to two pixels in each direction, anew in every "
        "epoch; the published number has adversarial noise instead.",
    ),
)
