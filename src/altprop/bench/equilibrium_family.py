"""The contenders that settle to an equilibrium: one plain function each, from a `Setting` to a `Contender`."""

from altprop.bench.contender import Card, Contender, Setting, adam, hidden

ACT = "hard-sigmoid"
CHOSEN = "activation, weights, rate, feedback and nudge chosen on validation with one seed"


def equilibrium_propagation(setting: Setting) -> Contender:
    digits = setting.task == "digits"
    return Contender(
        "equilibrium-propagation",
        hidden(setting),
        act=ACT,
        init="uniform",
        options={"feedback": 0.1, "beta": 0.3},
        optimizer={"all": adam(3e-3 if digits else 1e-3)},
        schedule="fall",
        card=Card(ACT, tuning=CHOSEN),
    )


def contrastive_hebbian(setting: Setting) -> Contender:
    digits = setting.task == "digits"
    return Contender(
        "contrastive-hebbian",
        hidden(setting),
        act=ACT,
        init="uniform",
        options={"feedback": 0.1},
        optimizer={"all": adam(3e-3 if digits else 1e-3)},
        schedule="fall",
        card=Card(ACT, tuning=CHOSEN),
    )


def generec(setting: Setting) -> Contender:
    digits = setting.task == "digits"
    return Contender(
        "generec",
        hidden(setting),
        act=ACT,
        init="uniform",
        options={"feedback": 0.1},
        optimizer={"all": adam(3e-3 if digits else 1e-3)},
        schedule="fall",
        card=Card(ACT, tuning=CHOSEN),
    )


def almeida_pineda(setting: Setting) -> Contender:
    digits = setting.task == "digits"
    return Contender(
        "almeida-pineda",
        hidden(setting),
        act=ACT,
        init="uniform",
        options={"feedback": 0.1} if digits else {"feedback": 0.1, "tolerance": 1e-4},
        optimizer={"all": adam(3e-3 if digits else 1e-3)},
        schedule="fall",
        card=Card(ACT, tuning=CHOSEN),
    )
