"""The contenders of feedback alignment and its kin: one plain function each, from a `Setting` to a `Contender`."""

from dataclasses import replace
from typing import Any

from altprop.bench.contender import TUNED, Card, Contender, Setting, adam, hidden, sgd


def aligned(rule: str, setting: Setting, rate: float, **options: Any) -> Contender:
    """A rule on tanh units; gradient descent with momentum but on the digits, which are few."""
    digits = setting.task == "digits"
    return Contender(
        rule,
        hidden(setting),
        act="tanh",
        init="lecun",
        options=options,
        optimizer={"all": adam(rate) if digits else sgd(rate, momentum=0.9)},
        schedule="fall",
        batch_size=None if digits else 64,
        card=Card("tanh", tuning="chosen once, not searched" if digits else TUNED),
    )


def feedback_alignment(setting: Setting) -> Contender:
    if setting.task == "digits":
        return aligned("feedback-alignment", setting, 3e-3)
    return replace(aligned("feedback-alignment", setting, 0.04, scale=2.0), batch_size=32)


def sign_symmetry(setting: Setting) -> Contender:
    return aligned("sign-symmetry", setting, 3e-3 if setting.task == "digits" else 0.1)


def kolen_pollack(setting: Setting) -> Contender:
    return aligned("kolen-pollack", setting, 3e-3 if setting.task == "digits" else 0.05, decay=5e-4)


def weight_mirror(setting: Setting) -> Contender:
    return aligned("weight-mirror", setting, 3e-3 if setting.task == "digits" else 0.05)


def sign_direct_feedback_alignment(setting: Setting) -> Contender:
    """Without momentum, which would magnify a signal that never fades."""
    name = "sign-direct-feedback-alignment"
    if setting.task == "digits":
        return aligned(name, setting, 3e-3)
    plain = aligned(name, setting, 0.2, scale=4.0)
    card = replace(plain.card, tuning="rate, scale and momentum chosen on validation with three seeds")
    return replace(plain, optimizer={"all": sgd(0.2)}, card=card)


def direct_kolen_pollack(setting: Setting) -> Contender:
    return aligned("direct-kolen-pollack", setting, 3e-3 if setting.task == "digits" else 0.05, decay=5e-4)
