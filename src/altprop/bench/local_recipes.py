"""The recipes of local losses and of the controls of claims about memory, with the numbers that they must reach."""

from altprop.bench.contender import Card, Contender, Setting, adam
from altprop.bench.contenders import contender
from altprop.bench.recipe import Goal, Recipe, of

LOCAL_HEAD = """# Local losses

Made by `make recipes` (this page too); one recipe alone by `python -m altprop.bench.recipes --only NAME`, with its
heading as the name. MNIST: 50,000 training, 10,000 validation and 10,000 test images; what was chosen was chosen on
validation; below is test accuracy at the last epoch, not the best one, one thread. Goals are this project's; published
numbers are their authors'. Accuracy and memory against the size of a module are on [a page of their
own](block_sizes.md), and so are [costs beside rules of other families](costs.md). {interval}.
"""
EIDNES = "Nøkland & Eidnes 2019"


def side_by_side(setting: Setting) -> list[Contender]:
    names = ("local-classifier", "predsim", "info-pro", "deep-supervision", "checkpointed-backprop",
             "accumulated-backprop")  # fmt: skip
    return [contender(name, setting) for name in names]


LOCAL = (
    Recipe(
        "Local losses",
        10,
        {},
        chosen=side_by_side,
        text="784-500-500-10: local losses beside backpropagation and its three controls, two of which are "
        "backpropagation computed in another way.",
    ),
    Recipe(
        "Predsim",
        40,
        {("predsim · jitter", ""): Goal(98.9, 99.38, f"{EIDNES}, 100 epochs, dropout")},
        precision="medium",
        chosen=of(
            "predsim",
            "jitter",
            widths=(1024, 1024, 1024),
            net_options={"norm": True},
            options={"beta": 0.7},
            jitter=2,
            optimizer={"all": adam(2e-3)},
            schedule="fall",
            batch_size=128,
            card=Card(tuning="rate, beta and normalisation chosen on validation with one seed and 8 epochs"),
        ),
        controls="none",
        curve=False,
        text="784-1024-1024-1024-10 with layer normalisation. Training images are moved by up to two pixels in each "
        "direction, anew in every epoch.",
    ),
    Recipe(
        "Predsim on cifar10",
        20,
        {("predsim · conv", ""): Goal(75.0, 94.42, f"{EIDNES}, VGG8b of width 128, 400 epochs")},
        task="cifar10",
        net="conv",
        precision="medium",
        chosen=of(
            "predsim",
            "conv",
            widths=(48, 96, 192),
            net_options={"norm": True},
            options={"beta": 0.7},
            jitter=2,
            optimizer={"all": adam(2e-3)},
            schedule="fall",
            batch_size=128,
            card=Card(tuning="rate chosen on validation with one seed and 3 epochs; beta as on MNIST"),
        ),
        controls="none",
        curve=False,
        text="Three convolutions of 48, 96 and 192 channels with layer normalisation. Training images are moved by "
        "up to two pixels.",
    ),
)
