"""The recipes of rules that learn from correlations, with the numbers that they must reach."""

from dataclasses import replace

from altprop.bench import competitive_family as family
from altprop.bench.contender import Contender, Setting
from altprop.bench.contenders import contender, frozen
from altprop.bench.recipe import Goal, Lead, Recipe

HEBBIAN_HEAD = """# The Hebbian family

Made by `make recipes` (this page too); one recipe alone by `python -m altprop.bench.recipes --only NAME`, with its
heading as the name. MNIST: 50,000 training, 10,000 validation and 10,000 test images; CIFAR-10: 41,667, 8,333 and
10,000; what was chosen was chosen on validation; below is test accuracy at the last epoch, not the best one, one
thread. Each rule stands beside a control, its own net whose body stays at random, with the same readout. That of
SoftHebb with 2000 units has another power of the triangles and another penalty, chosen for it on validation; on
CIFAR-10 there is a second one, with the kernels that suit random filters best. {interval}.
"""
RULES = ("hebbian-pca", "lateral-pca", "hebbian-ica", "competitive", "krotov-hopfield", "bcm", "foldiak", "soft-hebb",
         "stdp", "three-factor", "e-prop", "mixed")  # fmt: skip

NARROW = ", kernels of 5, 3 and 3"


def beside_random(chosen: Contender, control: Contender) -> list[Contender]:
    """A contender, and another with its body frozen."""
    return [chosen, frozen(control, "", control.optimizer)]


def perceptron(setting: Setting) -> list[Contender]:
    chosen = family.soft_hebb_perceptron(setting)
    net, options = {**chosen.net_options, "power": 1.5}, {**chosen.options, "penalty": 1e-2}
    return beside_random(chosen, replace(chosen, net_options=net, options=options))


def convolutions(setting: Setting) -> list[Contender]:
    chosen = family.soft_hebb_conv(setting)
    return beside_random(chosen, chosen)


def three_convolutions(setting: Setting) -> list[Contender]:
    """Wide kernels, which suit learning; with narrow ones random filters do better, and are a control, too."""
    chosen = family.soft_hebb_conv(setting)
    narrow = replace(chosen, net_options={**chosen.net_options, "kernels": (5, 3, 3)})
    return [*beside_random(chosen, chosen), frozen(narrow, NARROW, narrow.optimizer)]


def side_by_side(setting: Setting) -> list[Contender]:
    """Each rule by its own contender, and beside it the same on its net with the body at random."""
    return [c for own in (contender(name, setting) for name in RULES) for c in beside_random(own, own)]


ALL = Recipe(
    "Hebbian rules",
    5,
    {},
    width=256,
    chosen=side_by_side,
    controls="none",
    curve=False,
    text="Each rule on the net of its own contender, and beside it the same with all blocks but the last frozen at "
    "random.",
)
PERCEPTRON = Recipe(
    "SoftHebb with 2000 units",
    2,
    {("soft-hebb", ""): Goal(96.5)},
    chosen=perceptron,
    controls="none",
    curve=False,
    leads=(Lead("soft-hebb", "soft-hebb · frozen", 0.3),),
    text="784-2000, a body that learns in the first epoch, and a ridge in the second.",
)
MNIST_CONV = Recipe(
    "SoftHebb with two convolutions",
    2,
    {("soft-hebb", ""): Goal(98.8)},
    net="soft-hebb",
    chosen=convolutions,
    controls="none",
    curve=False,
    leads=PERCEPTRON.leads,
    text="96 and 384 channels; a body that learns in the first epoch, and a ridge in the second. Random filters do as "
    "well here; [what was tried](../rules/soft_hebb.md#results).",
)
CIFAR = replace(
    MNIST_CONV,
    name="SoftHebb on cifar10",
    goals={("soft-hebb", ""): Goal(70.0, 80.3, "Journé et al. 2023, three convolutions, up to 1536 channels")},
    task="cifar10",
    chosen=three_convolutions,
    leads=tuple(Lead("soft-hebb", f"soft-hebb · frozen{kernels}", 5.0) for kernels in ("", NARROW)),
    text="Three convolutions of 64, 256 and 1024 channels, with kernels of 7, 5 and 3; a body that learns from the "
    "first 15,000 images, and a ridge behind it for the rest of two epochs. Random filters do better with smaller "
    "kernels, hence the second control: [what was tried](../rules/soft_hebb.md#results).",
)
HEBBIAN = (ALL, PERCEPTRON, MNIST_CONV, CIFAR)
