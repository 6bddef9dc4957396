"""The recipes of signal propagation and its kin, with the numbers that they must reach and the published ones."""

from dataclasses import replace

from altprop.bench import signal_propagation_family as family
from altprop.bench.contender import Contender, Setting
from altprop.bench.contenders import backprop, contender, frozen
from altprop.bench.recipe import Goal, Recipe, of

SIGNAL_PROPAGATION_HEAD = """# Signal propagation and its kin

Made by `make recipes` (this page too); one recipe alone by `python -m altprop.bench.recipes --only NAME`, with its
heading as the name. MNIST: 50,000 training, 10,000 validation and 10,000 test images; what was chosen was chosen on
validation; below is test accuracy at the last epoch, not the best one, one thread. Published numbers are their
authors', where we found one; Kohan, Rietman and Siegelmann (2022) give none for these nets and tasks. {interval}.
"""


def beside_frozen(chosen: Contender, setting: Setting) -> list[Contender]:
    """A contender, and a readout on the same net with its hidden blocks left at random."""
    same = replace(backprop(setting), act=chosen.act, net=chosen.net, net_options=chosen.net_options)
    return [chosen, frozen(same, f", {chosen.variant}")]


OPTIONS = Recipe(
    "Three ways to predict",
    10,
    {
        ("signal-propagation", "nearest"): Goal(97.5),
        ("signal-propagation", "adaptive"): Goal(97.5),
        ("signal-propagation", "output"): Goal(98.0),
    },
    controls="none",
    text="Options 1, 2 and 3 of the paper. With ten classes the tree of option 2 saves nothing, and it compares all.",
)
SIGN = Recipe(
    "Sign activations",
    10,
    {("signal-propagation · sign", "nearest"): Goal(94.0), ("signal-propagation · sign", "output"): Goal(94.0)},
    chosen=lambda setting: beside_frozen(family.sign(setting), setting),
    controls="none",
    text="Every unit says -1 or 1. The goal is also four points above the readout on frozen random blocks.",
)
HEBBIAN = Recipe(
    "A Hebbian loss",
    10,
    {("signal-propagation · hebbian", "nearest"): Goal(94.5), ("signal-propagation · hebbian", "output"): Goal(94.5)},
    chosen=lambda setting: beside_frozen(family.hebbian(setting), setting),
    controls="none",
    text="No derivative at all below the output block. The goal is also to beat frozen random blocks.",
)
RATES = replace(
    HEBBIAN,
    name="Leaky rate neurons",
    goals={
        ("signal-propagation · hebbian", "nearest"): Goal(94.0),
        ("signal-propagation · hebbian", "output"): Goal(94.0),
    },
    net="rates",
    curve=False,
    text="Neurons in continuous time, eight steps of Euler's, with the Hebbian loss; the net is not changed for it.",
)
SPIKING = Recipe(
    "Spiking",
    5,
    {
        ("signal-propagation · voltage", "nearest"): Goal(95.0),
        ("signal-propagation · voltage", "output"): Goal(95.0),
        ("signal-propagation · surrogate", "nearest"): Goal(97.0),
        ("signal-propagation · surrogate", "output"): Goal(97.0),
        ("backprop · surrogate", ""): Goal(),
        ("backprop · no surrogate", ""): Goal(),
    },
    net="spiking",
    curve=False,
    chosen=lambda setting: [
        *(family.spiking(setting, shows) for shows in ("voltage", "surrogate")),
        *(family.spiking_backprop(setting, derivative) for derivative in (True, False)),
    ],
    controls="none",
    text="Leaky integrate-and-fire neurons, eight time steps of the same image. Without a surrogate "
    "backprop reaches the output block alone. Validation prefers the nearest target with either solution.",
)
CONVOLUTIONS = Recipe(
    "Convolutions",
    6,
    {
        ("signal-propagation · conv, jitter", "nearest"): Goal(99.0),
        ("signal-propagation · conv, jitter", "output"): Goal(99.0),
    },
    net="conv",
    chosen=lambda setting: [family.convolutional(setting)],
    controls="same net",
    text="Training images are moved by up to a pixel in each direction, anew in every epoch.",
)
ERROR_FORWARD = Recipe(
    "Error forward",
    10,
    {("error-forward", ""): Goal(97.0, 98.10, "Kohan et al. 2018, recurrent, two or three hidden layers")},
    controls="none",
    text="The equations are ours, see [the rule's page](../rules/error_forward.md).",
)
PEPITA = Recipe(
    "PEPITA",
    40,
    {("pepita · 1024", ""): Goal(97.5, 98.01, "Dellaferrera & Kreiman 2022, 784-1024-10, dropout, 100 epochs")},
    chosen=of("pepita", "1024", widths=(1024,)),
    controls="none",
    text="784-1024-10.",
)
NO_PROP = Recipe(
    "NoProp",
    6,
    {("no-prop · conv", ""): Goal(98.5)},
    net="conv",
    chosen=of("no-prop", "conv", widths=(16, 32, 32)),
    controls="none",
    text="Three denoising steps, each with two convolutions. (Published: about 99.5 with ten steps and 100 epochs, not "
    "checked by us.)",
)
MIXER = "Ren et al. 2023, their smallest mixer"
TARGETS = Recipe(
    "Random targets",
    10,
    {("direct-random-target-projection", ""): Goal(None, 92.16, "a perceptron of Kao & Hariharan 2024")},
    controls="none",
)
PERTURBATION = Recipe(
    "Perturbation",
    10,
    {
        ("forward-gradient", ""): Goal(None, 96.76, MIXER),
        ("local-forward-gradient", "last"): Goal(None, 96.76, MIXER),
        ("node-perturbation", ""): Goal(),
        ("weight-perturbation", ""): Goal(),
    },
    seeds=1,
    chosen=lambda setting: [
        contender(rule, setting)
        for rule in ("forward-gradient", "local-forward-gradient", "node-perturbation", "weight-perturbation")
    ],
    controls="none",
    text="Settings are those of the digits, at lower rates; nothing was tuned here.",
)
SIGNAL_PROPAGATION = (OPTIONS, SIGN, HEBBIAN, RATES, SPIKING, CONVOLUTIONS, ERROR_FORWARD, PEPITA, NO_PROP, TARGETS,
                      PERTURBATION)  # fmt: skip
