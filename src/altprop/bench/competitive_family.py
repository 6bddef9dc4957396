"""The contenders whose units compete for what they see, and learn without labels: one plain function each, from a
`Setting` to a `Contender`.
"""

from dataclasses import replace
from typing import Any

from altprop.bench.contender import Card, Contender, Setting, adam, sgd

RIDGE: dict[str, Any] = {"readout": "ridge", "settle": 0.5, "decay": False, "wait": True}
CENTRED = {"power": 2.0, "centred": True, "positive": False, "radius": 0.3}


def competing(rule: str, setting: Setting, rate: float, **options: Any) -> Contender:
    """A rule on one hidden block of triangle units, four times as wide as the common net's."""
    digits = setting.task == "digits"
    return Contender(
        rule,
        (4 * setting.width,),
        act="triangle",
        net="soft-hebb-mlp",
        net_options={"radius": 1.0},
        output=False,
        options=options,
        optimizer={"blocks": sgd(rate), "head": adam(1e-2 if digits else 2e-3)},
        schedule="constant",
        batch_size=32 if digits else 100,
        card=Card(
            "triangle",
            tuning="body's rate chosen on the digits' validation images with two seeds"
            if digits
            else "rate as on the digits",
            note="one hidden block, four times as wide; a linear readout",
        ),
    )


def soft_hebb(setting: Setting) -> Contender:
    plain = competing("soft-hebb", setting, 0.05, competition="soft", inverse_temperature=8.0, normalise="unit")
    return replace(plain, net_options=CENTRED)


def competitive(setting: Setting) -> Contender:
    strength = 10.0 if setting.task == "digits" else 100.0  # squared distances are larger in larger images
    return competing("competitive", setting, 1.0, average="history", homeostasis=strength)


def long_at_first(rule: str, setting: Setting, rate: float, **options: Any) -> Contender:
    """A rule from weights of length 10, from which most units come to learn, and squared triangles."""
    plain = competing(rule, setting, rate, settle=0.5, **options)
    tuning = "start, rate, power and options chosen on MNIST (10,000 training images, validation, one seed)"
    card = replace(plain.card, tuning=tuning if setting.task == "mnist" else "as on MNIST")
    return replace(plain, net_options={"power": 2.0, "radius": 10.0}, card=card)


def krotov_hopfield(setting: Setting) -> Contender:
    """A unit that wins comes down to its length, and another one wins next."""
    return long_at_first("krotov-hopfield", setting, 0.1, norm=3.0, rank=7, delta=0.1)


def bcm(setting: Setting) -> Contender:
    """Every unit learns by itself: of units that compete, most would never win."""
    return long_at_first("bcm", setting, 0.005, competition="none", memory=0.5)


def foldiak(setting: Setting) -> Contender:
    """Sparse binary codes; slow lateral weights and a gentle slope, with which wide layers still come to rest."""
    digits = setting.task == "digits"
    rest = {"slope": 2.0, "lateral": 1.0} if digits else {"slope": 1.0, "lateral": 0.5}
    return Contender(
        "foldiak",
        (2 * setting.width,),
        output=False,
        options={**rest, "settle": 0.5},
        optimizer={"blocks": sgd(0.03), "head": adam(1e-2 if digits else 2e-3)},
        batch_size=32 if digits else 100,
        card=Card(
            "binary units that settle",
            tuning="rates and slope chosen on the digits' validation images with two seeds"
            if digits
            else "as on the digits; a slope with which 512 units come to rest on MNIST",
            note="one hidden block, twice as wide; a linear readout",
        ),
    )


def soft_hebb_perceptron(setting: Setting) -> Contender:
    """SoftHebb with 2000 units and a ridge readout, for MNIST."""
    return Contender(
        "soft-hebb",
        (2000,),
        act="triangle",
        net="soft-hebb-mlp",
        net_options=CENTRED,
        output=False,
        options={**RIDGE, "competition": "soft", "inverse_temperature": 8.0, "normalise": "unit", "penalty": 1e-4},
        optimizer={"blocks": sgd(0.045), "head": sgd(0.0)},
        batch_size=100,
        card=Card("triangle", tuning="temperature, power and penalty on validation with one seed"),
    )


def soft_hebb_conv(setting: Setting) -> Contender:
    """SoftHebb with two convolutions (three for CIFAR-10) and a ridge readout, for images."""
    two = Contender(
        "soft-hebb",
        (96, 384),
        act="triangle",
        net="soft-hebb",
        net_options={"grid": 3, "powers": (0.7, 1.4, 1.0)},
        output=False,
        options={**RIDGE, "inverse_temperature": [1.0, 0.65], "normalise": "layer", "penalty": 2e-3},
        optimizer={"blocks.1": sgd(0.08), "blocks.3": sgd(0.005), "head": sgd(0.0)},
        batch_size=50,
        card=Card("triangle", tuning="penalty, width and grid on validation with one seed"),
    )
    if setting.task != "cifar10":
        return two
    return replace(
        two,
        widths=(64, 256, 1024),
        net_options={**two.net_options, "grid": 2, "kernels": (7, 5, 3)},
        options={
            **two.options,
            "inverse_temperature": [1.0, 0.65, 1.0],
            "normalise": "unit",
            "penalty": 0.02,
            "settle": 0.18,  # of two epochs, about 15,000 images: the body gets worse from more
        },
        optimizer={**two.optimizer, "blocks.1": sgd(0.05), "blocks.5": sgd(0.01)},
        card=Card("triangle", tuning="penalty, depth, kernels, grid and settle on validation with one seed"),
    )
