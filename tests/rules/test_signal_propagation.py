"""Signal propagation against its local losses written out by hand, and against what it promises."""

import copy
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from altprop import nets
from altprop.analysis.audit import audit
from altprop.analysis.trace import Trace
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.forward_only.likeness import cosine, matches
from altprop.rules.forward_only.signal_propagation import SignalPropagation
from steps import Opaque, gradients, learnt_when_entered, peaks

SGD = partial(torch.optim.SGD, lr=0.1)
K = 30.0


def batch(*shape: int, classes: int = 4) -> tuple[Tensor, Tensor]:
    """Labels hold every class, some more often than others."""
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return x, torch.arange(shape[0]).sqrt().long() % classes


def naive_gradients(rule: SignalPropagation, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """One target a sample, each sent through by itself; block by block with the plain formula of the local loss."""
    net, signal = rule.net, rule.target.signals
    names = {p: n for n, p in rule.named_parameters()}
    share = 1.0 / (y == y.unsqueeze(1)).double().sum(1)  # a class that the batch holds n times counts 1/n each time
    found: dict[str, Tensor] = {}

    def collect(loss: Tensor, parameters: list[Tensor]) -> None:
        found.update((names[p], g) for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True))

    h, ts = x, [net[0].activation(signal[m]) for m in y]
    for i, block in enumerate(net[:-1]):
        h = block(h)
        if i > 0:
            ts = [block(t.detach().unsqueeze(0))[0] for t in ts]
        losses = []
        for row, label in zip(h, y, strict=True):
            likeness = torch.stack([K * (row * t).sum() / (row.norm() * t.norm()) for t in ts])
            own = likeness[(y == label).nonzero()[0, 0]]
            losses.append((share * likeness.exp()).sum().log() - own)
        parameters = list(block.parameters()) + ([signal] if i == 0 else [])
        collect(torch.stack(losses).mean(), parameters)
        h = h.detach()
    log_p = net[-1](h).log_softmax(1)
    collect(-log_p[range(len(y)), y].mean(), list(net[-1].parameters()))
    return found


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (nets.mlp([6, 8, 7, 5], classes=4), (6,)),
        (nets.mlp([6, 8, 7], classes=4, act="tanh", norm=True), (6,)),
        (nets.conv((2, 8, 8), [3, 5], classes=4), (2, 8, 8)),
    ],
    ids=["relu", "tanh with layer norm", "conv with pooling"],
)
def test_one_target_pass_a_class_equals_one_a_sample(net: nn.Sequential, shape: tuple[int, ...]) -> None:
    rule = SignalPropagation(net.double(), Problem(shape, 4), optimizer=SGD, sharpness=K)
    x, y = batch(12, *shape)
    assert set(y.tolist()) == {0, 1, 2, 3}
    expected = naive_gradients(rule, x, y)
    found = gradients(rule, x, y)
    assert set(found) == set(expected) == {name for name, _ in rule.named_parameters()}
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-10, atol=1e-12)


def test_the_target_stream_has_one_row_a_class() -> None:
    net = batch_norm_net().double()
    rule = SignalPropagation(net, optimizer=SGD)
    rows: list[list[int]] = [[], [], []]
    for seen, block in zip(rows, net, strict=True):
        block.register_forward_hook(lambda _, args, __, seen=seen: seen.append(len(args[0])))
    rule.step(*batch(12, 6))
    assert rows == [[12], [12, 4], [12]]
    net = nets.mlp([6, 8, 7], classes=4).double()
    rule = SignalPropagation(net, optimizer=SGD)
    net[1].register_forward_hook(lambda _, args, __: rows.append([len(args[0])]))
    rule.step(*batch(12, 6))
    assert rows[3:] == [[12 + 4]]


@pytest.mark.parametrize(
    "options",
    [
        {"alternate": True},
        {"learned": False},
        {"targets": "samples", "loss": "one"},
        {"targets": "samples", "loss": "top"},
        {"loss": "hebbian"},
        {"context": "input"},
        {"context": "input", "learned": False, "alternate": True},
    ],
    ids=lambda options: ", ".join(f"{name}={value}" for name, value in options.items()),
)
def test_the_claims_of_every_variant_hold(options: dict[str, Any]) -> None:
    findings = audit(lambda net, problem, g: SignalPropagation(net, problem, generator=g, **options))
    assert not [finding for finding in findings if not finding.holds]


@pytest.mark.parametrize("changed", [1, 2, 3])
def test_later_blocks_do_not_change_an_earlier_update(changed: int) -> None:
    def build() -> SignalPropagation:
        return SignalPropagation(nets.mlp([6, 8, 7, 5], classes=4).double())

    rule, other = build(), build()
    x, y = batch(12, 6)
    for _ in range(5):
        rule.step(x, y)
        other.step(x, y)
    with torch.no_grad():
        for p in other.net[changed:].parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(2), dtype=p.dtype))
    rule.step(x, y)
    other.step(x, y)
    for p, q in zip(rule.net[:changed].parameters(), other.net[:changed].parameters(), strict=True):
        assert torch.equal(p, q)
    assert torch.equal(rule.target.signals, other.target.signals)
    assert not torch.equal(rule.net[changed].affine.weight, other.net[changed].affine.weight)


def test_peak_memory_does_not_grow_with_depth() -> None:
    x, y = batch(32, 20)
    found = peaks(lambda depth: SignalPropagation(nets.mlp([20] * depth, classes=4).double()), x, y)
    assert len(set(found)) == 1, found


def test_operations_equal_a_hand_count_and_no_product_is_wasted() -> None:
    b, n0, n1, n2, c = 16, 12, 10, 9, 4
    rule = SignalPropagation(nets.mlp([n0, n1, n2], classes=c))
    x, y = torch.rand(b, n0, generator=torch.Generator().manual_seed(0)), torch.arange(b) % c
    rule.step(x, y)
    with Trace(dict(rule.named_parameters())) as trace:
        rule.step(x, y)
    forward = b * n0 * n1 + (b + c) * n1 * n2 + b * n2 * c
    likeness = b * c * (n1 + n2)  # forward, and its derivatives by h and by t
    assert trace.operations == 2 * (2 * forward + 3 * likeness)


def test_a_block_without_weights_is_passed_through_by_both_streams() -> None:
    first, second, output = nets.mlp([6, 8, 7], classes=4).double()
    net = nn.Sequential(nn.Flatten(), first, Opaque(), second, output)
    rule = SignalPropagation(net, Problem((6,), 4))
    assert rule.entry == 1 and rule.target.signals.shape == (4, 8)
    before = [p.detach().clone() for p in rule.parameters()]
    rule.step(*batch(12, 6))
    assert all(not torch.equal(p, q) for p, q in zip(rule.parameters(), before, strict=True))
    torch.testing.assert_close(rule.targets()[-1], second(Opaque()(rule.target.signals.relu())))


def test_frozen_blocks_stay() -> None:
    for frozen in (0, 1, 2):
        net = nets.mlp([6, 8, 7], classes=4).double()
        net[frozen].requires_grad_(False)
        rule = SignalPropagation(net)
        before = [block.affine.weight.clone() for block in net]
        rule.step(*batch(12, 6))
        same = [torch.equal(block.affine.weight, w) for block, w in zip(net, before, strict=True)]
        assert same == [i == frozen for i in range(3)]


def batch_norm_net(inputs: int = 6, width: int = 16, classes: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    sizes = [inputs, width, width]
    layers = [(nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU()) for a, b in pairwise(sizes)]
    return nets.blocks(nn.Sequential(*(m for group in layers for m in group), nn.Linear(width, classes)))


def test_targets_never_touch_the_inputs_running_statistics() -> None:
    net = batch_norm_net().double()
    rule = SignalPropagation(net, optimizer=partial(torch.optim.SGD, lr=0.0))
    x, y = batch(12, 6)
    rule.step(x, y)
    h = x
    for block in net[:2]:
        a = block.affine(h)
        torch.testing.assert_close(block.norm.running_mean, 0.1 * a.mean(0))
        torch.testing.assert_close(block.norm.running_var, 0.9 + 0.1 * a.var(0))
        assert int(block.norm.num_batches_tracked) == 1 and block.norm.track_running_stats
        h = ((a - a.mean(0)) / (a.var(0, correction=0) + 1e-5).sqrt()).relu()
    rule.eval()
    state = {k: v.clone() for k, v in rule.state_dict().items()}
    for predict in rule.predictors().values():
        predict(x)
    assert all(torch.equal(v, state[k]) for k, v in rule.state_dict().items())


def test_both_predictions_are_good_in_evaluation_mode_with_batch_normalisation() -> None:
    g = torch.Generator().manual_seed(0)
    centres = 4.0 * torch.randn(4, 6, generator=g)
    y = torch.randint(4, (600,), generator=g)
    x = centres[y] + torch.randn(600, 6, generator=g) + 5.0  # far from what untrained statistics say
    rule = SignalPropagation(batch_norm_net(), optimizer=partial(torch.optim.Adam, lr=5e-3))
    for _ in range(10):
        for rows in torch.arange(600).split(50):
            rule.step(x[rows], y[rows])
    rule.eval()
    with torch.no_grad():
        accuracy = {name: float((f(x).argmax(1) == y).double().mean()) for name, f in rule.predictors().items()}
        one_by_one = torch.cat([rule.nearest(row) for row in x[:50].split(1)])
    assert min(accuracy.values()) > 0.97, accuracy
    torch.testing.assert_close(one_by_one, rule.nearest(x[:50]).detach())


def test_nearest_sends_the_targets_through_the_net_as_it_is_now() -> None:
    net = nets.mlp([6, 8, 7], classes=4).double()
    rule = SignalPropagation(net)
    x, y = batch(12, 6)
    rule.step(x, y)
    h, t = net[1](net[0](x)), net[1](rule.target.signals.relu())
    expected = nn.functional.cosine_similarity(h.unsqueeze(1), t.unsqueeze(0), dim=2)
    torch.testing.assert_close(rule.nearest(x), expected)
    assert rule.predictors().keys() == {"output", "nearest", "adaptive"}
    assert torch.equal(rule.predictors()["output"](x), net(x))


def test_rows_without_activity_leave_everything_finite() -> None:
    rule = SignalPropagation(nets.mlp([6, 8, 7], classes=4).double())
    with torch.no_grad():
        rule.net[0].affine.bias.fill_(-100.0)
    rule.step(*batch(12, 6))
    assert all(bool(p.isfinite().all()) for p in rule.parameters())


def test_reasons_why_not() -> None:
    net = nets.mlp([6, 8], classes=4)
    assert SignalPropagation.supports(net, Problem((6,), 4)) is None
    with pytest.raises(UsageError, match="output block with 4 outputs"):
        SignalPropagation(nets.mlp([6, 8]), Problem((6,), 4))
    with pytest.raises(UsageError, match="before the output block"):
        SignalPropagation(nets.mlp([6], classes=4))


# The rest of the framework: contexts, losses, options, streams.


def test_library_losses_v9_and_v14_are_one_and_the_same_for_classes() -> None:
    """With a row a sample, all matching targets have the same activities, however many of them share the weight."""
    x, y = batch(12, 6)
    found = []
    for loss in ("all", "one"):
        rule = SignalPropagation(nets.mlp([6, 8, 7], classes=4).double(), targets="samples", loss=loss, optimizer=SGD)
        found.append(gradients(rule, x, y))
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("loss", ["all", "top"])
@pytest.mark.parametrize("context", ["hidden", "input"])
def test_a_row_a_sample_against_loops(loss: str, context: str) -> None:
    """The authors' library: soft cross-entropy over the batch's targets, at every block; here with the cosine."""
    net = nets.mlp([6, 8, 7], classes=4).double()
    rule = SignalPropagation(net, targets="samples", loss=loss, top=3, context=context, optimizer=SGD, sharpness=K)
    x, y = batch(12, 6)[0], torch.arange(12) % 4  # three of each class, so that the three nearest are its own
    codes = nn.functional.one_hot(y, 4).double()
    signals, origin = rule.target.signals, rule.target.origin
    expected: dict[str, Tensor] = {}
    names = {p: n for n, p in rule.named_parameters()}
    h, ts = x, [signals[label] + origin for label in y]
    near = codes
    for i, block in enumerate(net[:-1]):
        if loss == "top" and (i > 0 or context == "input"):
            near = torch.stack(ts).detach()
        entering = i == 0 and context == "hidden"
        h, ts = block(h), [block.activation(t) if entering else block(t.unsqueeze(0))[0] for t in ts]
        losses = []
        for row, own in zip(h, near, strict=True):
            distances = torch.stack([(own - other).norm() for other in near])
            match = (distances == distances.min()).double()
            if loss == "top":
                match = torch.zeros(12).double().index_fill(0, distances.argsort(stable=True)[:3], 1.0)
            log_p = torch.stack([K * (row * t).sum() / (row.norm() * t.norm()) for t in ts]).log_softmax(0)
            losses.append(-(match / match.sum() * log_p).sum())
        parameters = [*block.parameters(), *([signals, origin] if i == 0 else [])]
        grads = torch.autograd.grad(torch.stack(losses).mean(), parameters)
        expected.update((names[p], g) for p, g in zip(parameters, grads, strict=True))
        h, ts = h.detach(), [t.detach() for t in ts]
    found = gradients(rule, x, y)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-11)


def test_top_takes_the_nearest_and_one_takes_any_that_matches() -> None:
    rows = torch.tensor([[0.0], [0.0], [1.0], [3.0]], dtype=torch.float64)
    seen = torch.zeros(4, 4, dtype=torch.float64)
    for seed in range(40):
        one = matches(rows, rows, "one", 0, torch.Generator().manual_seed(seed))
        assert bool((one.sum(1) == 1).all()) and bool((one.max(1).values == 1).all())
        seen += one
    assert (seen > 0).tolist() == [[True, True, False, False]] * 2 + [[False, False, True, False], [False] * 3 + [True]]
    assert (matches(rows, rows, "top", 3, torch.Generator())[3] > 0).tolist() == [False, True, True, True] or (
        matches(rows, rows, "top", 3, torch.Generator())[3] > 0
    ).tolist() == [True, False, True, True]
    assert matches(rows, rows, "top", 9, torch.Generator()).eq(0.25).all()


def test_the_hebbian_loss_is_products_of_activities_alone() -> None:
    """Written out by hand, without autograd: dW_l = sum over samples and targets of (p - match) t h' and so on."""
    net = nets.mlp([6, 8, 7], classes=4, act="sign").double()
    rule = SignalPropagation(net, loss="hebbian", optimizer=SGD, sharpness=3.0)
    x, y = batch(12, 6)
    expected = {}
    h, t = x, None
    for i in range(2):
        w, b = net[i].affine.weight.detach(), net[i].affine.bias.detach()
        before, t_before = h, t
        h = torch.where(before @ w.T + b >= 0, 1.0, -1.0).double()
        s = rule.target.signals.detach() if i == 0 else t_before @ w.T + b
        t = torch.where(s >= 0, 1.0, -1.0).double()
        p = (3.0 * (h / h.norm(dim=1, keepdim=True)) @ (t / t.norm(dim=1, keepdim=True)).T).softmax(1)
        dw, db, ds = torch.zeros_like(w), torch.zeros_like(b), torch.zeros(4, len(b)).double()
        for n in range(12):
            for m in range(4):
                surprise = (p[n, m] - (y[n] == m).double()) / 12
                post_h, post_t = surprise * t[m] / t[m].norm(), surprise * h[n] / h[n].norm()
                dw += torch.outer(post_h, before[n])
                db += post_h
                if i == 0:
                    ds[m] += post_t
                else:
                    dw += torch.outer(post_t, t_before[m])
                    db += post_t
        expected |= {f"net.{i}.affine.weight": dw, f"net.{i}.affine.bias": db}
        expected |= {"target.signals": ds} if i == 0 else {}
    found = gradients(rule, x, y)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-12)


def test_the_hebbian_loss_takes_no_derivative_of_an_activation() -> None:
    net = nets.mlp([6, 8, 7], classes=4).double()
    for block in net[:-1]:
        block.activation = Opaque()
    rule = SignalPropagation(net, loss="hebbian")
    before = [p.detach().clone() for p in rule.parameters()]
    rule.step(*batch(12, 6))
    assert all(not torch.equal(p, q) for p, q in zip(rule.parameters(), before, strict=True))


def test_streams_take_turns() -> None:
    def build(alternate: bool) -> SignalPropagation:
        net = nets.mlp([6, 8, 7], classes=4).double()
        return SignalPropagation(net, alternate=alternate, optimizer=partial(torch.optim.SGD, lr=0.0))

    x, y = batch(12, 6)
    rule = build(alternate=True)
    inputs, targets = gradients(rule, x, y), gradients(rule, x, y)
    together = gradients(build(alternate=False), x, y)
    assert "target.signals" not in inputs and "net.0.affine.weight" not in targets
    for name, value in together.items():
        if name.startswith("net.2"):  # the output block learns in every step
            torch.testing.assert_close(inputs[name], value)
        else:
            zero = torch.zeros_like(value)
            torch.testing.assert_close(inputs.get(name, zero) + targets.get(name, zero), value, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("context", ["hidden", "input"])
@pytest.mark.parametrize("learned", [True, False])
def test_contexts_are_learned_or_stay(context: str, learned: bool) -> None:
    rule = SignalPropagation(nets.mlp([6, 8, 7], classes=4).double(), context=context, learned=learned)
    assert rule.target.signals.shape == ((4, 8) if context == "hidden" else (4, 6))
    before = rule.target.signals.detach().clone()
    rule.step(*batch(12, 6))
    assert torch.equal(rule.target.signals, before) is not learned
    assert ("target" in rule.optimizers) is learned


def test_a_context_generator_of_ones_own_does_what_the_rules_own_does() -> None:
    def build(**options: Any) -> SignalPropagation:
        return SignalPropagation(nets.mlp([6, 8, 7], classes=4).double(), optimizer=SGD, **options)

    rule = build()
    linear = nn.Linear(4, 8, bias=False)
    with torch.no_grad():
        linear.weight.copy_(rule.target.signals.T)
    own = build(signals=linear)
    x, y = batch(12, 6)
    for _ in range(3):
        rule.step(x, y)
        own.step(x, y)
    torch.testing.assert_close(own.target.weight.T, rule.target.signals, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(own.nearest(x), rule.nearest(x))
    fixed = build(signals=copy.deepcopy(linear), learned=False)
    before = fixed.target.weight.clone()
    fixed.step(x, y)
    assert torch.equal(fixed.target.weight, before) and "target" not in fixed.optimizers


def test_regression_learns_from_the_targets_values() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(400, 6, generator=g)
    y = torch.stack([(x[:, 0] - x[:, 1]).tanh(), x[:, 2] * x[:, 3].sign()], 1)
    rules = [
        SignalPropagation(nets.mlp([6, 40, 40], classes=2), Problem((6,), 2, "regression"), sharpness=k, optimizer=adam)
        for k, adam in ((10.0, partial(torch.optim.Adam, lr=3e-3)), (0.0, partial(torch.optim.Adam, lr=3e-3)))
    ]
    errors = []
    for rule in rules:
        for _ in range(40):
            for rows in torch.arange(400).split(40):
                rule.step(x[rows], y[rows])
        errors.append(float((rule(x) - y).square().mean().detach()))
    # Without sharpness every target is as likely as any other, and hidden blocks learn nothing.
    assert errors[0] < 0.9 * errors[1], errors
    assert rules[0].predictors().keys() == {""}


# The options of prediction.


def trained(classes: int = 60, **options: object) -> tuple[SignalPropagation, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    centres = 3.0 * torch.randn(classes, 6, generator=g, dtype=torch.float64)
    y = torch.randint(classes, (600,), generator=g)
    x = centres[y] + 0.3 * torch.randn(600, 6, generator=g, dtype=torch.float64)
    net = nets.mlp([6, 60, 60], classes=classes).double()
    rule = SignalPropagation(net, optimizer=partial(torch.optim.Adam, lr=5e-3), **options)  # type: ignore[arg-type]
    for _ in range(6):
        for rows in torch.arange(600).split(50):
            rule.step(x[rows], y[rows])
    return rule.eval(), x, y


def test_an_output_layer_of_targets_answers_as_the_nearest_target_does() -> None:
    rule, x, _ = trained()
    with torch.no_grad():
        output = rule.net[-1].affine
        output.weight.copy_(nn.functional.normalize(rule.targets()[-1], dim=1))
        output.bias.zero_()
        assert torch.equal(rule(x).argmax(1), rule.nearest(x).argmax(1))


def test_the_tree_that_prunes_nothing_answers_as_the_nearest_target_does() -> None:
    rule, x, _ = trained(margin=2.0)
    groups = len(rule._tree()[0].centres)
    with torch.no_grad():
        scores, count = rule.adaptive(x)
        torch.testing.assert_close(scores, rule.nearest(x))
    assert groups > 1 and count.eq(60 + groups).all()


def test_the_tree_compares_few_and_says_how_many() -> None:
    rule, x, _ = trained(margin=0.0)
    with torch.no_grad():
        scores, count = rule.adaptive(x)
        nearest = rule.nearest(x)
    tree = rule._tree()
    first = cosine(rule.activities(x)[0], tree[0].centres).argmax(1)
    for n in range(20):  # by hand: the nearest group's members alone
        members = (tree[1].parents == first[n]).nonzero().squeeze(1)
        assert int(count[n]) == len(tree[0].centres) + len(members)
        assert int(scores[n].argmax()) == int(members[nearest[n][members].argmax()])
    assert float(count.double().mean()) < 30


def test_few_classes_need_no_tree() -> None:
    rule, x, _ = trained(classes=10)
    with torch.no_grad():
        scores, count = rule.adaptive(x)
        assert torch.equal(scores, rule.nearest(x)) and count.eq(10).all()


def test_the_tree_is_grown_anew_when_the_net_has_changed() -> None:
    rule = SignalPropagation(nets.mlp([6, 60, 60], classes=60), Problem((6,), 60))  # Adam is fused by default
    x, y = torch.randn(60, 6, generator=torch.Generator().manual_seed(0)), torch.arange(60)
    before = rule._tree()
    assert rule._tree() is before
    rule.step(x, y)
    assert not torch.equal(rule._tree()[-1].centres, before[-1].centres)
    rule.load_state_dict({name: value + 1.0 for name, value in rule.state_dict().items()})
    assert torch.equal(rule._tree()[-1].centres, rule.targets()[-1])


# Other nets, unchanged.


@pytest.mark.parametrize(
    "net",
    [
        nets.mlp([6, 20, 20], classes=4, act="sign"),
        nets.spiking([6, 20, 20], classes=4),
        nets.spiking([6, 20, 20], classes=4, shows="surrogate"),
        nets.rates([6, 20, 20], classes=4),
    ],
    ids=["sign", "voltage", "surrogate", "rates"],
)
@pytest.mark.parametrize("loss", ["all", "hebbian"])
def test_discrete_spiking_and_continuous_time_nets_learn(net: nn.Sequential, loss: str) -> None:
    g = torch.Generator().manual_seed(0)
    centres = 3.0 * torch.randn(4, 6, generator=g)
    y = torch.randint(4, (400,), generator=g)
    x = centres[y] + torch.randn(400, 6, generator=g)
    rule = SignalPropagation(copy.deepcopy(net), loss=loss, optimizer=partial(torch.optim.Adam, lr=1e-2))
    before = [p.detach().clone() for p in rule.parameters()]
    for _ in range(8):
        for rows in torch.arange(400).split(20):
            rule.step(x[rows], y[rows])
    assert all(not torch.equal(p, q) for p, q in zip(rule.parameters(), before, strict=True))
    rule.eval()
    with torch.no_grad():
        accuracy = {name: float((f(x).argmax(1) == y).double().mean()) for name, f in rule.predictors().items()}
    assert min(accuracy["output"], accuracy["nearest"]) > 0.85, accuracy


def test_vgg8b_learns_block_by_block() -> None:
    x, y = batch(8, 1, 16, 16)
    rule = SignalPropagation(nets.vgg8b((1, 16, 16), 2, classes=4).double(), Problem((1, 16, 16), 4))
    learnt = learnt_when_entered(rule, x, y)
    assert learnt == [[i < entered for i in range(8)] for entered in range(8)]


def test_options_that_do_not_go_together_are_refused() -> None:
    net = nets.mlp([6, 8, 7], classes=4)
    for options, words in (
        ({"loss": "v9"}, "'all' or 'one' or 'top' or 'hebbian'"),
        ({"loss": "top"}, "other classes"),
        ({"loss": "hebbian", "context": "input"}, "learned=False"),
        ({"signals": nn.Linear(4, 7)}, r"\(4, 7\) of the 4 classes' codes, and what they enter takes \(4, 8\)"),
    ):
        with pytest.raises(UsageError, match=words):
            SignalPropagation(net, **options)
    with pytest.raises(UsageError, match="block 0 is another"):
        SignalPropagation(nets.conv((1, 8, 8), [3], classes=4), Problem((1, 8, 8), 4), loss="hebbian")


def test_targets_do_not_enter_the_statistics_of_a_users_own_block() -> None:
    class Centred(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            z: Tensor = self.layer(x)
            return (z - z.mean(0)).relu()

    shared = nets.black_box(lambda x: (8 * (x - x.mean(0))).round())
    net = nn.Sequential(nn.Linear(6, 6), Centred(), shared, nn.Linear(6, 4)).double()
    x, y = batch(12, 6)
    with torch.no_grad():
        expected = net[2](net[1](net[0](x)))
    seen: list[Tensor] = []
    net[3].register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    SignalPropagation(net, optimizer=partial(torch.optim.SGD, lr=0.0)).step(x, y)
    torch.testing.assert_close(seen[-1], expected)


def test_a_regressions_signals_are_for_training_only() -> None:
    rule = SignalPropagation(nets.mlp([6, 8, 7], classes=2), Problem((6,), 2, "regression"))
    assert rule.claims.training_only
    before = rule(torch.ones(1, 6))
    with torch.no_grad():
        for p in rule.target.parameters():
            p.add_(1.0)
    assert torch.equal(rule(torch.ones(1, 6)), before)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"signals": nn.Linear(5, 8)}, r"signals does not take the codes of the 4 classes, \(4, 4\)"),
        ({"top": 0}, "top=0 must be 1 or more"),
        ({"margin": -1.0}, "margin=-1.0 not below 0"),
    ],
)
def test_odd_signals_and_numbers_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        SignalPropagation(nets.mlp([6, 8, 7], classes=4), **options)


def test_signals_cannot_learn_through_a_black_box_before_the_first_block() -> None:
    net = nn.Sequential(nets.black_box(torch.round), *nets.mlp([6, 8, 7], classes=4))
    with pytest.raises(UsageError, match="take learned=False, or context='hidden'"):
        SignalPropagation(net, Problem((6,), 4), context="input")
    SignalPropagation(net, Problem((6,), 4), context="input", learned=False).step(
        torch.rand(12, 6), torch.arange(12) % 4
    )
    with pytest.raises(UsageError, match="leaves sizes open"):
        SignalPropagation(nets.conv((1, 8, 8), [3, 4], classes=4), Problem((1, None, None), 4), context="input")
