"""The contenders of predictive coding and its kin: one plain function each, from a `Setting` to a `Contender`."""

from dataclasses import replace
from typing import Any

from altprop.bench.contender import TUNED, Card, Contender, Optimizer, Setting, adam, hidden, sgd


def relaxed(rule: str, setting: Setting, **options: Any) -> Contender:
    """A rule that relaxes states on the common net."""
    # Gradients of early blocks can be 1e-4 of backprop's: Adam's usual epsilon would freeze them.
    optimizer = {"all": adam(2e-3, eps=1e-10)}
    card = Card(tuning=TUNED)
    return Contender(rule, hidden(setting), options=options, optimizer=optimizer, schedule="fall", card=card)


def predictive_coding(setting: Setting) -> Contender:
    return relaxed("predictive-coding", setting)


def incremental_predictive_coding(setting: Setting) -> Contender:
    adamw = Optimizer("AdamW", {"lr": 1e-3, "eps": 1e-10, "weight_decay": 0.1})
    card = Card("leaky-relu", tuning="rates, weight decay and cost chosen on MNIST's validation images with one seed")
    options = {"rate": 0.85, "momentum": 0.35, "output": "squared"}
    own = relaxed("incremental-predictive-coding", setting, **options)
    return replace(own, act="leaky-relu", optimizer={"all": adamw}, card=card)


def nudged_predictive_coding(setting: Setting) -> Contender:
    return relaxed("nudged-predictive-coding", setting)


def error_predictive_coding(setting: Setting) -> Contender:
    return relaxed("error-predictive-coding", setting, rate=0.001)


def fixed_prediction(setting: Setting) -> Contender:
    return relaxed("fixed-prediction", setting)


def z_il(setting: Setting) -> Contender:
    return relaxed("z-il", setting)


def adaptive_relaxation(setting: Setting) -> Contender:
    optimizer = {"blocks": adam(2e-3, eps=1e-10), "feedback": sgd(1e-2)}
    return Contender(
        "adaptive-relaxation", hidden(setting), optimizer=optimizer, schedule="fall", card=Card(tuning=TUNED)
    )
