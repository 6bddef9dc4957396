"""GPSP against the generalised eigenvectors of its data, for all three tasks, on batches and one sample at a time."""

import pytest
import torch
from torch import Tensor

from altprop import GPSP, UsageError

TASKS = pytest.mark.parametrize("task", ["cca", "sfa", "cpca"])
Views = tuple[Tensor, Tensor]


def white(n: int, k: int, g: torch.Generator) -> Tensor:
    """k columns of n values, with mean 0, variance 1 and no correlation."""
    columns = torch.cat([torch.ones(n, 1), torch.randn(n, k, generator=g)], 1).double()
    return torch.linalg.qr(columns)[0][:, 1:] * n**0.5


def mixed(x: Tensor, g: torch.Generator) -> Tensor:
    """The columns mixed by a matrix of condition 2."""
    k = x.shape[1]
    one, other = (torch.linalg.qr(torch.randn(k, k, generator=g).double())[0] for _ in range(2))
    return x @ one @ torch.diag(torch.linspace(0.7, 1.4, k, dtype=torch.float64)) @ other


def data(task: str, n: int, k: int) -> Views:
    """Two views with k correlated directions; a series with a slow oscillation; a foreground that varies more in k."""
    g = torch.Generator().manual_seed(1)
    if task == "cca":
        shared, apart, own = white(n, 3 * k, g).split(k, 1)
        one = torch.cat([0.99 * shared + 0.14 * apart, own], 1)
        return mixed(one, g), mixed(0.99 * shared - 0.14 * apart, g)
    if task == "sfa":
        time = torch.arange(n + 1, dtype=torch.float64) * 2 * torch.pi / n
        slow = [time.sin(), time.cos()][:k]
        series = mixed(torch.stack([*slow, (n // 3 * time).sin(), (n // 3 * time).cos()], 1), g)
        return series[1:], series[:-1]
    scale = torch.tensor([2.0] * k + [0.6] * 2, dtype=torch.float64)
    return mixed(white(n, k + 2, g) * scale, g), mixed(white(n, k + 2, g), g)


def moments(task: str, one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """A and B, written out for each task."""
    n = len(one)
    if task == "cca":
        both = torch.cat([one, other], 1)
        return both.T @ both / n, torch.block_diag(one.T @ one, other.T @ other) / n
    if task == "sfa":
        return (one + other).T @ (one + other) / n, one.T @ one / n
    return one.T @ one / n, other.T @ other / len(other)


def distance(task: str, layer: GPSP, views: Views) -> float:
    """Between the spaces of the layer's weights and of the first eigenvectors of A v = lambda B v, in B's metric."""
    a, b = moments(task, *views)
    low = torch.linalg.cholesky(b)
    inverse = torch.linalg.inv(low)
    first = torch.linalg.eigh(inverse @ a @ inverse.T).eigenvectors[:, -len(layer.weight) :]
    mine = torch.linalg.qr(low.T @ layer.weight.T)[0]
    return float((first @ first.T - mine @ mine.T).norm())


def layer_for(task: str, views: Views, outputs: int, rate: float) -> GPSP:
    sizes = tuple(view.shape[1] for view in views)
    return GPSP(task, sizes if task == "cca" else sizes[0], outputs, rate=rate).double()


@TASKS
def test_batches_reach_the_generalised_eigenspace(task: str) -> None:
    views = data(task, 48, 2)
    layer = layer_for(task, views, 2, rate=0.1)
    assert distance(task, layer, views) > 0.1
    for _ in range(800):
        layer.learn(*views)
    assert distance(task, layer, views) < 1e-8


@TASKS
def test_one_sample_at_a_time_reaches_it_too(task: str) -> None:
    n = 6
    one, other = data(task, n, 1)
    layer = layer_for(task, (one, other), 1, rate=0.1)
    start = distance(task, layer, (one, other))
    passes = 1000
    mean = torch.zeros_like(layer.weight)
    for step in range(passes * n):
        layer.rate = min(0.1, 3.0 / (step + 1))
        i = step % n
        layer.learn(one[i : i + 1], other[i : i + 1])
        if step >= (passes - 1) * n:  # the last pass: what a sample moves, the others move back
            mean += layer.weight / n
    layer.weight.copy_(mean)
    assert start > 0.1 and distance(task, layer, (one, other)) < 1e-3


@TASKS
def test_a_batch_moves_the_weights_as_sample_by_sample_loops_say(task: str) -> None:
    one, other = data(task, 12, 2)
    layer = layer_for(task, (one, other), 3, rate=0.05)
    for _ in range(3):
        layer.learn(one, other)
    w, m, count = layer.weight.clone(), layer.lateral.clone(), len(one)
    dw, dm = torch.zeros_like(w), torch.zeros_like(m)
    for x, z in zip(one, other, strict=True):
        k = len(x)
        if task == "cca":
            xi, local = torch.cat([x, z]), torch.cat([torch.outer(w[:, :k] @ x, x), torch.outer(w[:, k:] @ z, z)], 1)
        else:
            xi, r = (x + z, x) if task == "sfa" else (x, z)
            local = torch.outer(w @ r, r)
        y = torch.linalg.solve(m, w @ xi)
        dw += 2 * 0.05 * (torch.outer(y, xi) - local) / count
        dm += 0.05 / 0.5 * (torch.outer(y, y) - m) / count
    layer.learn(one, other)
    torch.testing.assert_close(layer.weight, w + dw, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(layer.lateral, m + dm, rtol=1e-11, atol=1e-13)


def test_foreground_and_background_may_be_of_different_numbers() -> None:
    one, other = data("cpca", 12, 2)
    layer, same = (layer_for("cpca", (one, other), 2, rate=0.05) for _ in range(2))
    layer.learn(one, other)
    same.learn(one, other.repeat(3, 1))
    torch.testing.assert_close(layer.weight, same.weight, rtol=1e-12, atol=1e-14)


def test_lateral_dynamics_come_to_rest_at_the_answer() -> None:
    views = data("cca", 48, 2)
    layer = layer_for("cca", views, 3, rate=0.1)
    for _ in range(50):
        layer.learn(*views)
    xi, _ = layer.joined(*views)
    values = torch.linalg.eigvalsh(layer.lateral)
    y = layer.relaxed(xi, rate=float(1.0 / values.max()), sweeps=2000)
    torch.testing.assert_close(y, layer(xi), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(
        layer(xi), xi @ torch.linalg.solve(layer.lateral, layer.weight).T, rtol=1e-10, atol=1e-12
    )
    assert bool((layer.relaxed(xi, rate=float(1.0 / values.max()), sweeps=1) != y).any())


def test_lateral_weights_stay_positive_definite_at_the_highest_rate_and_on_one_sample() -> None:
    one, other = data("sfa", 12, 2)
    layer = layer_for("sfa", (one, other), 3, rate=0.49)
    for _ in range(200):
        layer.learn(0.1 * one[:1], 0.1 * other[:1])
        assert float(torch.linalg.eigvalsh(layer.lateral).min()) > 0.0
    assert torch.equal(layer.lateral, layer.lateral.T)


def test_single_precision_state_and_seed() -> None:
    layer, same = GPSP("cca", (3, 2), 2), GPSP("cca", (3, 2), 2)
    other = GPSP("cca", (3, 2), 2, generator=torch.Generator().manual_seed(1))
    assert torch.equal(layer.weight, same.weight) and not torch.equal(layer.weight, other.weight)
    assert layer.learn(torch.randn(4, 3), torch.randn(4, 2)).dtype == torch.float32
    other.load_state_dict(layer.state_dict())
    assert torch.equal(layer.weight, other.weight) and torch.equal(layer.lateral, other.lateral)
    assert not torch.equal(layer.weight, same.weight)


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (("pca", 3, 2), {}, "choose one of cca, sfa, cpca"),
        (("cca", 3, 2), {}, "'cca' takes two numbers"),
        (("sfa", (3, 3), 2), {}, "the others one"),
        (("sfa", 3, 4), {}, "from 1 to 3 outputs"),
        (("sfa", 3, 2), {"rate": 0.5}, "below tau"),
        (("sfa", 3, 2), {"rate": 0.0}, "above 0"),
    ],
)
def test_bad_arguments_are_refused(arguments: tuple[object, ...], options: dict[str, float], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        GPSP(*arguments, **options)


@pytest.mark.parametrize(
    ("one", "other"), [((4, 3), (5, 2)), ((4, 2), (4, 3)), ((0, 3), (0, 2)), ((4, 3, 1), (4, 2, 1))]
)
def test_bad_batches_are_refused(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"\(batch, 3\) and \(batch, 2\)"):
        GPSP("cca", (3, 2), 2).learn(torch.zeros(one), torch.zeros(other))
