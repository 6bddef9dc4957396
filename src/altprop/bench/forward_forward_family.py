"""The contenders of the forward-forward family: one plain function each, from a `Setting` to a `Contender`."""

from altprop.bench.contender import Card, Contender, Setting, hidden, sgd


def forward_forward(setting: Setting) -> Contender:
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
