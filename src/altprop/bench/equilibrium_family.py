"""The contenders that settle to an equilibrium: one plain function each, from a `Setting` to a `Contender`."""

from altprop.bench.contender import Card, Contender, Setting, adam, hidden


def equilibrium_propagation(setting: Setting) -> Contender:
    return Contender(
        "equilibrium-propagation",
        hidden(setting),
        act="tanh",
        init="uniform",
        optimizer={"all": adam(1e-3)},
        schedule="fall",
        card=Card("tanh"),
    )
