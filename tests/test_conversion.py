"""`altprop.convert`: a user's model in a user's loop."""

import copy
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import altprop
from altprop.analysis.angles import angles
from altprop.conversion import RULES, Signed
from altprop.errors import UsageError
from altprop.rules.feedback.ways import FeedbackConv2d, FeedbackLinear

every_rule = pytest.mark.parametrize("rule", RULES)


class Residual(nn.Module):
    """x + a branch, with a strided way around it where shapes change."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, groups=2)
        self.around = nn.Identity() if stride == 1 else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.second(torch.relu(self.norm(self.first(x)))) + self.around(x))


class Small(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.body = nn.Sequential(Residual(4, 4, 1), Residual(4, 8, 2))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.stem(x)))


def batch(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(6, 2, 8, 8, generator=g, dtype=dtype), torch.arange(6) % 3


def gradients(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@every_rule
def test_an_existing_loop_runs_unchanged_and_learns(rule: str) -> None:
    model = Small()
    own = dict(model.named_parameters())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    assert altprop.convert(model, rule, optimizer=optimizer) is model
    assert all(p is own[name] for name, p in model.named_parameters() if name in own)
    x, y = batch()
    losses = []
    for _ in range(80):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@every_rule
def test_only_what_passes_through_feedback_differs_and_the_output_layer_is_exact(rule: str) -> None:
    x, y = batch(torch.float64)
    expected = gradients(Small().double(), x, y)
    found = gradients(altprop.convert(Small().double(), rule), x, y)
    for name in ("head.2.weight", "head.2.bias"):
        assert torch.equal(found[name], expected[name])
    assert not torch.allclose(found["body.1.second.weight"], expected["body.1.second.weight"])
    assert not torch.allclose(found["stem.weight"], expected["stem.weight"])


@pytest.mark.parametrize("rule", ["feedback-alignment", "kolen-pollack"])
def test_with_b_equal_to_w_it_is_backpropagation_to_the_bit(rule: str) -> None:
    x, y = batch(torch.float64)
    expected = gradients(Small().double(), x, y)
    model = altprop.convert(Small().double(), rule)
    for layer in (m for m in model.modules() if isinstance(m, FeedbackLinear | FeedbackConv2d)):
        layer.feedback.weight.data.copy_(layer.weight)
    assert max(angles(model).values()) < 1e-4
    found = gradients(model, x, y)
    for name, gradient in expected.items():
        assert torch.equal(found[name], gradient), name
    for name, gradient in found.items():
        if ".feedback." in name:
            assert torch.equal(gradient, found[name.replace(".feedback.", ".")])


@every_rule
def test_there_are_no_hooks(rule: str) -> None:
    model = altprop.convert(Small(), rule)
    x, y = batch()
    loss = nn.functional.cross_entropy(model(x), y)
    nodes, seen = [loss.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        nodes += [earlier for earlier, _ in node.next_functions]
    assert sum("_Conv2d" in type(node).__name__ for node in seen) == 5
    loss.backward()
    for module in model.modules():
        assert not any(len(value) for name, value in vars(module).items() if name.endswith("_hooks"))
    assert all(not p._backward_hooks for p in model.parameters())


@every_rule
def test_evaluation_and_no_grad_are_the_models_own(rule: str) -> None:
    plain, model = Small(), altprop.convert(Small(), rule)
    x, _ = batch()
    assert torch.equal(model(x), plain(x))
    model.eval(), plain.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        out = model(x)
    assert torch.equal(out, plain(x)) and not out.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@every_rule
def test_copies_states_and_places(rule: str) -> None:
    x, y = batch()
    model = altprop.convert(Small(), rule)
    twin = copy.deepcopy(model)
    one, other = gradients(model, x, y), gradients(twin, x, y)
    assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
    assert not {id(p) for p in model.parameters()} & {id(p) for p in twin.parameters()}
    again = altprop.convert(Small(seed=3), rule, generator=torch.Generator().manual_seed(5))
    again.load_state_dict(twin.state_dict())
    if rule != "brsf":  # which draws: the state of a generator is in no state_dict
        found = gradients(again, x, y)
        assert all(torch.equal(found[k], gradients(model, x, y)[k]) for k in found)
    found = gradients(model.double(), x.double(), y)
    assert all(value.dtype == torch.float64 and bool(value.isfinite().all()) for value in found.values())


def test_feedback_draws_from_the_generator_alone() -> None:
    def first(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        model = altprop.convert(copy.deepcopy(small), "brsf", generator=torch.Generator().manual_seed(7))
        found = gradients(model, *batch())
        assert torch.equal(torch.get_rng_state(), state)
        return found

    small = Small()
    one, other = first(1), first(2)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_feedback_is_at_a_right_angle_to_weights_that_were_drawn_from_the_same_seed() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(200, 100), nn.ReLU(), nn.Linear(100, 200))
    altprop.convert(model, "feedback-alignment", generator=torch.Generator().manual_seed(0))
    assert all(abs(degrees - 90.0) < 2.0 for degrees in angles(model).values())


def test_angles_change_nothing() -> None:
    x, y = batch()
    watched, other = altprop.convert(Small(), "brsf"), altprop.convert(Small(), "brsf")
    assert len(angles(watched)) == 7 and all(30 < value < 60 for value in angles(watched).values())
    one, two = gradients(watched, x, y), gradients(other, x, y)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_signs_follow_the_weights_and_magnitudes_stay_or_change() -> None:
    for rule, changes in (("usf", False), ("frsf", False), ("brsf", True)):
        layer = altprop.convert(nn.Linear(6, 7), rule)
        first = layer.feedback(layer.weight)
        with torch.no_grad():
            layer.weight.neg_()
        second = layer.feedback(layer.weight)
        assert torch.equal(first.sign(), -second.sign())
        assert torch.equal(first, -second) == (not changes)
        assert not first.requires_grad


@pytest.mark.parametrize(("rule", "follows"), [(rule, rule in ("usf", "brsf")) for rule in RULES])
def test_feedback_is_as_large_as_the_weights(rule: str, follows: bool) -> None:
    def size(of: Tensor) -> float:
        return float(of.detach().square().mean().sqrt())

    layer = altprop.convert(nn.Linear(200, 300), rule, scale=2.0)
    first = size(layer.weight)
    assert size(layer.feedback(layer.weight)) == pytest.approx(2.0 * first, rel=0.02)
    with torch.no_grad():
        layer.weight.mul_(3.0)
    assert size(layer.feedback(layer.weight)) == pytest.approx((6.0 if follows else 2.0) * first, rel=0.02)


@pytest.mark.parametrize("rule", RULES)
def test_feedback_of_weights_that_begin_at_zero_does_not_stay_there(rule: str) -> None:
    layer = nn.Linear(20, 30)
    nn.init.zeros_(layer.weight)
    altprop.convert(layer, rule)
    with torch.no_grad():
        layer.weight.normal_()
    assert float(layer.feedback(layer.weight).detach().square().mean()) > 1e-3


def test_kolen_pollack_feedback_becomes_the_weights_if_the_optimizer_has_it() -> None:
    def distance(build: Callable[[nn.Module], torch.optim.Optimizer]) -> float:
        model = Small()
        optimizer = build(model)
        layer = model.body[1].second
        before = layer.weight.detach() - layer.feedback.weight.detach()
        x, y = batch()
        for _ in range(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        after = layer.weight.detach() - layer.feedback.weight.detach()
        return float(after.norm() / before.norm())

    def adamw(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=2.0)

    def after(model: nn.Module) -> torch.optim.Optimizer:
        return adamw(altprop.convert(model, "kolen-pollack"))

    def before(model: nn.Module, join: bool = True) -> torch.optim.Optimizer:
        optimizer = adamw(model)
        altprop.convert(model, "kolen-pollack", optimizer=optimizer if join else None)
        return optimizer

    assert distance(after) == pytest.approx(0.98**50, rel=1e-4)
    assert distance(before) == pytest.approx(0.98**50, rel=1e-4)
    assert distance(lambda model: before(model, join=False)) > 0.5  # stays feedback alignment


def test_feedback_joins_the_group_of_its_weight() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    groups = [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[2].parameters(), "lr": 0.2}]
    optimizer = torch.optim.SGD(groups)
    altprop.convert(model, "kolen-pollack", optimizer=optimizer)
    for i in (0, 2):
        assert any(p is model[i].feedback.weight for p in optimizer.param_groups[i // 2]["params"])
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 6
    altprop.convert(model, "usf", optimizer=optimizer)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 6


def test_frozen_weights_have_feedback_that_stays() -> None:
    model = Small()
    model.body.requires_grad_(False)
    altprop.convert(model, "kolen-pollack")
    assert not list(model.body[0].first.feedback.parameters()) and list(model.head[2].feedback.parameters())
    assert "stem.weight" in gradients(model, *batch())


def test_layers_that_share_or_repeat() -> None:
    tied = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    tied[2].weight = tied[0].weight
    altprop.convert(tied, "feedback-alignment")
    assert tied[0].feedback is tied[2].feedback is not tied[4].feedback
    layer = nn.Linear(4, 4)
    twice = altprop.convert(nn.Sequential(layer, nn.Tanh(), layer), "kolen-pollack")
    twice(torch.randn(2, 4, requires_grad=True)).sum().backward()
    assert torch.equal(layer.weight.grad, layer.feedback.weight.grad)


def test_a_model_may_be_converted_again() -> None:
    model = altprop.convert(altprop.convert(Small(), "feedback-alignment"), "usf")
    assert isinstance(model.stem.feedback, Signed)
    assert not any("feedback" in name for name in model.state_dict())


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: nn.ConvTranspose2d(2, 2, 3), "part (a ConvTranspose2d"),
        (lambda: nn.LSTM(2, 2), "part (a LSTM"),
        (lambda: nn.MultiheadAttention(4, 2), "part (a MultiheadAttention"),
        (lambda: nn.Embedding(3, 2), "part (a Embedding"),
        (lambda: nn.Conv1d(2, 2, 3), "part (a Conv1d"),
        (lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(2, 2)), "computed from other parameters"),
        (lambda: altprop.nets.Scaled(2, 2, 1.0, torch.Generator()), "part (a Scaled, a form of its own"),
        (lambda: nn.LazyLinear(2), "part (a LazyLinear"),
    ],
)
def test_what_cannot_be_converted_is_named(build: Callable[[], nn.Module], named: str) -> None:
    model = nn.ModuleDict({"known": nn.Linear(2, 2), "part": build()})
    with pytest.raises(UsageError) as caught:
        altprop.convert(model, "usf")
    assert named in str(caught.value) and "leave=True" in str(caught.value) and "known" not in str(caught.value)
    assert type(model["known"]) is nn.Linear  # nothing was changed
    with pytest.warns(UserWarning, match="left to backpropagation: .*" + re.escape(named)):
        altprop.convert(model, "usf", leave=True)
    assert isinstance(model["known"], FeedbackLinear)
    assert not any(isinstance(m, FeedbackLinear) for m in model["part"].modules())


def test_layers_beside_a_parameter_of_the_modules_own_are_converted() -> None:
    class Layerscale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last, self.scale = nn.Linear(3, 4), nn.Linear(4, 2), nn.Parameter(torch.ones(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.scale * self.first(x))

    with pytest.raises(UsageError, match=r"those of the model \(a Layerscale, .* leave=True"):
        altprop.convert(Layerscale(), "usf")
    with pytest.warns(UserWarning, match=r"left to backpropagation: 1 \(a Layerscale"):
        model = altprop.convert(nn.Sequential(nn.Linear(3, 3), Layerscale()), "usf", leave=True)
    assert [type(m) for m in model.modules() if isinstance(m, nn.Linear)] == [FeedbackLinear] * 3


def test_weights_and_their_feedback_have_gradients_of_their_own() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    altprop.convert(model, "kolen-pollack")
    model(torch.randn(5, 3)).sum().backward()
    weight, feedback = model[1].weight.grad, model[1].feedback.weight.grad
    assert torch.equal(weight, feedback) and weight.data_ptr() != feedback.data_ptr()


def test_bad_requests() -> None:
    with pytest.raises(UsageError, match="did you mean 'usf'"):
        altprop.convert(Small(), "usff")
    with pytest.raises(UsageError, match=r"train altprop.blocks\(model\) by it, or convert by one of feedback-al"):
        altprop.convert(Small(), "direct-feedback-alignment")
    with pytest.raises(UsageError, match="could learn so"):
        altprop.convert(nn.Sequential(nn.ReLU(), nn.BatchNorm1d(3)), "usf")
