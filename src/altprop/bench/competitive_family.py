"""The contenders whose units compete for what they see, and learn without labels: one plain function each, from a
`Setting` to a `Contender`.
"""

from altprop.bench.contender import Card, Contender, Setting, adam, sgd

NOTE = "one hidden block, as wide as {width}; a readout"


def soft_hebb(setting: Setting) -> Contender:
    digits = setting.task == "digits"
    return Contender(
        "soft-hebb",
        (4 * setting.width,),
        act="triangle",
        net="soft-hebb-mlp",
        output=False,
        options={"inverse_temperature": 12.0, "normalise": "unit"},
        optimizer={"blocks": sgd(0.05), "head": adam(1e-2)},
        batch_size=32 if digits else 100,
        card=Card("triangle"),
    )


def competitive(setting: Setting) -> Contender:
    digits = setting.task == "digits"
    return Contender(
        "competitive",
        (4 * setting.width,),
        act="triangle",
        net="soft-hebb-mlp",
        net_options={"radius": 1.0},
        output=False,
        options={"average": "history", "homeostasis": 10.0},
        optimizer={"blocks": sgd(1.0), "head": adam(1e-2)},
        batch_size=32 if digits else 100,
        card=Card("triangle"),
    )


def krotov_hopfield(setting: Setting) -> Contender:
    digits = setting.task == "digits"
    return Contender(
        "krotov-hopfield",
        (4 * setting.width,),
        act="triangle",
        net="soft-hebb-mlp",
        net_options={"radius": 1.0},
        output=False,
        optimizer={"blocks": sgd(0.05), "head": adam(1e-2)},
        batch_size=32 if digits else 100,
        card=Card("triangle"),
    )


def bcm(setting: Setting) -> Contender:
    digits = setting.task == "digits"
    return Contender(
        "bcm",
        (4 * setting.width,),
        act="triangle",
        net="soft-hebb-mlp",
        net_options={"radius": 1.0},
        output=False,
        optimizer={"blocks": sgd(0.02), "head": adam(1e-2)},
        batch_size=32 if digits else 100,
        card=Card("triangle"),
    )
