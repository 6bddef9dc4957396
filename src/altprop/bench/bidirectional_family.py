"""The contenders that learn in both directions: one plain function each, from a `Setting` to a `Contender`."""

from altprop.bench.contender import Card, Contender, Setting, adam, hidden, sgd


def bidirectional_predictive_coding(setting: Setting) -> Contender:
    return Contender(
        "bidirectional-predictive-coding",
        hidden(setting),
        options={"alpha_down": 1e-4, "rate": 0.03, "sweeps": 4},
        optimizer={"all": adam(3e-3 if setting.task == "digits" else 2e-3, eps=1e-10)},
        schedule="fall",
        card=Card(tuning="rates, sweeps and the weight of what is predicted from above on validation with one seed"),
    )


def backward_prediction(setting: Setting) -> Contender:
    return Contender(
        "backward-prediction",
        hidden(setting),
        act="tanh",
        options={"substeps": 2},
        optimizer={"all": adam(2e-3 if setting.task == "digits" else 1e-3)},
        schedule="fall",
        card=Card("tanh", tuning="activation, rate and sub-steps chosen on validation with one seed"),
    )


def forward_backward_lateral(setting: Setting) -> Contender:
    return Contender(
        "forward-backward-lateral",
        hidden(setting),
        output=False,
        act="tanh",
        optimizer={"blocks": sgd(0.5), "backward": sgd(0.1), "lateral": sgd(0.1), "head": adam(1e-2)},
        schedule="fall",
        card=Card("tanh", tuning="rates, sweeps and decay chosen on validation with one seed", note="a linear readout"),
    )
