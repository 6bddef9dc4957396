"""The contenders that settle to an equilibrium: one plain function each, from a `Setting` to a `Contender`."""

from typing import Any

from altprop.bench.contender import Card, Contender, Setting, adam, hidden

ACT = "hard-sigmoid"
CHOSEN = "activation, weights, rate, feedback and nudge chosen on validation with one seed"


def settled(rule: str, setting: Setting, **options: Any) -> Contender:
    """A rule on the common net, with weak ways down."""
    return Contender(
        rule,
        hidden(setting),
        act=ACT,
        init="uniform",
        options={"feedback": 0.1, **options},
        optimizer={"all": adam(3e-3 if setting.task == "digits" else 1e-3)},
        schedule="fall",
        card=Card(ACT, tuning=CHOSEN),
    )


def equilibrium_propagation(setting: Setting) -> Contender:
    return settled("equilibrium-propagation", setting, beta=0.3)


def contrastive_hebbian(setting: Setting) -> Contender:
    return settled("contrastive-hebbian", setting)


def generec(setting: Setting) -> Contender:
    return settled("generec", setting)


def almeida_pineda(setting: Setting) -> Contender:
    return settled("almeida-pineda", setting, **({} if setting.task == "digits" else {"tolerance": 1e-4}))
