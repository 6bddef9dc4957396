"""What Hebbian PCA says of bad input, and what it leaves alone; its updates are compared in `altprop.oracles`."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.hebbian.lateral_pca import LateralPCA
from altprop.rules.hebbian.patches import patches, power
from altprop.rules.hebbian.pca import HebbianPCA

BOTH = pytest.mark.parametrize("kind", [HebbianPCA, LateralPCA])


def rule_on(kind: type = HebbianPCA, units: int = 4, rate: float = 0.1, **options: object) -> HebbianPCA:
    net = nets.mlp([8, units])
    sgd = partial(torch.optim.SGD, lr=rate)
    return kind(net, Problem((8,), 3), optimizer=sgd, **options)


def batch(size: int = 40, shift: float = 0.0, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return scale * torch.randn(size, 8, generator=draw) + shift, torch.randint(3, (size,), generator=draw)


@BOTH
def test_a_rate_above_the_bound_is_named_at_the_step_that_shows_it(kind: type) -> None:
    options = {"update": "apex"} if kind is LateralPCA else {"update": "sanger"}
    rule = rule_on(kind, rate=0.5, relative=False, inputs="as they are", **options)
    x, y = batch(scale=4.0)
    x -= x.mean(0)
    bound = 0.5 / float(torch.linalg.eigvalsh(x.T @ x / len(x))[-1])
    with pytest.warns(UserWarning, match=rf"rate of block 0, 0\.5, is above {2 * bound:.3g} .* choose {bound:.2g} or"):
        rule.step(x, y)
    with pytest.raises(UsageError, match=rf"rate is 0\.\d+, above the stable bound of {bound:.3g} ") as caught:
        for step in range(50):
            rule.progress = step / 1000
            rule.step(x, y)
    assert "grow without bound" in str(caught.value)
    calm = rule_on(kind, rate=0.9 * bound, relative=False, inputs="as they are", **options)
    for _ in range(50):
        calm.step(x, y)


@BOTH
def test_a_rate_at_which_units_swing_is_said_so_before_they_grow(kind: type) -> None:
    x, y = batch(200)
    x[:, 0] *= 5.0  # most of the mean square is one eigenvalue
    with pytest.warns(UserWarning, match=r"block 0, 2, is above 1\.\d+ .* units swing .* choose 0\.\d+ or less"):
        rule_on(kind, rate=2.0, inputs="as they are").step(x, y)
    rule_on(kind, rate=1.0, inputs="as they are").step(x, y)


def test_relative_rates_do_not_know_the_scale() -> None:
    changes = []
    for scale in (0.01, 1.0, 100.0):
        rule = rule_on(inputs="as they are", update="subspace")
        x, y = batch(scale=scale)
        before = rule.net[0].affine.weight.detach().clone()
        rule.step(x - x.mean(0), y)
        changes.append(rule.net[0].affine.weight.detach() - before)
    torch.testing.assert_close(changes[0], changes[1])
    torch.testing.assert_close(changes[2], changes[1])


@BOTH
def test_data_that_are_not_centred_are_said_so_once(kind: type) -> None:
    rule = rule_on(kind, inputs="as they are")
    with pytest.warns(UserWarning, match=r"not centred \(9\d% .* put nets.Centre before the block"):
        rule.step(*batch(shift=5.0))
    rule.step(*batch(shift=5.0))  # a second warning would be an error here
    rule_on(kind).step(*batch(shift=5.0))


@BOTH
def test_more_units_than_the_rank_are_said_so(kind: type) -> None:
    x, y = batch()
    x[:, 2:] = x[:, :1]
    with pytest.warns(UserWarning, match="has 4 units, and its input only rank 2"):
        rule_on(kind).step(x, y)


@BOTH
def test_a_rank_is_that_of_all_that_small_batches_showed(kind: type) -> None:
    x, y = batch()
    x[:, 2:] = x[:, :1]
    rule = rule_on(kind)
    with pytest.warns(UserWarning, match="has 4 units, and its input only rank 2") as said:
        for i in range(0, 40, 5):
            rule.step(x[i : i + 5], y[i : i + 5])
    assert len(said) == 1


def test_small_batches_are_gathered_until_they_tell() -> None:
    rule = rule_on(inputs="as they are")
    with pytest.warns(UserWarning, match="not centred"):
        for _ in range(3):
            rule.step(*batch(6, shift=5.0))
    rule.step(*batch(6, shift=5.0))  # a second warning would be an error here


def test_more_units_than_inputs_are_said_so() -> None:
    rule = HebbianPCA(nets.mlp([8, 30]), Problem((8,), 3))
    with pytest.warns(UserWarning, match="has 30 units, and its input only rank 8"):
        rule.step(*batch(32))


def test_a_few_units_more_than_the_rank_are_nothing_to_speak_of() -> None:
    x, y = batch(64)
    x[:, 7] = 0.0  # rank 7 for 8 units
    HebbianPCA(nets.mlp([8, 8]), Problem((8,), 3)).step(x, y)


def test_the_mean_square_of_patches_bounds_their_largest_eigenvalue() -> None:
    """Images with empty borders, through an unpadded kernel: borders are seen less often than the middle."""
    x = torch.zeros(4, 1, 12, 12, dtype=torch.float64)
    x[:, :, 3:9, 3:9] = 1.0
    layer = nn.Conv2d(1, 2, 5).double()
    rows = patches(layer, x)
    found = float(power(layer, x))
    assert found == pytest.approx(float(rows.square().sum(1).mean()))
    assert found > float(torch.linalg.eigvalsh(rows.T @ rows / len(rows))[-1]) > float(x.square().mean() * 25)


@pytest.mark.parametrize("update", ["apex", "similarity-matching"])
def test_units_settle_once_a_step(update: str) -> None:
    rule = rule_on(LateralPCA, update=update)
    solved = "aten.linalg_solve_triangular" if update == "apex" else "aten._linalg_solve_ex"
    with Counter() as counter:
        rule.step(*batch())
    assert sum(name.startswith(solved) for name in counter.names) == 1


class Counter(TorchDispatchMode):
    """The names of the operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@BOTH
def test_the_rules_net_has_the_users_blocks_and_one_that_centres(kind: type) -> None:
    net = nets.mlp([8, 6, 4])
    rule = kind(net, Problem((8,), 3))
    assert [type(block).__name__ for block in rule.net] == ["Centre", "Block", "Centre", "Block"]
    assert rule.net[1].affine is net[0].affine
    bias = rule.net[1].affine.bias.detach().clone()
    rule.step(*batch())
    assert torch.equal(bias, rule.net[1].affine.bias)
    assert kind(net, Problem((8,), 3), inputs="as they are").claims.training_only is False


@BOTH
def test_frozen_blocks_stay_and_the_readout_learns(kind: type) -> None:
    net = nets.mlp([8, 4]).requires_grad_(False)
    rule = kind(net, Problem((8,), 3))
    before = net[0].affine.weight.clone()
    rule.step(*batch())
    assert torch.equal(before, net[0].affine.weight) and set(rule.optimizers) == {"head"}


@BOTH
def test_convolutions_learn(kind: type) -> None:
    rule = kind(nets.conv((1, 8, 8), [3, 4]), Problem((1, 8, 8), 3))
    before = [p.detach().clone() for p in rule.net.parameters() if p.dim() > 1]
    draw = torch.Generator().manual_seed(0)
    rule.step(torch.randn(8, 1, 8, 8, generator=draw), torch.arange(8) % 3)
    after = [p for p in rule.net.parameters() if p.dim() > 1]
    assert all(not torch.equal(p, q) for p, q in zip(before, after, strict=True))


def test_the_body_rests_after_settling() -> None:
    rule = rule_on(settle=0.5)
    rule.progress = 0.5
    before = rule.net[1].affine.weight.detach().clone()
    rule.step(*batch())
    assert torch.equal(before, rule.net[1].affine.weight)


@BOTH
def test_bad_arguments_and_nets(kind: type) -> None:
    with pytest.raises(UsageError, match="choose"):
        rule_on(kind, update="hebb")
    with pytest.raises(UsageError, match="centred, whitened, as they are"):
        rule_on(kind, inputs="raw")
    with pytest.raises(UsageError, match="brings its own readout"):
        kind(nets.mlp([8, 4], classes=3))
    with pytest.raises(UsageError, match="does not go through its blocks"):
        kind(nn.Sequential(nets.Block(nn.Conv2d(1, 2, 5), pool=nn.Flatten())), Problem((1, 4, 4), 3))
    with pytest.raises(UsageError, match="no time steps"):
        kind(nets.spiking([8, 6, 4]), Problem((8,), 3))


def test_lateral_weights_settle_in_predictions_too() -> None:
    rule = rule_on(LateralPCA, update="similarity-matching", inputs="as they are")
    x, y = batch()
    x -= x.mean(0)
    for _ in range(20):
        rule.step(x, y)
    block = rule.net[0]
    m, w = block.norm.weight, block.affine.weight
    with torch.no_grad():
        expected = (x @ torch.linalg.solve(m, w).T).relu()
        torch.testing.assert_close(rule.net(x), expected, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(expected, (x @ w.T).relu(), atol=1e-2)
