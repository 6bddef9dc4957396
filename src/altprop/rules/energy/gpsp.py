"""Generalised principal subspace projection: one local rule for canonical correlation, slow features and contrastive
principal components.

Lipshutz, Bahroun, Golkar, Sengupta & Chklovskii 2023, "Normative framework for deriving neural networks with
multicompartmental neurons and non-Hebbian plasticity" (arXiv 2302.10051). Which V maximises tr V A V^T subject to
V B V^T = 1? With A = <xi xi^T> the answer is the space of the first generalised eigenvectors, A v = lambda B v, and
neurons with feed-forward weights W and lateral weights M find it:

    y  = M^{-1} W xi                          where the lateral dynamics dy/dt = W xi - M y come to rest
    dW = 2 rate (<y xi^T> - W B)              W B = <(W r) r^T>: what the synapse sees is its own compartment's W r
    dM = rate / tau (<y y^T> - M)

    cca   two views x, z          xi = (x, z)      a compartment a view: B holds <x x^T> and <z z^T>
    sfa   a time series x_t       xi = x_t + x_{t-1}                     B = <x_t x_t^T>
    cpca  foreground, background  xi = foreground                        B = <background background^T>

Departures from the paper:
1. y is solved for (M is factorised), and the dynamics are there to be looked at (`relaxed`); both agree.
2. Averages are over a batch, of one sample if need be.
   The rate is an attribute, to be lowered while learning: what is left of the error falls with it.
3. A batch of contrastive components holds samples of both kinds, where the paper's come one after another with a flag.

M stays positive definite by itself: it starts as the identity, and each step is a weighted mean of itself and of
<y y^T>, with weights that are positive as long as rate < tau.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from altprop.errors import UsageError

TASKS = ("cca", "sfa", "cpca")


class GPSP(nn.Module):
    """A layer that learns a generalised principal subspace; no classifier, and no labels.

    Arguments:
        task: "cca" (canonical correlation), "sfa" (slow features) or "cpca" (contrastive principal components).
        inputs: values of a sample; for "cca" two numbers, one a view.
        outputs: neurons, the dimensions of the subspace.
        rate: of the feed-forward weights (twice it) and, divided by tau, of the lateral ones; below tau.
        tau: how much slower lateral weights learn.
        generator: of the first weights; a fresh one with seed 0 if left out.

    All data are to have mean 0.
    """

    weight: Float[Tensor, "outputs inputs"]
    lateral: Float[Tensor, "outputs outputs"]

    def __init__(
        self,
        task: str,
        inputs: int | tuple[int, int],
        outputs: int,
        *,
        rate: float = 0.02,
        tau: float = 0.5,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if task not in TASKS:
            raise UsageError(f"GPSP(task={task!r}): choose one of {', '.join(TASKS)}")
        if isinstance(inputs, int) == (task == "cca"):
            raise UsageError(f"GPSP({task!r}, inputs={inputs}): 'cca' takes two numbers (a view each), the others one")
        if not 0.0 < rate < tau:
            raise UsageError(
                f"GPSP(rate={rate}, tau={tau}): the rate must be above 0 and below tau, or lateral weights are "
                "no longer positive definite"
            )
        self.task, self.rate, self.tau = task, rate, tau
        self.sizes = (inputs,) if isinstance(inputs, int) else inputs
        if not 1 <= outputs <= sum(self.sizes):
            raise UsageError(f"GPSP(outputs={outputs}): give from 1 to {sum(self.sizes)} outputs, as many as inputs")
        generator = generator if generator is not None else torch.Generator().manual_seed(0)
        weight = torch.randn(outputs, sum(self.sizes), generator=generator) / sum(self.sizes) ** 0.5
        self.register_buffer("weight", weight)
        self.register_buffer("lateral", torch.eye(outputs))

    def forward(self, xi: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch outputs"]:
        """y = M^{-1} W xi."""
        y: Tensor = torch.cholesky_solve(self.weight @ xi.T, torch.linalg.cholesky(self.lateral)).T
        return y

    def relaxed(self, xi: Float[Tensor, "batch inputs"], rate: float, sweeps: int) -> Float[Tensor, "batch outputs"]:
        """y by so many sweeps of the lateral dynamics, from 0; they settle for rates below 2 / (M's largest value)."""
        drive = xi @ self.weight.T
        y = torch.zeros_like(drive)
        for _ in range(sweeps):
            y = y + rate * (drive - y @ self.lateral)
        return y

    def joined(
        self, one: Float[Tensor, "batch one"], other: Float[Tensor, "others other"]
    ) -> tuple[Float[Tensor, "batch all"], tuple[Tensor, ...]]:
        """xi, and what each compartment's B is the second moment of."""
        if self.task == "cca":
            return torch.cat([one, other], 1), (one, other)
        return (one + other, (one,)) if self.task == "sfa" else (one, (other,))

    @torch.no_grad()
    def learn(
        self, one: Float[Tensor, "batch *one"], other: Float[Tensor, "others *other"]
    ) -> Float[Tensor, "batch outputs"]:
        """Learn from a batch, of one sample if need be; returns y.

        "cca": the two views; "sfa": samples, and for each the one before it; "cpca": foreground and background.
        """
        self._check(one, other)
        xi, references = self.joined(one, other)
        y: Tensor = self(xi)
        compartments = zip(self.weight.split(self.sizes, 1), references, strict=True)
        moments = [(r @ w.T).T @ r / len(r) for w, r in compartments]
        self.weight.add_(y.T @ xi / len(xi) - torch.cat(moments, 1), alpha=2.0 * self.rate)
        self.lateral.lerp_(y.T @ y / len(y), self.rate / self.tau)
        return y

    def _check(self, one: Tensor, other: Tensor) -> None:
        first, second = self.sizes[0], self.sizes[-1]
        paired = self.task == "cpca" or len(one) == len(other)
        if (one.shape[1:], other.shape[1:]) != ((first,), (second,)) or not paired or not len(one) * len(other):
            raise UsageError(
                f"GPSP.learn: samples of shapes {tuple(one.shape)} and {tuple(other.shape)}; {self.task!r} takes "
                f"(batch, {first}) and (batch, {second})"
            )
