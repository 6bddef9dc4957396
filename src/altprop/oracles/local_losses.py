"""Local losses written out sample by sample and block by block; and the controls against backpropagation."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from altprop import nets
from altprop.analysis.alignment import by_backprop, updates
from altprop.analysis.trace import Trace
from altprop.oracles.check import Check, apart
from altprop.rule import Problem, Rule
from altprop.rules.local.info_pro import InfoPro, contrast
from altprop.rules.local.local_classifier import LocalClassifier
from altprop.rules.local.modules import Modular
from altprop.rules.local.predsim import PredSim, similarity
from altprop.rules.reference.accumulated_backprop import AccumulatedBackprop
from altprop.rules.reference.backprop import Backprop
from altprop.rules.reference.checkpointed_backprop import CheckpointedBackprop
from altprop.rules.reference.deep_supervision import DeepSupervision

Gradients = Mapping[str, Tensor]
"""By parameter's name."""


def cases(samples: int = 7) -> Iterator[tuple[str, nn.Sequential, Tensor, Tensor]]:
    """Small nets in float64 with a batch whose size no small number divides."""
    draw = torch.Generator().manual_seed(0)
    y = torch.arange(samples) % 3
    flat, image = (torch.randn(samples, *shape, generator=draw, dtype=torch.float64) for shape in ((6,), (2, 8, 8)))
    yield "four tanh blocks", nets.mlp([6, 9, 8, 7], classes=3, act="tanh", generator=draw).double(), flat, y
    convolutions = nets.conv((2, 8, 8), [5, 4], classes=3, act="gelu", generator=draw)
    yield "two convolutions", convolutions.double(), image, y


def build(kind: Callable[..., Rule], net: nn.Sequential, x: Tensor, **options: Any) -> Rule:
    """A rule whose heads are no longer what they were drawn as (zero, for some)."""
    rule = kind(net, Problem(tuple(x.shape[1:]), 3), **options)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in rule.named_parameters():
            if name.startswith("heads"):
                p.add_(0.3 * torch.randn(p.shape, generator=draw, dtype=p.dtype))
    return rule


def equals_backprop(kind: Callable[..., Rule], **options: Any) -> Iterator[Check]:
    for name, net, x, y in cases():
        rule = build(kind, net, x, **{key: value(net) if callable(value) else value for key, value in options.items()})
        found, expected = updates(rule, x, y)[0], by_backprop(rule, x, y)
        error = max(apart(found[part], expected[part]) for part in expected)
        yield Check(f"gradients of {name}, and backpropagation's", error, 1e-12)


def gradients(rule: Rule, x: Tensor, y: Tensor) -> Gradients:
    """What a step gives the optimizers, heads included; nothing moves."""
    names = {p: name for name, p in rule.named_parameters()}
    found: dict[str, Tensor] = {}

    def catch(optimizer: torch.optim.Optimizer, *_: object) -> None:
        for p in (p for group in optimizer.param_groups for p in group["params"]):
            found[names[p]] = torch.zeros_like(p) if p.grad is None else p.grad.clone()
            p.grad = None

    hooks = [optimizer.register_step_pre_hook(catch) for optimizer in rule.optimizers.values()]
    rule.step(x, y)
    for hook in hooks:
        hook.remove()
    return found


def slopes(rule: Rule, losses: Mapping[str, Tensor]) -> Gradients:
    """Autograd of each loss by the parameters under its prefixes (a space between them)."""
    found: dict[str, Tensor] = {}
    for prefixes, loss in losses.items():
        own = {n: p for n, p in rule.named_parameters() if n.startswith(tuple(prefixes.split()))}
        taken = torch.autograd.grad(loss, list(own.values()), retain_graph=True, allow_unused=True)
        found.update((n, torch.zeros_like(p) if g is None else g) for (n, p), g in zip(own.items(), taken, strict=True))
    return found


def furthest(found: Gradients, expected: Gradients) -> float:
    assert found.keys() == expected.keys(), (found.keys(), expected.keys())
    return max(apart(found[name], expected[name]) for name in expected)


# Local classifiers.


def log_loss(scores: Tensor, y: Tensor) -> Tensor:
    """The mean cross-entropy, sample by sample."""
    each = [(row - row.max()).exp().sum().log() + row.max() - row[label] for row, label in zip(scores, y, strict=True)]
    return torch.stack(each).mean()


def cut_off(rule: Modular | DeepSupervision, x: Tensor, size: int, cut: bool) -> Iterator[tuple[int, Tensor]]:
    """What each module of `size` blocks gives, with the derivative cut between modules or not."""
    h = x
    for start in range(0, len(rule.net), size):
        h = rule.net[start : start + size](h.detach() if cut else h)
        yield min(start + size, len(rule.net)) - 1, h


def classified(rule: Modular | DeepSupervision, x: Tensor, y: Tensor, size: int, cut: bool) -> Gradients:
    """Of every module's own loss; without a cut the loss of a module moves the blocks before it, too."""
    losses, total = {}, x.new_zeros(())
    for last, h in cut_off(rule, x, size, cut):
        end = last == len(rule.net) - 1
        loss = log_loss(h if end else rule.heads[str(last)](h), y)
        own = [f"net.{i}." for i in range(last - (last % size), last + 1)] + [f"heads.{last}."]
        losses[" ".join(own)] = loss
        total = total + loss
    return slopes(rule, losses if cut else dict.fromkeys(losses, total))


def whole_net_equals_backprop() -> Iterator[Check]:
    """With one module, the whole net, local classifiers are backpropagation."""
    yield from equals_backprop(LocalClassifier, block_size=lambda net: len(net))


def local_classifiers_equal_autograd_of_each_module() -> Iterator[Check]:
    """Gradients of each module's own loss, its input held fixed; without the cut they are others."""
    for name, net, x, y in cases():
        for size in (1, 2):
            rule = build(LocalClassifier, net, x, block_size=size)
            assert isinstance(rule, LocalClassifier)
            found = gradients(rule, x, y)
            yield Check(f"{name}, {size} a module", furthest(found, classified(rule, x, y, size, cut=True)), 1e-12)
            other = furthest(found, classified(rule, x, y, size, cut=False))
            yield Check(f"{name}, {size} a module, nothing cut off", other, 0.05, "at least", control=True)


def one_block_by_hand() -> Iterator[Check]:
    """The gradients of a tanh block and its classifier as sums of outer products, sample by sample."""
    _, net, x, y = next(cases())
    rule = build(LocalClassifier, net, x)
    found = gradients(rule, x, y)
    block, head = net[0].affine, rule.get_submodule("heads.0.linear")
    assert isinstance(head, nn.Linear) and isinstance(block, nn.Linear)
    expected = {name: torch.zeros_like(found[name]) for name in ("net.0.affine.weight", "heads.0.linear.weight")}
    with torch.no_grad():
        for sample, label in zip(x, y, strict=True):
            h = torch.tanh(block.weight @ sample + block.bias)
            scores = head.weight @ h + head.bias
            e = scores.exp() / scores.exp().sum()
            e[label] -= 1
            delta = (head.weight.t() @ e) * (1 - h**2)
            expected["heads.0.linear.weight"] += torch.outer(e, h) / len(x)
            expected["net.0.affine.weight"] += torch.outer(delta, sample) / len(x)
    for name, value in expected.items():
        yield Check(f"{name} by hand", apart(found[name], value), 1e-12)


# Predsim.


def likeness(rows: Tensor, centred: bool = True) -> Tensor:
    """Cosines pair by pair; images of more than 3 channels by the standard deviations of their channels."""
    vectors = []
    for row in rows:
        v = row.flatten()
        if row.dim() == 3 and len(row) > 3:
            n = row[0].numel()
            v = torch.stack([((c - c.mean()) ** 2).sum().div(n - 1).sqrt() for c in row])
        vectors.append(v - v.mean() if centred else v)
    cosines = [(a * b).sum() / (a.norm() * b.norm()) for a in vectors for b in vectors]
    return torch.stack(cosines).view(len(rows), len(rows))


def similar(rule: PredSim, x: Tensor, y: Tensor, centred: bool = True) -> Gradients:
    """Autograd of the losses with cosines pair by pair."""
    classes = rule.problem.outputs
    wanted = torch.tensor([[1.0 if a == b else -1 / (classes - 1) for a in y] for b in y], dtype=x.dtype)
    losses = {}
    for last, h in cut_off(rule, x, 1, cut=True):
        if last == len(rule.net) - 1:
            losses[f"net.{last}."] = log_loss(h, y)
            continue
        head = rule.heads[str(last)]
        unlike = (likeness(head.get_submodule("project")(h), centred) - wanted) ** 2
        told = log_loss(head.get_submodule("readout")(h), y)
        losses[f"net.{last}. heads.{last}."] = (1 - rule.beta) * told + rule.beta * unlike.mean()
    return slopes(rule, losses)


def predsim_equals_cosines_pair_by_pair() -> Iterator[Check]:
    """Gradients with every cosine written out, and the class's in closed form; uncentred ones are others."""
    for name, net, x, y in cases():
        for beta in (0.99, 0.5):
            rule = build(PredSim, net, x, beta=beta)
            assert isinstance(rule, PredSim)
            found = gradients(rule, x, y)
            yield Check(f"{name}, beta {beta}", furthest(found, similar(rule, x, y)), 1e-10)
            wrong = furthest(found, similar(rule, x, y, centred=False))
            yield Check(f"{name}, beta {beta}, not centred", wrong, 0.05, "at least", control=True)


def similarity_in_closed_form() -> Iterator[Check]:
    """Of one-hot labels 1 and -1 / (classes - 1); and the same after any shift and scale of a row."""
    draw = torch.Generator().manual_seed(0)
    for classes in (2, 3, 10):
        units = torch.eye(classes, dtype=torch.float64)
        expected = (classes * units - 1) / (classes - 1)
        yield Check(f"one-hot labels of {classes} classes", apart(similarity(units), expected), 1e-14)
    z, scale, shift = (torch.rand(5, n, generator=draw, dtype=torch.float64) + 0.1 for n in (6, 1, 1))
    yield Check("rows scaled and shifted", apart(similarity(z * scale + shift), similarity(z)), 1e-13)


# InfoPro.


def info_pro_of_one_module_equals_backprop() -> Iterator[Check]:
    """With K = 1 it is backpropagation."""
    yield from equals_backprop(InfoPro, modules=1)


def supervised_contrast(z: Tensor, y: Tensor, temperature: float) -> Tensor:
    """Sample by sample, with plain exponentials."""
    unit = [row / row.norm() for row in z]
    total = z.new_zeros(())
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        weights = {j: (unit[i] @ unit[j] / temperature).exp() for j in others}
        own = [j for j in others if y[j] == y[i]]
        for j in own:
            total = total - (weights[j] / sum(weights.values())).log() / len(own)
    return total / len(z)


def info_pro_equals_its_losses_written_out() -> Iterator[Check]:
    """Gradients of reconstruction and class with weights that move linearly; equal weights give others."""
    for name, net, x, y in cases():
        for loss in ("supervised", "contrastive"):
            options = {"reconstruction": (2.0, 0.4), "discrimination": (0.5, 1.5), "loss": loss}
            rule = build(InfoPro, net, x, modules=len(net), temperature=0.3, **options)
            assert isinstance(rule, InfoPro)
            found = gradients(rule, x, y)
            yield Check(f"{name}, {loss}", furthest(found, informed(rule, x, y, flat=False)), 1e-10)
            wrong = furthest(found, informed(rule, x, y, flat=True))
            yield Check(f"{name}, {loss}, equal weights", wrong, 0.05, "at least", control=True)


def informed(rule: InfoPro, x: Tensor, y: Tensor, flat: bool) -> Gradients:
    """Autograd of each module's loss; flat: with weights 1."""
    steps, losses = len(rule.net) - 2, {}
    for last, h in cut_off(rule, x, 1, cut=True):
        if last == len(rule.net) - 1:
            losses[f"net.{last}."] = log_loss(h, y)
            continue
        head = rule.heads[str(last)]
        z = head.get_submodule("readout")(h)
        told = log_loss(z, y) if rule.loss == "supervised" else supervised_contrast(z, y, rule.temperature)
        rebuilt = sum(((a - b) ** 2).mean() for a, b in zip(head.get_submodule("decoder")(h), x, strict=True)) / len(x)
        a, b = (1.0, 1.0) if flat else (2.0 - 1.6 * last / steps, 0.5 + 1.0 * last / steps)
        losses[f"net.{last}. heads.{last}."] = a * rebuilt + b * told
    return slopes(rule, losses)


def a_lonely_class_is_no_contrast() -> Iterator[Check]:
    """Samples whose class has no other member count 0 and leave no NaN."""
    z = torch.randn(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for labels in ([0, 1, 1, 2], [0, 0, 1, 1]):
        y = torch.tensor(labels)
        error = apart(contrast(z, y, 0.2), supervised_contrast(z, y, 0.2))
        yield Check(f"classes {labels}", error, 1e-12)
    yield Check("one sample alone", float(contrast(z[:1], torch.tensor([0]), 0.2).abs()), 0.0)


# The controls.


def deep_supervision_equals_autograd_of_the_sum() -> Iterator[Check]:
    """Gradients of all losses together; those of the cut ones are others, and a weight of 0 is backpropagation."""
    for name, net, x, y in cases():
        for size in (1, 2):
            rule = build(DeepSupervision, net, x, block_size=size)
            assert isinstance(rule, DeepSupervision)
            found = gradients(rule, x, y)
            yield Check(f"{name}, {size} a head", furthest(found, classified(rule, x, y, size, cut=False)), 1e-12)
            wrong = furthest(found, classified(rule, x, y, size, cut=True))
            yield Check(f"{name}, {size} a head, cut off", wrong, 0.05, "at least", control=True)
    yield from equals_backprop(DeepSupervision, weight=0.0)


def checkpointed_equals_backprop() -> Iterator[Check]:
    """Its gradients are backpropagation's for any number of segments, and a deep net needs fewer bytes."""
    for segments in (1, 2, 3, None):
        yield from equals_backprop(CheckpointedBackprop, segments=segments)
    x, y = torch.randn(64, 16, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 3
    bytes_ = [peak(kind, x, y) for kind in (CheckpointedBackprop, Backprop)]
    yield Check("peak bytes of 64 blocks, over backpropagation's", bytes_[0] / bytes_[1], 0.5)


def peak(kind: Callable[..., Rule], x: Tensor, y: Tensor) -> int:
    rule = kind(nets.mlp([16] * 65, classes=3))
    rule.step(x, y)
    with Trace({}) as trace:
        rule.step(x, y)
    return trace.peak_bytes


def accumulated_equals_backprop() -> Iterator[Check]:
    """Its gradients are backpropagation's for any number of micro-batches; a plain mean of their means is another."""
    for count in (1, 2, 3, 4, 20):
        yield from equals_backprop(AccumulatedBackprop, micro_batches=count)
    for name, net, x, y in cases():
        rule = build(AccumulatedBackprop, net, x, micro_batches=3)
        found = updates(rule, x, y)[0]
        parts = [by_backprop(rule, a, b) for a, b in zip(x.tensor_split(3), y.tensor_split(3), strict=True)]
        means = {key: torch.stack([part[key] for part in parts]).mean(0) for key in found}
        wrong = max(apart(means[key], found[key]) for key in found)
        yield Check(f"{name}, every micro-batch counted alike", wrong, 0.01, "at least", control=True)
