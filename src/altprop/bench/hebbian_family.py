"""The contenders that learn components of their input, principal or independent: one plain function each, from a
`Setting` to a `Contender`.
"""

from altprop.bench.contender import Card, Contender, Setting, adam, hidden, sgd


def hebbian_pca(setting: Setting) -> Contender:
    return Contender(
        "hebbian-pca",
        hidden(setting),
        output=False,
        act="tanh",
        init="lecun",
        options={"update": "subspace"},
        optimizer={"blocks": sgd(0.3), "head": adam(2e-2)},
        schedule="fall",
        card=CARD,
    )


def lateral_pca(setting: Setting) -> Contender:
    return Contender(
        "lateral-pca",
        hidden(setting),
        output=False,
        act="tanh",
        init="lecun",
        optimizer={"blocks": sgd(0.1), "head": adam(2e-2)},
        schedule="fall",
        card=CARD,
    )


def hebbian_ica(setting: Setting) -> Contender:
    conv = setting.net == "conv"  # whose hidden images have too many values to be whitened
    return Contender(
        "hebbian-ica",
        hidden(setting),
        output=False,
        act="tanh",
        init="lecun",
        options={"update": "easi", "inputs": "centred"} if conv else {"update": "nonlinear-pca", "eps": 1.0},
        optimizer={"blocks": sgd(0.02 if conv else 0.3), "head": adam(1e-2)},
        schedule="fall",
        card=CARD,
    )


CARD = Card("tanh", tuning="activation and rates chosen on validation with one seed", note="a linear readout")
