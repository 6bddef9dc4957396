"""The contenders that learn in both directions: one plain function each, from a `Setting` to a `Contender`."""

from altprop.bench.contender import Card, Contender, Setting, adam, hidden


def bidirectional_predictive_coding(setting: Setting) -> Contender:
    return Contender(
        "bidirectional-predictive-coding",
        hidden(setting),
        optimizer={"all": adam(1e-3, eps=1e-10)},
        schedule="fall",
        card=Card(tuning="rates and sweeps chosen on validation with one seed"),
    )
