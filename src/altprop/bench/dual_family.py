"""The contenders that give every block targets, nudged pairs or an apical error: one plain function each."""

from altprop.bench.contender import TUNED, Card, Contender, Setting, adam, hidden, sgd


def difference_target_propagation(setting: Setting) -> Contender:
    return Contender(
        "difference-target-propagation",
        hidden(setting),
        optimizer={"blocks": adam(2e-3), "feedback": adam(2e-3)},
        schedule="fall",
        card=Card(tuning=TUNED),
    )


def dual_propagation(setting: Setting) -> Contender:
    return Contender(
        "dual-propagation", hidden(setting), optimizer={"all": adam(2e-3)}, schedule="fall", card=Card(tuning=TUNED)
    )


def dendritic_microcircuit(setting: Setting) -> Contender:
    return Contender(
        "dendritic-microcircuit",
        hidden(setting),
        optimizer={"blocks": adam(2e-3), "interneurons": adam(2e-3), "lateral": sgd(1e-3)},
        schedule="fall",
        card=Card(tuning=TUNED),
    )
