"""The contenders that give every block targets, nudged pairs or an apical error: one plain function each."""

from altprop.bench.contender import TUNED, Card, Contender, Setting, adam, hidden, sgd

THREE = "rates chosen on validation with three seeds"
FEW = "rates chosen on validation after two epochs, with one seed"


def difference_target_propagation(setting: Setting) -> Contender:
    digits = setting.task == "digits"
    return Contender(
        "difference-target-propagation",
        hidden(setting),
        optimizer={"blocks": adam(5e-3 if digits else 2e-3), "feedback": adam(1e-2)},
        schedule="fall",
        card=Card(tuning=THREE if digits else FEW),
    )


def dual_propagation(setting: Setting) -> Contender:
    digits = setting.task == "digits"
    return Contender(
        "dual-propagation",
        hidden(setting),
        optimizer={"all": adam(5e-3 if digits else 2e-3)},
        schedule="fall",
        card=Card(tuning=THREE if digits else TUNED),
    )


def dendritic_microcircuit(setting: Setting) -> Contender:
    digits = setting.task == "digits"
    nudge, rate = 0.5, 0.03 if digits else 0.02
    return Contender(
        "dendritic-microcircuit",
        hidden(setting),
        act="tanh",
        init="lecun",
        options={"nudge": nudge},
        optimizer={
            "blocks.0": adam(1e-2),
            "blocks": sgd(rate, momentum=0.9),
            "interneurons": sgd(rate / nudge, momentum=0.9),  # so they follow the cells that they stand for
            "lateral": sgd(0.0),
        },
        schedule="fall",
        card=Card("tanh", tuning=THREE if digits else FEW, note="synapses from interneurons stay as they start"),
    )
