"""The contenders that learn from a second, modulated forward pass: one plain function each, from a `Setting` to a
`Contender`.
"""

from altprop.bench.contender import Card, Contender, Setting, adam, hidden, sgd


def pepita(setting: Setting) -> Contender:
    digits = setting.task == "digits"
    chosen = "rate, schedule and scale chosen on validation with three seeds"
    elsewhere = "momentum and batch size of the authors; rate, schedule and scale chosen on MNIST's validation images"
    return Contender(
        "pepita",
        hidden(setting),
        options={} if digits else {"scale": 0.1},
        optimizer={"all": adam(3e-3) if digits else sgd(0.15, momentum=0.9)},
        schedule="fall" if digits else "hold_then_fall",
        batch_size=None if digits else 64,
        card=Card(tuning=chosen if digits else elsewhere),
    )


def error_forward(setting: Setting) -> Contender:
    digits = setting.task == "digits"
    chosen = "activation, rate and scale chosen on validation with three seeds"
    return Contender(
        "error-forward",
        hidden(setting),
        act="tanh",
        init="lecun",
        optimizer={"all": adam(3e-3)},
        schedule="fall",
        card=Card(
            "tanh", tuning=chosen if digits else "as on the digits; a lower rate or scale was no better on validation"
        ),
    )
