"""The contenders of rules that set every block a target of its own: one plain function each."""

from altprop.bench.contender import Card, Contender, Setting, adam, hidden


def direct_random_target_projection(setting: Setting) -> Contender:
    digits = setting.task == "digits"
    card = Card(
        "tanh",
        tuning="activation, rate and optimizer chosen on validation with three seeds"
        if digits
        else "the better of two rates",
        note="activations must saturate: the signal to hidden blocks never fades",
    )
    return Contender(
        "direct-random-target-projection",
        hidden(setting),
        act="tanh",
        init="lecun",
        optimizer={"all": adam(1e-2 if digits else 3e-3)},
        schedule="cosine",
        card=card,
    )


def no_prop(setting: Setting) -> Contender:
    digits = setting.task == "digits"
    card = Card(
        tuning="rate chosen on validation with three seeds" if digits else "the better of two rates after 2 epochs",
        note="one more hidden block in the place of the output block; every block after the first has a layer from the "
        "input of its own",
    )
    return Contender(
        "no-prop",
        (*hidden(setting), setting.width),
        output=False,
        optimizer={"all": adam(1e-2 if digits else 3e-3)},
        schedule="cosine",
        card=card,
    )
