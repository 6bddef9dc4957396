"""Predictive coding: states relax towards low prediction error, then every block learns from its own error.

Whittington & Bogacz 2017, "An approximation of the error backpropagation algorithm in a predictive coding network
with local Hebbian synaptic plasticity" (doi 10.1162/NECO_a_00949). Block l predicts the state above it,
mu_l = F_l(x_{l-1}); the input x_0 is clamped, and so is the output x_L, to the label. One sample's energy and errors:

    E = 1/2 sum_l ||e_l||^2,    e_l = x_l - mu_l  (cross-entropy at the output: e_L = onehot(y) - softmax(mu_L))

    start    x_l = mu_l                                          (feed-forward: only e_L is not zero)
    relax    x_l <- x_l + rate (J_{l+1}^T e_{l+1} - e_l)         J_{l+1} = d mu_{l+1} / d x_l, `sweeps` times
    learn    dE/dtheta_l = -(d mu_l / d theta_l)^T e_l           mean over the batch

The error climbs down one block a sweep, so blocks below it are skipped until it arrives (their error is exactly zero),
and a prediction serves its sweep, the next one and the weight gradient. The input is clamped: mu_1 is computed once.

Departures from the paper:
1. A block predicts with its activation, F_l(x) = f(W x + b), instead of W f(x), so that any differentiable block fits.
2. Feed-forward start instead of an equilibrium without the label; a fixed number of sweeps instead of convergence.
3. A sample whose energy would rise goes back to where it was and halves its own rate for the rest of the step.
4. `order="gauss-seidel"`: from the output down, each state sees the new state above it, at the same cost.
5. Cross-entropy at the output by default (`output="squared"` is the paper's).
6. All precisions are 1; Adam instead of gradient descent, with a small eps, as early blocks have tiny gradients.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Claims, Metrics, OptimizerFactory, OptimizerSpec, Problem, Rule, Schedule

SMALL_EPS_ADAM: OptimizerFactory = partial(torch.optim.Adam, lr=1e-3, eps=1e-10, fused=True)
"""Errors shrink with each block they cross; Adam's usual eps of 1e-8 would freeze the early blocks."""

SLOPES: dict[type[nn.Module], Callable[[nn.Module, Tensor, Tensor], Tensor]] = {
    nn.ReLU: lambda f, mu, v: torch.ops.aten.threshold_backward(v, mu, 0),
    nn.LeakyReLU: lambda f, mu, v: torch.ops.aten.leaky_relu_backward(v, mu, f.negative_slope, True),
    nn.Tanh: lambda f, mu, v: torch.ops.aten.tanh_backward(v, mu),
    nn.Sigmoid: lambda f, mu, v: torch.ops.aten.sigmoid_backward(v, mu),
}
"""v times the slope of the activation f where its *output* is mu, in one pass over memory."""


class PredictiveCoding(Rule):
    """Predictive coding in its state form.

    Arguments:
        sweeps: relaxation sweeps per batch. With "jacobi" a net of L blocks needs at least L - 1 of them: blocks that
            the error has not reached are left as they are.
        rate: state rate at the start of each step; halved, for one sample, whenever its energy would rise.
        order: "jacobi" moves all states at once; "gauss-seidel" from the output down.
        output: energy of the output, "squared" or "cross-entropy"; left out, squared for regression only.

    Any differentiable block whose prediction for a sample depends on that sample alone; blocks without parameters too.
    Metrics: "loss", the output's energy before relaxation; "energy", the whole after it; "rate" (means over the batch).
    """

    claims = Claims(
        later_blocks="all",
        forward_lock=True,
        update_lock=True,
        order="forward",
        differentiable=True,
        memory="grows",
        training_only=False,
        same_net=True,
        labels=True,
        batch_of_one=True,
    )

    def __init__(
        self,
        net: nn.Sequential,
        problem: Problem | None = None,
        *,
        sweeps: int = 8,
        rate: float = 0.1,
        order: str = "jacobi",
        output: str | None = None,
        optimizer: OptimizerSpec = SMALL_EPS_ADAM,
        schedule: Schedule | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(net, problem, optimizer=optimizer, schedule=schedule, generator=generator)
        if sweeps < 1 or not 0.0 < rate < float("inf"):
            raise UsageError(f"PredictiveCoding(sweeps={sweeps}, rate={rate}): both must be positive")
        if order not in ("jacobi", "gauss-seidel"):
            raise UsageError(f"PredictiveCoding(order={order!r}): choose 'jacobi' or 'gauss-seidel'")
        output = output or ("squared" if self.problem.kind == "regression" else "cross-entropy")
        if output not in ("squared", "cross-entropy"):
            raise UsageError(f"PredictiveCoding(output={output!r}): choose 'squared' or 'cross-entropy'")
        if output == "cross-entropy" and self.problem.kind == "regression":
            raise UsageError("PredictiveCoding(output='cross-entropy') needs classes; for regression use 'squared'")
        self.sweeps, self.rate, self.order, self.output = sweeps, rate, order, output

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        output = nets.output_layer(net)
        if output is None or output.out_features != problem.outputs:
            return f"it needs an output block with {problem.outputs} outputs (build it with classes={problem.outputs})"
        for name, module in net.named_modules():
            if isinstance(module, nn.modules.batchnorm._NormBase) and _mixes_samples(module):
                return (
                    f"{name} ({type(module).__name__}) keeps statistics over samples, and each sample's states must "
                    "relax alone; use LayerNorm or GroupNorm"
                )
            if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:
                return f"{name} ({type(module).__name__}) predicts anew at random in each sweep; leave it out"
        return None

    @torch.no_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        assert y is not None
        blocks = list(self.net)
        now = feed_forward(blocks, x, _target(y, self.problem), self.output)
        loss, rate = now.energy.mean(), torch.full_like(now.energy, self.rate)
        for sweep in range(1, self.sweeps + 1):
            lowest = 1 if self.order == "gauss-seidel" else max(1, len(blocks) - sweep)
            now, rate = accept(now, propose(now, rate, self.order, lowest), rate)
        for i, (prediction, error) in enumerate(zip(now.predictions, now.errors, strict=True)):
            if error is not None and f"blocks.{i}" in self.optimizers:
                prediction.fill_gradients(error)
                self.update(f"blocks.{i}")
        return {"loss": loss, "energy": now.energy.mean(), "rate": rate.mean()}


def _mixes_samples(norm: nn.modules.batchnorm._NormBase) -> bool:
    return isinstance(norm, nn.modules.batchnorm._BatchNorm) or norm.track_running_stats


def _target(y: Shaped[Tensor, "batch ..."], problem: Problem) -> Shaped[Tensor, "batch outputs"]:
    return nn.functional.one_hot(y, problem.outputs) if problem.kind == "classification" else y


# One block's prediction, and the two products that an error takes part in.


@dataclass(frozen=True)
class ByHand:
    """mu = f(W x + b), its products written by hand."""

    mu: Float[Tensor, "batch outputs"]
    x: Float[Tensor, "batch inputs"]
    block: nn.Module

    def pull_back(
        self, e: Float[Tensor, "batch outputs"], below: Float[Tensor, "batch inputs"] | None
    ) -> Float[Tensor, "batch inputs"]:
        """J^T e - e_below, with J = d mu / d x; `below` is None where e_below is zero."""
        v, weight = self._before_activation(e), _linear(self.block).weight
        return torch.mm(v, weight) if below is None else torch.addmm(below, v, weight, beta=-1)

    def fill_gradients(self, e: Float[Tensor, "batch outputs"]) -> None:
        """Each parameter's `.grad`: -(d mu / d theta)^T e, mean over the batch."""
        layer, v = _linear(self.block), self._before_activation(e / -len(e))
        if layer.weight.requires_grad:
            layer.weight.grad = torch.mm(v.T, self.x)
        if layer.bias is not None and layer.bias.requires_grad:
            layer.bias.grad = v.sum(0)

    def back_where(self, rose: Bool[Tensor, " batch"], old: "ByHand") -> "ByHand":
        """The old prediction for the samples whose energy rose."""
        return ByHand(_where(rose, old.mu, self.mu), _where(rose, old.x, self.x), self.block)

    def _before_activation(self, e: Tensor) -> Tensor:
        f = self.block.activation if isinstance(self.block, nets.Block) else None
        return e if f is None else SLOPES[type(f)](f, self.mu, e)


@dataclass(frozen=True)
class ByAutograd:
    """mu = F(x) for any differentiable block, with autograd's graph from x to mu and no further."""

    mu: Float[Tensor, "batch ..."]
    x: Float[Tensor, "batch ..."]
    block: nn.Module
    graph: Tensor

    def pull_back(
        self, e: Float[Tensor, "batch ..."], below: Float[Tensor, "batch ..."] | None
    ) -> Float[Tensor, "batch ..."]:
        if not self.graph.requires_grad:
            raise UsageError(f"PredictiveCoding: the block {self.block} has no derivative, so no error can pass it")
        (pulled,) = torch.autograd.grad(self.graph, self.x, e, retain_graph=True)
        # Not in place: what comes back from a block that only reshapes is a view of e.
        return pulled if below is None else pulled - below

    def fill_gradients(self, e: Float[Tensor, "batch ..."]) -> None:
        parameters = [p for p in self.block.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(self.graph, parameters, e / -len(e), allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient

    def back_where(self, rose: Bool[Tensor, " batch"], old: "ByAutograd") -> "Prediction":
        """Predicted again: no graph leads from a mixture of old and new states to their predictions."""
        return predict(self.block, _where(rose, old.x, self.x))


Prediction = ByHand | ByAutograd


def predict(block: nn.Module, x: Float[Tensor, "batch ..."], *, clamped: bool = False) -> Prediction:
    """The block's prediction from the state x below it; no error is ever pulled back to a clamped x."""
    if _written_by_hand(block) and x.dim() == 2:
        return ByHand(block(x), x, block)
    with torch.enable_grad():
        leaf = x.detach().requires_grad_(not clamped)
        graph = block(leaf)
    return ByAutograd(graph.detach(), leaf, block, graph)


def _written_by_hand(block: nn.Module) -> bool:
    if isinstance(block, nets.Block):
        f = block.activation
        bare = block.norm is None and block.pool is None
        return type(block.affine) is nn.Linear and bare and (f is None or type(f) in SLOPES)
    return type(block) is nn.Linear


def _linear(block: nn.Module) -> nn.Linear:
    layer = nets.affine(block)
    assert isinstance(layer, nn.Linear)
    return layer


# The chain of states.


@dataclass(frozen=True)
class Chain:
    """All states at one moment, counted from 0: predictions[i] is block i's, from the state predictions[i].x below it.

    errors[i] is the state above block i minus its prediction (for the last block minus the slope of the output's
    energy); None where it is exactly zero because no error has arrived yet. energy is summed over the blocks.
    """

    predictions: Sequence[Prediction]
    errors: Sequence[Tensor | None]
    energy: Float[Tensor, " batch"]
    target: Shaped[Tensor, "batch outputs"]
    output: str


def feed_forward(
    blocks: Sequence[nn.Module], x: Float[Tensor, "batch ..."], target: Shaped[Tensor, "batch outputs"], output: str
) -> Chain:
    """Every hidden state at its prediction, x_l = mu_l: only the output has an error."""
    predictions = [predict(blocks[0], x, clamped=True)]
    for block in blocks[1:]:
        predictions.append(predict(block, predictions[-1].mu))
    error, energy = output_error(predictions[-1].mu, target, output)
    return Chain(predictions, [None] * (len(blocks) - 1) + [error], energy, target, output)


def output_error(
    mu: Float[Tensor, "batch outputs"], target: Shaped[Tensor, "batch outputs"], output: str
) -> tuple[Float[Tensor, "batch outputs"], Float[Tensor, " batch"]]:
    """e_L = -dE/dmu_L, and the output's energy E."""
    if output == "squared":
        error = target - mu
        return error, half_square(error)
    log_p = mu.log_softmax(1)
    return target - log_p.exp(), -(target * log_p).sum(1)


def half_square(error: Float[Tensor, "batch ..."]) -> Float[Tensor, " batch"]:
    """1/2 ||e||^2 of each sample."""
    norm: Tensor = torch.linalg.vector_norm(error.flatten(1), dim=1)
    return 0.5 * norm.square()


def propose(now: Chain, rate: Float[Tensor, " batch"], order: str, lowest: int) -> Chain:
    """One sweep: the states below blocks `lowest` and up move by rate (J^T e_above - e_below); the input never does."""
    predictions, errors = list(now.predictions), list(now.errors)
    last = len(predictions) - 1
    for i in range(last, lowest - 1, -1):
        above = now.errors[i]
        if order == "gauss-seidel" and i < last:
            above = predictions[i + 1].x - now.predictions[i].mu
        assert above is not None
        old = now.predictions[i]
        move = old.pull_back(above, now.errors[i - 1])
        predictions[i] = predict(old.block, torch.addcmul(old.x, move, _each(rate, move)))
    error, energy = output_error(predictions[last].mu, now.target, now.output)
    errors[last] = error
    for i in range(lowest - 1, last):
        errors[i] = error = predictions[i + 1].x - predictions[i].mu
        energy = energy + half_square(error)
    return Chain(predictions, errors, energy, now.target, now.output)


def accept(now: Chain, proposed: Chain, rate: Float[Tensor, " batch"]) -> tuple[Chain, Float[Tensor, " batch"]]:
    """The proposed chain; samples whose energy rose (or is NaN) stay where they are and halve their rate."""
    rounding = 8 * torch.finfo(rate.dtype).eps
    rose = ~(proposed.energy <= now.energy * (1 + rounding))
    if not bool(rose.any()):
        return proposed, rate
    predictions = [
        new if new is old else new.back_where(rose, old)  # type: ignore[arg-type]
        for new, old in zip(proposed.predictions, now.predictions, strict=True)
    ]
    errors = [
        None if new is None else _where(rose, torch.zeros_like(new) if old is None else old, new)
        for new, old in zip(proposed.errors, now.errors, strict=True)
    ]
    energy = torch.where(rose, now.energy, proposed.energy)
    chain = Chain(predictions, errors, energy, now.target, now.output)
    return chain, torch.where(rose, rate / 2, rate)


def _each(value: Shaped[Tensor, " batch"], like: Tensor) -> Tensor:
    """One value a sample, to be broadcast over a state."""
    return value.view(-1, *[1] * (like.dim() - 1))


def _where(rose: Bool[Tensor, " batch"], old: Tensor, new: Tensor) -> Tensor:
    return torch.where(_each(rose, new), old, new)
