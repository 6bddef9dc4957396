"""The recipes of the forward-forward family, with the numbers that they must reach and the published ones."""

from dataclasses import replace

from altprop.bench import forward_forward_family as family
from altprop.bench.contender import Card, sgd
from altprop.bench.recipe import Goal, Recipe, of

FORWARD_FORWARD_HEAD = """# The forward-forward family

Made by `make recipes` (this page too); one recipe alone by `python -m altprop.bench.recipes --only NAME`, with its
heading as the name. MNIST: 50,000 training, 10,000 validation and 10,000 test images; what was chosen was chosen on
validation; below is test accuracy at the last epoch, not the best one, one thread. Published numbers are their
authors'; most do not say whether a validation split was kept, or whether the last epoch counts or the best one.
{interval}.
"""
HINTON = "Hinton 2022"
CHANNELS = (40, 80, 160)

FULL = Recipe(
    "Full recipe",
    40,
    {
        ("forward-forward · full", "head"): Goal(98.6, 98.64, f"{HINTON}, 4x2000, 60 epochs"),
        ("forward-forward · full", "energy"): Goal(98.6),
    },
    seeds=1,
    precision="medium",
    chosen=of("forward-forward", "full", widths=(2000, 2000, 2000)),
    controls="none",
    text="On validation, energy is the better of the two ways to read it (98.4 against 98.3 %).",
)
JITTER = Recipe(
    "With jitter",
    100,
    {
        ("forward-forward · jitter", "energy"): Goal(99.1, 99.36, f"{HINTON}, 4x2000, 25 shifts, 500 epochs"),
        ("forward-forward · jitter", "head"): Goal(99.1),
    },
    seeds=1,
    precision="medium",
    chosen=of(
        "forward-forward",
        "jitter",
        widths=(1000, 1000, 1000),
        jitter=1,
        optimizer={
            "blocks": sgd(1e-3, momentum=0.9, weight_decay=3e-3),
            "heads": sgd(5e-3, momentum=0.9, weight_decay=1e-3),
        },
    ),
    controls="none",
    text="Training images are moved by up to a pixel in each direction, anew in every epoch. "
    "On validation, energy is the better of the two ways to read it (99.1 against 99.0 %).",
)
SMALL = Recipe(
    "784-512-512",
    12,
    {
        ("forward-forward · small", "head"): Goal(97.2, 95.26, "a notebook, 3 epochs, train 97.96"),
        ("forward-forward · small", "energy"): Goal(97.2),
    },
    precision="medium",
    chosen=of("forward-forward", "small", widths=(512, 512)),
    controls="same net",
)
UNSUPERVISED = Recipe(
    "Unsupervised",
    60,
    {("unsupervised-forward-forward · long", ""): Goal(98.3, 98.63, f"{HINTON}, 4x2000, 100 epochs")},
    precision="medium",
    chosen=of(
        "unsupervised-forward-forward",
        "long",
        widths=(1000, 1000, 1000),
        options={"threshold": 3.0, "settle": 0.8, "skip_first": False},
        card=Card(
            tuning="threshold, and what is read, chosen on validation with one seed; the rest as for the plain net",
            note="blocks learn without labels for four fifths of the run; the softmax reads all three",
        ),
    ),
    controls="none",
    text="Negatives are hybrids of two images; labels are seen by a linear softmax on the blocks' activities alone.",
)
FIELDS = Recipe(
    "Unsupervised with local receptive fields",
    20,
    {("unsupervised-forward-forward · local", ""): Goal(98.3, 98.84, f"{HINTON}, 100 epochs")},
    net="local",
    precision="medium",
    chosen=lambda setting: [family.local_unsupervised_forward_forward(setting)],
    controls="none",
    text="Local receptive fields without weight sharing.",
)
RECURRENT = Recipe(
    "Recurrent",
    24,
    {("recurrent-forward-forward", "energy"): Goal(98.0, 98.69, f"{HINTON}, 8 iterations, 60 epochs")},
    precision="medium",
    chosen=of("recurrent-forward-forward"),
    controls="none",
    text="The image below, the label above, and states that both pull at.",
)
CLASSES_MNIST = Recipe(
    "Channels for classes on MNIST",
    10,
    {
        ("channel-wise-competition · conv, jitter", "last"): Goal(
            99.3, 99.42, "Papachristodoulou et al. 2024, 20 epochs"
        ),
        ("channel-wise-competition · conv, jitter", "sum"): Goal(),
    },
    net="conv",
    chosen=of("channel-wise-competition", "conv, jitter", widths=CHANNELS, jitter=1, options={"sharpness": 6.0}),
    controls="none",
    text="Training images are moved by up to a pixel in each direction, anew in every epoch.",
)
CLASSES_CIFAR10 = replace(
    CLASSES_MNIST,
    name="Channels for classes on cifar10",
    task="cifar10",
    epochs=8,
    goals={
        ("channel-wise-competition · conv", "last"): Goal(65.0, 78.11, "Papachristodoulou et al. 2024, 20 epochs"),
        ("channel-wise-competition · conv", "sum"): Goal(),
    },
    chosen=of("channel-wise-competition", "conv", widths=CHANNELS, options={"sharpness": 3.0}),
    text="",
)
DEEPER = Recipe(
    "DeeperForward",
    10,
    {
        ("deeper-forward · conv", "sum"): Goal(98.8, 99.50, "Sun et al. 2025, four conv blocks, 150 epochs"),
        ("deeper-forward · conv", "last"): Goal(),
    },
    net="conv",
    chosen=of("deeper-forward", "conv", widths=CHANNELS),
    controls="none",
)
LOCAL_CIFAR10 = Recipe(
    "Local receptive fields on cifar10",
    10,
    {
        ("forward-forward · local", "energy"): Goal(None, 56.0, f"{HINTON}, two blocks, of 54 to 56"),
        ("forward-forward · local", "head"): Goal(None, 54.0, f"{HINTON}, two blocks, of 54 to 56"),
        ("backprop · local", ""): Goal(None, 63.0, f"{HINTON}, two blocks"),
    },
    task="cifar10",
    net="local",
    seeds=1,
    precision="medium",
    chosen=lambda setting: [family.local_forward_forward(setting), family.local_backprop(setting)],
    controls="none",
    text="One locally connected net, by forward-forward and by backprop, each with a rate chosen for it on validation.",
)
OTHERS = (
    Recipe(
        "Mono-forward",
        10,
        {("mono-forward", "last"): Goal(98.0, 98.15, "Gong et al. 2025, 3x2000"), ("mono-forward", "sum"): Goal()},
        precision="medium",
        chosen=of("mono-forward"),
        controls="same net",
    ),
    Recipe("SPELA", 20, {("spela", "last"): Goal(95.5)}, precision="medium", chosen=of("spela"), controls="same net"),
    Recipe(
        "Cascaded forward",
        10,
        {("cascaded-forward · conv", ""): Goal(98.0, 98.80, "Zhao et al. 2023, three conv blocks")},
        precision="medium",
        net="conv",
        chosen=of("cascaded-forward", "conv", widths=(16, 32, 64)),
        controls="same net",
    ),
    Recipe(
        "Self-contrastive",
        8,
        {("self-contrastive-forward-forward · wide", ""): Goal(97.5, 98.7, "Chen et al. 2025, 2x2000, linear probe")},
        precision="medium",
        chosen=of("self-contrastive-forward-forward", "wide", widths=(2000, 2000)),
        controls="same net",
    ),
)
FORWARD_FORWARD = (FULL, JITTER, SMALL, UNSUPERVISED, FIELDS, RECURRENT, CLASSES_MNIST, CLASSES_CIFAR10, DEEPER,
                   LOCAL_CIFAR10, *OTHERS)  # fmt: skip
