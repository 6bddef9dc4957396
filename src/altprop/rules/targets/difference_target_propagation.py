"""Difference target propagation: learned feedback carries targets down, and each block learns to meet its own.

Lee, Zhang, Fischer & Bengio 2015 (arXiv 1412.7525), with the feedback learning of Ernoult et al. 2022 (ICML, arXiv
2201.13415). With blocks F_l, outputs h_l = F_l(h_{l-1}), and a feedback block G_l from h_l back to h_{l-1}:

    t_L = h_L - beta e,   e = dLoss/dh_L
    t_{l-1} = h_{l-1} + G_l(t_l) - G_l(h_l)                       the difference takes out what G_l gets wrong at h_l
    block l:   |F_l(h_{l-1}) - t_l|^2 / (2 beta)                  h_{l-1} and t_l held
    G_l:       -eps . (G_l(F_l(h_{l-1} + eps)) - G_l(h_l)) + 1/2 |G_l(h_l + eta) - G_l(h_l)|^2     eps, eta noise

The last line is the local difference reconstruction loss (L-DRL): it is least where the Jacobian of G_l is the
transposed one of F_l, and then the updates of the blocks are backprop's. G_l takes the parts of F_l in reverse order:
G_l(t) = B_l^T f_l(unpool(t)), with B_l of the shape of W_l.

Departures from the papers:
1. The loss is divided by the variance of the noise, so that rates do not depend on it; eps and eta have the same one.
2. G_l has no bias, which falls out of all differences; a maximum goes back to where it came from in h_l.
3. All blocks learn their feedback on the same states, `iterations` times a batch, before any block's weights change.
4. A block that has no layer, a step or a black box, gets a matrix for its feedback, from the identity on.
5. `feedback="reconstruction"` is the loss of 2015, |G_l(F_l(h_{l-1} + eps)) - (h_{l-1} + eps)|^2 / 2, for these G_l.
"""

from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Claims, Metrics, Problem, Rule
from altprop.rules.losses import output_error
from altprop.rules.targets.parts import Parts, correlation, parts_of, refusal, transposed


class DifferenceTargetPropagation(Rule):
    """Difference target propagation (Lee et al. 2015; Ernoult et al. 2022) for linear and convolutional layers.

    Arguments:
        beta: how far the output's target is from its scores, in units of its error.
        noise: standard deviation of what the feedback learns from.
        iterations: how often the feedback learns from a batch.
        feedback: the loss of the feedback, "difference" (L-DRL) or "reconstruction".
        The others are those of `Rule`; the feedback of block i is the part "feedback.i".

    Metrics: "loss", and "feedback", the mean of the feedback's losses in the last iteration.
    """

    claims = Claims(
        later_blocks="prediction",
        forward_lock=True,
        update_lock=True,
        order="backward",
        differentiable=False,
        memory="grows",
        training_only=True,
        same_net=True,
        labels=True,
        batch_of_one=True,
    )

    def __init__(
        self,
        net: nn.Sequential,
        problem: Problem | None = None,
        *,
        beta: float = 0.1,
        noise: float = 0.1,
        iterations: int = 1,
        feedback: str = "difference",
        **options: Any,
    ) -> None:
        super().__init__(net, problem, **options)
        if not (0.0 < beta < float("inf") and 0.0 < noise < float("inf")) or iterations < 1:
            raise UsageError(
                f"DifferenceTargetPropagation(beta={beta}, noise={noise}, iterations={iterations}): beta and noise "
                "must be positive, and iterations at least 1"
            )
        if feedback not in ("difference", "reconstruction"):
            raise UsageError(
                f"DifferenceTargetPropagation(feedback={feedback!r}): choose 'difference' or 'reconstruction'"
            )
        self.beta, self.noise, self.iterations, self.kind = beta, noise, iterations, feedback
        self.feedback = nn.ModuleDict()
        for i, block in enumerate(net):
            if i > 0 and (weight := self._first_guess(i, block)) is not None:
                self.feedback[str(i)] = nn.ParameterList([weight])
                self.add_part(f"feedback.{i}", self.feedback[str(i)])

    def _first_guess(self, i: int, block: nn.Module) -> Tensor | None:
        """B_i at its start: random for a layer, the identity for a block without; None for one that only pools."""
        layer, like = nets.affine(block), next(self.net.parameters())
        if layer is not None:
            weight = torch.empty(layer.weight.shape)  # type: ignore[arg-type]
            weight.normal_(0.0, weight[0].numel() ** -0.5, generator=self.generator)
            return weight.to(like)
        if isinstance(parts_of(block).activation, nn.Identity):
            return None
        shapes = nets.shapes(self.net, self.problem.input_shape)
        return torch.eye(*shapes[i], *shapes[i - 1]).to(like)

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        if (reason := refusal(net, problem)) is not None:
            return reason
        bare = [i for i, block in enumerate(net) if i > 0 and _needs_matrix(block)]
        shapes = nets.shapes(net, problem.input_shape) if bare else []
        for i in bare:
            if len(shapes[i]) != 1 or len(shapes[i - 1]) != 1:
                return (
                    f"block {i} has no layer, and its feedback would be a matrix between images; put it into the block "
                    "before it, as activation or pool of altprop.nets.Block"
                )
        return None

    @torch.no_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        assert y is not None
        parts = [parts_of(block) for block in self.net]
        h, z, a = [x], [], []
        for part in parts:
            z.append(part.drive(h[-1]))
            a.append(part.excite(z[-1]))
            h.append(part.pooled(a[-1]))
        loss, e = output_error(h[-1], y, self.problem.kind)
        taught = [torch.zeros_like(loss)]
        for _ in range(self.iterations):
            taught = [self.learn_feedback(int(i), parts[int(i)], h[int(i)], a[int(i)]) for i in self.feedback] or taught
        gap = -self.beta * e
        for i in reversed(range(len(parts))):
            own = gap / (-self.beta * len(x))
            if i > 0:
                gap = self.difference(i, parts[i], h[i], a[i], gap)
            if f"blocks.{i}" in self.optimizers:
                parts[i].fill_gradients(h[i], parts[i].pull(z[i], own))
                self.update(f"blocks.{i}")
        return {"loss": loss, "feedback": torch.stack(taught).mean()}

    def difference(
        self, i: int, part: Parts, h: Tensor, a: Tensor, gap: Float[Tensor, "batch ..."]
    ) -> Float[Tensor, "batch ..."]:
        """t - h below block i, from t - h above it: G(t) - G(h). (h below, a before the block's pooling.)"""
        out = part.pooled(a)
        return self.carry(i, part, self.turned(part, a, out + gap) - self.turned(part, a, out), h)

    def turned(self, part: Parts, a: Tensor, t: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """What the feedback weights of a block with activities a get for the value t of its output: f(unpool(t))."""
        t = part.unpool(a, t)
        turned: Tensor = t if part.layer is None else part.activation(t)
        return turned

    def carry(self, i: int, part: Parts, u: Float[Tensor, "batch ..."], like: Tensor) -> Float[Tensor, "batch ..."]:
        """B_i^T u, in the shape of what the block takes in."""
        return transposed(part.layer, self.weight(i), u, like) if str(i) in self.feedback else u

    def weight(self, i: int) -> Tensor:
        """B_i."""
        weight: Tensor = next(self.feedback[str(i)].parameters())
        return weight

    def learn_feedback(self, i: int, part: Parts, h: Tensor, a: Tensor) -> Float[Tensor, ""]:
        """One step of B_i on its own loss, which is returned: G is linear in B, so the products are written by hand."""
        out = part.pooled(a)
        eps, eta = (self.noise * torch.randn(t.shape, generator=self.generator).to(t) for t in (h, out))
        seen = self.turned(part, a, part.pooled(part.excite(part.drive(h + eps))))
        if self.kind == "reconstruction":
            wrong = self.carry(i, part, seen, h) - (h + eps)
            loss, gradient = 0.5 * wrong.square().sum(), correlation(part.layer, wrong, seen)
        else:
            still = self.turned(part, a, out)
            seen, spread = (seen - still) / self.noise, (self.turned(part, a, out + eta) - still) / self.noise
            wide = self.carry(i, part, spread, h)
            gradient = correlation(part.layer, torch.cat([eps / -self.noise, wide]), torch.cat([seen, spread]))
            # The loss is a linear plus a quadratic form in B: B . gradient has the latter twice.
            loss = (self.weight(i) * gradient).sum() - 0.5 * wide.square().sum()
        self.weight(i).grad = gradient / len(h)
        self.update(f"feedback.{i}")
        return loss / len(h)


def _needs_matrix(block: nn.Module) -> bool:
    return nets.affine(block) is None and not isinstance(parts_of(block).activation, nn.Identity)
