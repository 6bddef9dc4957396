"""The contenders with local losses, and their controls: one plain function each, from a `Setting` to a `Contender`."""

from altprop.bench.contender import Card, Contender, Setting, adam, hidden

DIGITS = "rate chosen on validation with three seeds"
SAME = "the settings of backpropagation, whose gradients these are"


def local_classifier(setting: Setting) -> Contender:
    digits = setting.task == "digits"
    return Contender(
        "local-classifier",
        hidden(setting),
        optimizer={"all": adam(1e-2 if digits else 3e-3)},
        schedule="cosine",
        card=Card(tuning=DIGITS if digits else "the settings of backpropagation"),
    )


def predsim(setting: Setting) -> Contender:
    digits = setting.task == "digits"
    return Contender(
        "predsim",
        hidden(setting),
        optimizer={"all": adam(1e-2 if digits else 1e-3)},
        schedule="cosine",
        card=Card(tuning=DIGITS if digits else "rate tried on validation with one seed, 1024 units and 4 epochs"),
    )


def info_pro(setting: Setting) -> Contender:
    card = Card(tuning="the settings of backpropagation; two modules")
    return Contender("info-pro", hidden(setting), optimizer={"all": adam(3e-3)}, schedule="cosine", card=card)


def deep_supervision(setting: Setting) -> Contender:
    card = Card(tuning="the settings of backpropagation")
    return Contender("deep-supervision", hidden(setting), optimizer={"all": adam(3e-3)}, schedule="cosine", card=card)


def checkpointed_backprop(setting: Setting) -> Contender:
    return same(setting, "checkpointed-backprop")


def accumulated_backprop(setting: Setting) -> Contender:
    return same(setting, "accumulated-backprop")


def same(setting: Setting, rule: str) -> Contender:
    card = Card(tuning=SAME)
    return Contender(rule, hidden(setting), optimizer={"all": adam(3e-3)}, schedule="cosine", card=card)
