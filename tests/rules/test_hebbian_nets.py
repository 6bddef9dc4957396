"""The nets that Hebbian rules refuse, each in words of its own."""

import pytest
from torch import nn

from altprop import nets, rules
from altprop.errors import UsageError
from altprop.rule import Problem

RULES = ("hebbian-pca", "lateral-pca", "hebbian-ica", "competitive", "krotov-hopfield", "bcm", "foldiak", "soft-hebb")


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("net", "problem", "words"),
    [
        (nets.mlp([6, 8], classes=4), Problem((6,), 4), "build the net without classes"),
        (nn.Sequential(nn.Flatten()), Problem((6,), 4), "it needs a linear or convolutional block"),
        (nets.mlp([6, 8]), Problem((6,), 2, "regression"), "choose another rule for a regression"),
        (nn.Sequential(nn.Conv2d(1, 2, 5), nn.Flatten()), Problem((1, 4, 4), 3), "does not go through its blocks"),
        (nn.Sequential(nn.Conv2d(1, 2, 3)), Problem((1, 4, 4), 3), "end the net in nn.Flatten"),
        (nn.Sequential(nn.Conv2d(2, 2, 3, groups=2), nn.Flatten()), Problem((2, 4, 4), 3), "use groups=1"),
    ],
)
def test_nets_that_do_not_suit_are_refused(rule: str, net: nn.Sequential, problem: Problem, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        rules.find(rule)(net, problem)
