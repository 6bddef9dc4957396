"""The contenders with local losses, and their controls: one plain function each, from a `Setting` to a `Contender`."""

from altprop.bench.contender import TUNED, Card, Contender, Setting, adam, hidden

SAME = "as backpropagation, whose gradients these are"


def local_classifier(setting: Setting) -> Contender:
    return Contender(
        "local-classifier", hidden(setting), optimizer={"all": adam(3e-3)}, schedule="cosine", card=Card(tuning=TUNED)
    )


def predsim(setting: Setting) -> Contender:
    return Contender(
        "predsim", hidden(setting), optimizer={"all": adam(3e-3)}, schedule="cosine", card=Card(tuning=TUNED)
    )


def info_pro(setting: Setting) -> Contender:
    return Contender(
        "info-pro", hidden(setting), optimizer={"all": adam(3e-3)}, schedule="cosine", card=Card(tuning=TUNED)
    )


def deep_supervision(setting: Setting) -> Contender:
    return Contender(
        "deep-supervision", hidden(setting), optimizer={"all": adam(3e-3)}, schedule="cosine", card=Card(tuning=TUNED)
    )


def checkpointed_backprop(setting: Setting) -> Contender:
    return Contender(
        "checkpointed-backprop",
        hidden(setting),
        optimizer={"all": adam(3e-3)},
        schedule="cosine",
        card=Card(tuning=SAME),
    )


def accumulated_backprop(setting: Setting) -> Contender:
    return Contender(
        "accumulated-backprop",
        hidden(setting),
        optimizer={"all": adam(3e-3)},
        schedule="cosine",
        card=Card(tuning=SAME),
    )
