"""The contenders of the forward-forward family: one plain function each, from a `Setting` to a `Contender`."""

from dataclasses import replace

from altprop.bench.contender import TUNED, Card, Contender, Setting, adam, hidden, sgd


def forward_forward(setting: Setting) -> Contender:
    if setting.net == "conv":
        return convolutional_forward_forward(setting)
    card = Card(
        label_in_input=True,
        tuning="recipe of Hinton 2022; rates, decay, label, peer and batch size chosen on validation",
        note="one more hidden block in the place of the output block; hard negatives",
    )
    digits = setting.task == "digits"
    blocks, heads, batch_size = (3e-3, 3e-2, 32) if digits else (1e-3, 5e-3, 50)
    return Contender(
        "forward-forward",
        (*hidden(setting), setting.width),
        output=False,
        init="lecun",
        options={"label": 1.4, "peer": 0.03} if digits else {"label": 2.0, "peer": 0.01},
        optimizer={
            "blocks": sgd(blocks, momentum=0.9, weight_decay=1e-2),
            "heads": sgd(heads, momentum=0.9, weight_decay=3e-3),
        },
        schedule="hold_then_fall",
        batch_size=batch_size,
        card=card,
    )


def convolutional_forward_forward(setting: Setting) -> Contender:
    """With the label in a channel of its own, where every place sees it, as on local receptive fields."""
    chosen = local_forward_forward(setting)
    card = Card(
        label_in_input=True,
        tuning="as on local receptive fields, better than as on perceptrons: MNIST, validation, one seed, one epoch",
        note="one more hidden block in the place of the output block",
    )
    return replace(chosen, variant="", net="", widths=(*hidden(setting), setting.width), card=card)


def mono_forward(setting: Setting) -> Contender:
    card = Card(tuning=TUNED, note="one more hidden block in the place of the output block")
    rate = {"digits": 1e-2}.get(setting.task, 4e-3)
    return Contender(
        "mono-forward",
        (*hidden(setting), setting.width),
        output=False,
        optimizer={"all": adam(rate)},
        schedule="cosine",
        card=card,
    )


def spela(setting: Setting) -> Contender:
    card = Card(tuning=TUNED)
    return Contender("spela", hidden(setting), optimizer={"all": adam(1e-2)}, schedule="cosine", card=card)


def cascaded_forward(setting: Setting) -> Contender:
    card = Card(tuning=TUNED, note="one more hidden block in the place of the output block; all blocks stay random")
    images = len(setting.problem.input_shape) == 3
    rate = {"digits": 1e-1}.get(setting.task, 1e-2 if images else 3e-2)
    return Contender(
        "cascaded-forward",
        (*hidden(setting), setting.width),
        output=False,
        optimizer={"all": adam(rate)},
        schedule="cosine",
        card=card,
    )


def unsupervised_forward_forward(setting: Setting) -> Contender:
    digits = setting.task == "digits"
    card = Card(
        tuning="recipe of Hinton 2022; blurs, blocks' rate, temperature and peers compared on validation with one seed",
        note="one more hidden block in the place of the output block; blocks learn without labels, from hybrid images",
    )
    return Contender(
        "unsupervised-forward-forward",
        (*hidden(setting), setting.width),
        output=False,
        init="lecun",
        options={"blurs": 2 if digits else 6, "peer": 0.03},
        optimizer={
            "blocks": sgd(3e-3 if digits else 1e-3, momentum=0.9, weight_decay=1e-3),
            "heads": adam(3e-3 if digits else 1e-3),
        },
        schedule="hold_then_fall",
        batch_size=32 if digits else 100,
        card=card,
    )


def self_contrastive_forward_forward(setting: Setting) -> Contender:
    card = Card(
        tuning="thresholds, rates and batch size chosen on validation with one seed",
        note="unsupervised; a linear softmax on all blocks, one more of which is in the place of the output block",
    )
    digits = setting.task == "digits"
    return Contender(
        "self-contrastive-forward-forward",
        (*hidden(setting), setting.width),
        output=False,
        options={"thresholds": (8.0, 6.0)},
        optimizer={"blocks": adam(1e-3), "heads": adam(1e-2 if digits else 3e-3)},
        schedule="fall",
        batch_size=32 if digits else 100,
        card=card,
    )


def generative_forward_forward(setting: Setting) -> Contender:
    digits = setting.task == "digits"
    card = Card(
        label_in_input=True,
        tuning="after the forward-forward contender; share of drawings, memory and source chosen on validation",
        note="one more hidden block in the place of the output block; a generator learns beside it",
    )
    return Contender(
        "generative-forward-forward",
        (*hidden(setting), setting.width),
        output=False,
        options={"label": 2.0, "dreams": 0.25, "memory": 512},
        optimizer={
            "blocks": adam(1e-2) if digits else sgd(1e-3, momentum=0.9, weight_decay=1e-2),
            "decoders": adam(3e-3 if digits else 1e-3),
        },
        schedule="hold_then_fall",
        batch_size=32 if digits else 50,
        card=card,
    )


def recurrent_forward_forward(setting: Setting) -> Contender:
    digits = setting.task == "digits"
    card = Card(
        tuning="optimizer, rates, decay, label, batch size and peers chosen on validation with one seed",
        note="no output block, top-down weights beside the net; eight iterations; hard negatives",
    )
    body = adam(3e-3) if digits else sgd(2e-3, momentum=0.9, weight_decay=4e-3)
    return Contender(
        "recurrent-forward-forward",
        hidden(setting),
        output=False,
        init="lecun",
        options={} if digits else {"label": 3.0, "peer": 0.01},
        optimizer={
            "blocks": body,
            "downs": body,
            "heads": adam(1e-2) if digits else sgd(5e-3, momentum=0.9, weight_decay=3e-3),
        },
        schedule="hold_then_fall",
        batch_size=32 if digits else 50,
        card=card,
    )


def channel_wise_competition(setting: Setting) -> Contender:
    return class_groups("channel-wise-competition", setting, sharpness=3.0)


def deeper_forward(setting: Setting) -> Contender:
    return class_groups("deeper-forward", setting, sharpness=20.0 if setting.net == "conv" else 5.0)


def class_groups(rule: str, setting: Setting, sharpness: float) -> Contender:
    """A rule that shares the channels of each block out among the classes, so widths are multiples of the classes."""
    digits = setting.task == "digits"
    classes = setting.problem.outputs
    widths = tuple(max(2, round(width / classes)) * classes for width in (*hidden(setting), setting.width))
    return Contender(
        rule,
        widths,
        output=False,
        options={"sharpness": sharpness},
        optimizer={"all": adam(1e-2 if digits else 3e-3)},
        schedule="cosine",
        batch_size=32 if digits else 64,
        card=Card(
            tuning="sharpness, rate and batch size chosen on validation with one seed",
            note="one more hidden block in the place of the output block; widths rounded to multiples of the classes",
        ),
    )


def local_forward_forward(setting: Setting) -> Contender:
    """For cifar10, with the label as a pattern in a channel of its own."""
    return Contender(
        "forward-forward",
        (192, 340),
        variant="local",
        output=False,
        init="lecun",
        # The pattern has this length beside an image's 28 or so: with 2, the first fields hardly see it.
        options={"placement": "channel", "label": 20.0, "temperature": 30.0, "negatives": "uniform"},
        optimizer={"blocks": adam(5e-4), "heads": adam(1e-3)},
        schedule="hold_then_fall",
        batch_size=100,
        card=Card(
            label_in_input=True,
            tuning="optimizer, rate, temperature, label and negatives chosen on validation with one seed",
            note="local receptive fields without weight sharing",
        ),
        net="local",
        label_inputs=1,
    )


def local_backprop(setting: Setting) -> Contender:
    """Backprop on the hidden blocks of `local_forward_forward`, and an output block."""
    return Contender(
        "backprop",
        (192, 340),
        variant="local",
        optimizer={"all": adam(1e-3)},
        schedule="cosine",
        card=Card(
            tuning="rate chosen on validation with one seed (3e-3, the rate for the common net, was worse)",
            note="local receptive fields without weight sharing",
        ),
        net="local",
    )


def local_unsupervised_forward_forward(setting: Setting) -> Contender:
    """On Hinton's net of local fields: 4x4, 3x3 and 2x2 places on MNIST."""
    plain = unsupervised_forward_forward(setting)
    card = replace(plain.card, note="local receptive fields without weight sharing; blocks learn without labels")
    options = {**plain.options, "blurs": 4}
    optimizer = {**plain.optimizer, "heads": adam(3e-3)}
    return replace(
        plain, variant="local", net="local", widths=(128, 220, 512), options=options, optimizer=optimizer, card=card
    )
