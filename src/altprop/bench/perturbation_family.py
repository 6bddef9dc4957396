"""The contenders that perturb weights or activities: one plain function each, from a `Setting` to a `Contender`."""

import math

from altprop.bench.contender import Card, Contender, Setting, adam, hidden

TUNED = "schedule, rate and batch size chosen on validation with one seed, on the digits; untuned elsewhere"


def forward_gradient(setting: Setting) -> Contender:
    rate = 5e-3 if setting.task == "digits" else 1e-3
    return Contender(
        "forward-gradient",
        hidden(setting),
        optimizer={"all": adam(rate)},
        schedule="fall",
        card=Card(tuning=TUNED, note="one direction a sample and step"),
    )


def local_forward_gradient(setting: Setting) -> Contender:
    rate = 5e-3 if setting.task == "digits" else 1e-3
    return Contender(
        "local-forward-gradient",
        (*hidden(setting), setting.width),
        output=False,
        options={"groups": 1 if setting.net in ("spiking", "rates") else math.gcd(4, setting.width)},
        optimizer={"all": adam(rate)},
        schedule="fall",
        card=Card(tuning=TUNED, note="one more hidden block in the place of the output block; a block has four groups"),
    )


def node_perturbation(setting: Setting) -> Contender:
    rate = 5e-3 if setting.task == "digits" else 1e-3
    card = Card(tuning=TUNED, note="eight directions a sample and step, as a batch nine times as large")
    return Contender(
        "node-perturbation",
        hidden(setting),
        options={"directions": 8, "sigma": 0.1},
        optimizer={"all": adam(rate)},
        schedule="fall",
        card=card,
    )


def weight_perturbation(setting: Setting) -> Contender:
    rate = 1e-2 if setting.task == "digits" else 3e-3
    return Contender(
        "weight-perturbation",
        hidden(setting),
        options={"directions": 16},
        optimizer={"all": adam(rate, betas=(0.9, 0.99))},
        schedule="fall",
        card=Card(tuning=TUNED, note="sixteen directions a step"),
    )
