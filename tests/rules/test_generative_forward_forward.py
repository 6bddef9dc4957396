"""Forward-forward that draws, against its updates written out row by row, and against what it promises."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from altprop import nets
from altprop.analysis.trace import Trace
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.forward_only.generative_forward_forward import GenerativeForwardForward, gaussian_weights
from steps import peaks

SGD = partial(torch.optim.SGD, lr=0.1)
PROBLEM = Problem((12,), 3)


def batch(rows: int = 8, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(rows, 12, generator=generator, dtype=dtype), torch.arange(rows) % 3


def rule(*widths: int, steps: int = 0, **options: object) -> GenerativeForwardForward:
    made = GenerativeForwardForward(nets.mlp([12, *(widths or (7, 6, 5))]), PROBLEM, **options).double()
    for _ in range(steps):
        made.step(*batch())
    return made


def unit(h: Tensor) -> Tensor:
    return h / h.square().mean().sqrt() if bool(h.any()) else h


def written(x: Tensor, label: int) -> Tensor:
    x = x.clone()
    x[:3] = 0.0
    x[label] = 2.0
    return unit(x)


def imagined(r: GenerativeForwardForward, label: int, e: Tensor) -> Tensor:
    """By the class's own mean and deviations, not by weights."""
    held = r.activities[label, : min(int(r.seen[label]), r.activities.size(1))]
    a = held.mean(0) + e[: len(held)] @ (held - held.mean(0)) / len(held) ** 0.5
    for i in range(r.source, 0, -1):
        a = unit(r.decoders[str(i)](unit(a.relu())))
    return torch.sigmoid(r.decoders["0"](unit(a.relu())))


@pytest.mark.parametrize("source", [0, 2])
def test_a_step_equals_its_formulas_row_by_row(source: int) -> None:
    r = rule(steps=4, source=source, dreams=0.5, memory=4, temperature=2.0, optimizer=SGD)
    random = torch.Generator().manual_seed(2)
    for value in (r.activities, *(p.detach() for p in r.decoders.parameters())):  # so that every relu has work to do
        value.add_(0.5 * torch.randn(value.shape, generator=random, dtype=torch.float64))
    x, y = batch()
    state = r.generator.get_state()
    before = {n: p.detach().clone() for n, p in r.named_parameters()}
    fresh = torch.Generator()
    fresh.set_state(state)
    noise = torch.randn(4, 4, dtype=torch.float64, generator=fresh)
    wrong = ((y + torch.randint(1, 3, (8,), generator=fresh)) % 3)[4:]
    drawn = [imagined(r, int(c), e).detach() for c, e in zip(y[:4], noise, strict=True)]
    positives = [written(row, int(c)) for row, c in zip(x, y, strict=True)]
    negatives = [written(row, int(c)) for row, c in zip(drawn, y[:4], strict=True)]
    negatives += [written(row, int(c)) for row, c in zip(x[4:], wrong, strict=True)]
    expected, below = {}, list(x)
    for i, block in enumerate(r.net):
        loss = torch.zeros((), dtype=torch.float64)
        width = block.affine.out_features
        for rows, sign in ((positives, -1.0), (negatives, 1.0)):
            for k, row in enumerate(rows):
                h = block(row)
                loss = loss + (1 + (sign * (h.square().sum() - width) / 2).exp()).log() / 16
                rows[k] = unit(h).detach()
        parameters = {f"net.{i}.{n}": p for n, p in block.named_parameters()}
        if i <= source:
            decoder = r.decoders[str(i)]
            for a, target in zip(positives, below, strict=True):
                out = decoder(a)
                if i == 0:
                    wants = nn.functional.binary_cross_entropy_with_logits(out, target, reduction="sum")
                else:
                    wants = 0.5 * (out - target).square().sum()
                loss = loss + wants / 8
            parameters |= {f"decoders.{i}.{n}": p for n, p in decoder.named_parameters()}
            below = list(positives)
        slopes = torch.autograd.grad(loss, list(parameters.values()))
        expected |= {n: p.detach() - 0.1 * g for (n, p), g in zip(parameters.items(), slopes, strict=True)}
    r.step(x, y)
    assert set(expected) == set(before)
    for name, p in r.named_parameters():
        torch.testing.assert_close(p.detach(), expected[name], rtol=1e-9, atol=1e-12)
        assert not torch.equal(p, before[name])


def test_a_drawing_that_is_the_image_itself_gets_a_wrong_label(monkeypatch: pytest.MonkeyPatch) -> None:
    r = rule(dreams=0.5)
    x, y = batch()
    drawings = torch.cat([x[:3], x[3:4] + 1e-9])
    monkeypatch.setattr(r, "_down", lambda _: drawings)
    seen: list[Tensor] = []
    r.net[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    r.step(x, y)
    positives, negatives = seen[0].chunk(2)
    assert not bool((positives == negatives).all(1).any())
    labels = seen[0][:, :3].argmax(1)
    assert bool((labels[8:11] != y[:3]).all()) and labels[11] == y[3]


def test_thresholds_are_in_units_of_the_goodnesss_own() -> None:
    assert list(rule(threshold=0.5).thresholds.values()) == [3.5, 3.0, 2.5]
    assert list(rule().thresholds.values()) == [7.0, 6.0, 5.0]


def test_drawn_activity_has_the_mean_and_the_covariance_of_what_is_remembered() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(6, 3, generator=generator, dtype=torch.float64) @ torch.randn(3, 3, dtype=torch.float64).tril()
    e = torch.randn(400_000, 6, generator=generator, dtype=torch.float64)
    w = gaussian_weights(e, torch.full((len(e),), 4))
    assert not w[:, 4:].any()
    sample = w @ a
    torch.testing.assert_close(sample.mean(0), a[:4].mean(0), atol=0.02, rtol=0)
    torch.testing.assert_close(sample.t().cov(), a[:4].t().cov(correction=0), atol=0.05, rtol=0.02)


def test_the_memory_holds_the_last_of_each_class() -> None:
    r = rule(5, memory=3)
    kept: dict[int, list[Tensor]] = {0: [], 1: [], 2: []}
    for y in ([0, 0, 1], [0, 1, 0, 0, 0, 0], [2, 0]):
        a = torch.randn(len(y), 5, dtype=torch.float64, generator=r.generator)
        r._remember(a, torch.tensor(y))
        for row, c in zip(a, y, strict=True):
            kept[c] = [*kept[c], row][-3:]
    for c, rows in kept.items():
        found = r.activities[c][r.activities[c].any(1)]
        assert sorted(found.tolist()) == sorted(torch.stack(rows).tolist())
    assert r.seen.tolist() == [8, 2, 1]


def test_peak_memory_does_not_grow_with_depth() -> None:
    def rule_of(depth: int) -> GenerativeForwardForward:
        return GenerativeForwardForward(nets.mlp([12] * (depth + 1)), PROBLEM, memory=4, source=2).double()

    found = peaks(rule_of, *batch())
    assert len(set(found)) == 1, found


@pytest.mark.parametrize("source", [0, 1])
def test_operations_equal_a_hand_count_and_no_product_is_wasted(source: int) -> None:
    b, dreamt, memory, n0, n1, n2 = 8, 4, 5, 12, 7, 6
    r = rule(n1, n2, steps=1, dreams=0.5, memory=memory, source=source)
    x, y = batch(b)
    with Trace({}) as trace:
        r.step(x, y)
    blocks = 2 * (2 * b) * (n0 * n1 + n1 * n2)  # forward, and the weights' gradients
    maps = n0 * n1 + (n1 * n2 if source else 0)
    drawing = dreamt * (memory * (n2 if source else n1) + maps)
    assert trace.operations == 2 * (blocks + 2 * b * maps + drawing)


def test_draws_images_of_the_classes_asked_for() -> None:
    """Classes are bars in different places: a drawing is nearest to its own class's mean."""
    centres = 0.1 + 0.8 * torch.eye(3).repeat_interleave(3, dim=1)
    noise = torch.Generator().manual_seed(3)
    r = GenerativeForwardForward(
        nets.mlp([12, 32, 32]), PROBLEM, memory=64, optimizer=partial(torch.optim.Adam, lr=1e-2)
    )
    for _ in range(60):
        y = torch.randint(3, (32,), generator=noise)
        x = (centres[y] + 0.1 * torch.randn(32, 9, generator=noise)).clamp(0, 1)
        r.step(torch.cat([torch.zeros(32, 3), x], 1), y)
    labels = torch.arange(3).repeat(20)
    for options in ({"rounds": 0, "candidates": 1}, {}):
        drawn = r.draw(labels, torch.Generator().manual_seed(0), **options)
        assert drawn.shape == (60, 12) and float(drawn.min()) >= 0 and float(drawn.max()) <= 1
        assert bool((torch.cdist(drawn[:, 3:], centres).argmin(1) == labels).all())
        assert all(float(torch.pdist(drawn[labels == c]).min()) > 0 for c in range(3))
    one = r.draw(labels, torch.Generator().manual_seed(0), candidates=1)
    assert float(lead(r, drawn, labels).mean()) > float(lead(r, one, labels).mean())


@torch.no_grad()
def lead(r: GenerativeForwardForward, x: Tensor, labels: Tensor) -> Tensor:
    """By how much the energy of the label lies above the best of the others."""
    energy = r.energy(x)
    own = nn.functional.one_hot(labels, 3).bool()
    return energy[own] - energy.masked_fill(own, -torch.inf).amax(1)


def test_drawing_comes_from_its_generator_alone_and_changes_nothing() -> None:
    r = rule(steps=3)
    before = {k: v.clone() for k, v in r.training_state()["tensors"].items()}
    one, other = (r.draw(torch.tensor([0, 2]), torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(one, other)
    assert not torch.equal(one, r.draw(torch.tensor([0, 2]), torch.Generator().manual_seed(6)))
    after = r.training_state()["tensors"]
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_drawings_have_the_inputs_shape() -> None:
    net = nn.Sequential(nets.Block(pool=nn.Flatten()), *nets.mlp([12, 6]))
    r = GenerativeForwardForward(net, Problem((1, 3, 4), 3)).double()
    x, y = batch()
    r.step(x.view(-1, 1, 3, 4), y)
    assert r.draw(torch.tensor([1]), torch.Generator()).shape == (1, 1, 3, 4)
    assert r.energy(x.view(-1, 1, 3, 4)).shape == (8, 3)


@pytest.mark.parametrize("act", ["tanh", "gelu"])
def test_learns_and_draws_with_activities_that_can_be_negative(act: str) -> None:
    r = GenerativeForwardForward(nets.mlp([12, 8, 8], act=act), PROBLEM, source=1).double()
    for _ in range(3):
        r.step(*batch())
    assert bool(torch.isfinite(r.draw(torch.tensor([0, 1, 2]), torch.Generator())).all())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dreams": 1.5}, "a share of the negatives"),
        ({"memory": 1}, "no covariance"),
        ({"source": 7}, "no block that learns"),
        ({"temperature": 0.0}, "must be positive"),
        ({"label": 0.0}, "all classes look alike"),
        ({"goodness": "sum-of-sqares"}, "did you mean 'sum-of-squares'"),
        ({"goodness": "regions"}, "block 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        rule(**options)


@pytest.mark.parametrize(
    ("net", "problem", "words"),
    [
        (nets.mlp([12, 5]), Problem((12,), 2, "regression"), "two classes"),
        (nets.conv((1, 8, 8), [3]), Problem((1, 8, 8), 3), "no convolutions"),
        (nets.mlp([12, 5], classes=3), PROBLEM, "output block"),
        (nets.mlp([11, 5]), PROBLEM, "does not take all features"),
        (nets.mlp([12, 5]), Problem((12,), 12), "leave no input"),
        (nets.mlp([12, 5]).requires_grad_(False), PROBLEM, "no block has trainable"),
        (nn.Sequential(nn.Linear(12, 5), nn.BatchNorm1d(5), nn.ReLU()), PROBLEM, "batch statistics"),
    ],
)
def test_nets_that_it_cannot_serve_are_refused(net: nn.Sequential, problem: Problem, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        GenerativeForwardForward(net, problem)


def test_what_it_has_not_learned_it_does_not_draw() -> None:
    r = rule()
    x, _ = batch(4)
    r.step(x, torch.tensor([0, 1, 1, 0]))
    r.draw(torch.tensor([0, 1]), torch.Generator())
    for labels in ([2], [3], [-1]):
        with pytest.raises(UsageError, match="nothing has been learned"):
            r.draw(torch.tensor(labels), torch.Generator())
    with pytest.raises(UsageError, match="one candidate or more"):
        r.draw(torch.tensor([0]), torch.Generator(), candidates=0)
