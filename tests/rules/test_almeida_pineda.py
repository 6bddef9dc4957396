"""Almeida-Pineda against autograd through every sweep, and against the implicit function theorem."""

import pytest
import torch
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.energy.almeida_pineda import AlmeidaPineda
from settled_nets import EXACT, batch, distance, settled_gradients, small_net, sweep, unrolled
from steps import gradients


@pytest.mark.parametrize("solver", ["asynchronous", "damped", "anderson"])
@pytest.mark.parametrize(
    ("act", "output", "g"),
    [("tanh", True, 1.0), ("sigmoid", False, 1.0), ("hard-sigmoid", True, 0.5), ("tanh", False, 0.5)],
)
def test_updates_equal_autograd_through_every_sweep(act: str, output: bool, g: float, solver: str) -> None:
    x, y = batch(6, 5, 3)
    net = small_net(5, 8, 7, 3, act=act, output=output)
    expected = settled_gradients(net, x, y, g)
    rule = AlmeidaPineda(net, Problem((5,), 3), solver=solver, feedback=g, **EXACT)
    assert distance(gradients(rule, x, y), expected) < 1e-10


def flat(states: list[Tensor]) -> Tensor:
    return torch.cat(states, 1).flatten()


def test_updates_equal_the_implicit_function_theorem() -> None:
    """dLoss/dtheta = dLoss/ds (1 - dF/ds)^-1 dF/dtheta, with whole Jacobians, and the loss a cross-entropy."""
    x, y = batch(3, 5, 3)
    net, g, sizes = small_net(5, 4, 3), 0.8, [4, 3]
    s = flat([t.detach() for t in unrolled(net, x, g)])

    def moved(s: Tensor) -> Tensor:
        return flat(sweep(net, x, list(s.view(3, 7).split(sizes, 1)), g))

    jacobian = torch.autograd.functional.jacobian(moved, s)
    top = s.clone().requires_grad_()
    (slope,) = torch.autograd.grad(nn.functional.cross_entropy(top.view(3, 7)[:, 4:], y), top)
    settled = torch.linalg.solve((torch.eye(21, dtype=s.dtype) - jacobian).T, slope)
    expected = torch.autograd.grad(moved(s), list(net.parameters()), settled)
    names = [f"net.{name}" for name, _ in net.named_parameters()]
    rule = AlmeidaPineda(net, feedback=g, output="cross-entropy", **EXACT)
    assert distance(gradients(rule, x, y), dict(zip(names, expected, strict=True))) < 1e-10


def test_one_step_is_the_derivative_of_one_sweep_from_the_first_layer_to_the_last() -> None:
    x, y = batch(6, 5, 3)
    net, g = small_net(5, 8, 7, 3), 0.7
    s = [t.detach() for t in unrolled(net, x, g)]
    h = x
    for i, block in enumerate(net):
        u = block.affine(h) + (g * s[i + 1] @ net[i + 1].affine.weight if i < 2 else 0.0)
        h = u if block.activation is None else block.activation(u)
    loss = 0.5 * (h - nn.functional.one_hot(y, 3)).square().sum(1).mean()
    expected = torch.autograd.grad(loss, list(net.parameters()))
    names = [f"net.{name}" for name, _ in net.named_parameters()]
    rule = AlmeidaPineda(net, feedback=g, adjoint="one-step", **EXACT)
    assert distance(gradients(rule, x, y), dict(zip(names, expected, strict=True))) < 1e-12


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"output": "hinge"}, "choose the output"),
        ({"adjoint": "guessed"}, "choose the output"),
        ({"output": "cross-entropy", "problem": Problem((5,), 3, "regression")}, "needs classes"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        AlmeidaPineda(small_net(5, 8, 3), **options)


def test_convolutions_are_refused() -> None:
    with pytest.raises(UsageError, match="block 0 is no linear layer"):
        AlmeidaPineda(nets.conv((1, 4, 4), [2], classes=3, act="tanh"), Problem((1, 4, 4), 3))
