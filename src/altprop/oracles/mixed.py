"""Two rules on one net against each one's own formula: Sanger's below, sample by sample, and autograd above."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from altprop import nets
from altprop.oracles.check import Check, apart
from altprop.oracles.fast_hebb import looped
from altprop.rules.hebbian.mixed import Mixed

RATE = 0.1


def mixed_equals_its_two_rules() -> Iterator[Check]:
    """A step below by Sanger's rule, written out, and above by autograd, on what the blocks below gave before it."""
    draw = torch.Generator().manual_seed(0)
    net = nets.mlp([7, 5, 6], classes=3, act="tanh", generator=draw).double()
    x = torch.randn(8, 7, generator=draw, dtype=torch.float64)
    x, y = x - x.mean(0), torch.arange(8) % 3
    first, *later = (layer for layer in net.modules() if isinstance(layer, nn.Linear))
    w = first.weight.detach().clone()
    below = w + RATE * looped(w, list(x), "sanger")
    h = net[0](x).detach()
    parameters = [p for layer in later for p in layer.parameters()]
    gradients = torch.autograd.grad(cross_entropy(net[1:](h), y), parameters)
    above = [p.detach() - RATE * g for p, g in zip(parameters, gradients, strict=True)]
    sgd = partial(torch.optim.SGD, lr=RATE)
    lower = {"update": "sanger", "inputs": "as they are", "relative": False, "optimizer": sgd}
    rule = Mixed(net, above="backprop", lower=lower, optimizer=sgd)
    before = cross_entropy(net(x), y).detach()
    loss = rule.step(x, y)["loss"]
    yield Check("the weights below", apart(first.weight.detach(), below), 1e-12)
    for i, (found, expected) in enumerate(zip(parameters, above, strict=True)):
        yield Check(f"parameter {i} above", apart(found.detach(), expected), 1e-12)
    yield Check("bias below, which stays", float(first.bias.detach().abs().max()), 0.0)
    yield Check("the loss, before the step", apart(loss, before), 1e-12)
