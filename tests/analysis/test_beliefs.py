"""What a net believes: its own class's goodness rises, parameters stay, mistakes are refused."""

import pytest
import torch
from torch import Tensor

from altprop import Backprop, nets
from altprop.analysis.beliefs import images_by_goodness
from altprop.errors import UsageError
from altprop.rule import Problem, Rule
from altprop.rules import find
from every import batches, rule_of, teach


class Corners(Rule):
    """A belief that can be read off: the energy of class c is x_c minus the other entries."""

    def __init__(self) -> None:
        super().__init__(nets.mlp([4, 1]), Problem((2, 2), 4))

    def energy(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return 2 * x - x.sum(1, keepdim=True)


def test_finds_the_image_that_a_class_likes_best() -> None:
    images = images_by_goodness(Corners(), decay=0.0)
    assert images.shape == (4, 2, 2)
    assert bool((images.flatten(1).argmax(1) == torch.arange(4)).all())
    own = torch.eye(4).bool()
    assert float(images.flatten(1)[own].min()) > 0.95 and float(images.flatten(1)[~own].max()) < 0.05
    assert torch.equal(images_by_goodness(Corners(), classes=[2], decay=0.0), images[2:3])


def test_a_pull_to_the_grey_keeps_the_image_near_it() -> None:
    near, far = (images_by_goodness(Corners(), rate=0.1, decay=d, start=0.3) for d in (0.5, 0.0))
    assert float((near - 0.3).abs().max()) < 0.1 < float((far - 0.3).abs().max())


def test_starts_where_it_is_told_and_moves_only_where_the_gradient_is_let_through() -> None:
    start = torch.tensor([[0.2, 0.4], [0.6, 0.8]])
    free = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    images = images_by_goodness(Corners(), decay=0.0, start=start, smooth=lambda slope: slope * free)
    torch.testing.assert_close(images[:, free == 0], start[free == 0].expand(4, 2))
    assert bool(((images - start).abs()[:, free == 1] > 0.1).all())


@pytest.mark.parametrize("name", ["forward-forward", "generative-forward-forward"])
def test_the_net_takes_its_images_for_the_class(name: str) -> None:
    rule = teach(rule_of(name), batches(32, 40)).eval()
    before = {n: p.clone() for n, p in rule.state_dict().items()}
    images = images_by_goodness(rule, classes=[3, 7], steps=15)
    assert images.shape == (2, 64) and float(images.min()) >= 0 and float(images.max()) <= 1
    with torch.no_grad():
        assert rule.energy(images).argmax(1).tolist() == [3, 7]
    assert all(torch.equal(before[n], p) for n, p in rule.state_dict().items())
    assert all(p.grad is None for p in rule.parameters()) and not rule.training


def test_refusals() -> None:
    with pytest.raises(UsageError, match="Backprop has no energy"):
        images_by_goodness(Backprop(nets.mlp([4], classes=2)))
    rule = find("generative-forward-forward")(nets.mlp([12, 5]), Problem((12,), 3))
    for classes in ([3], [-1], []):
        with pytest.raises(UsageError, match="some of 0 to 2"):
            images_by_goodness(rule, classes=classes)
