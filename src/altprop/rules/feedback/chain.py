"""What the rules share whose error goes down block after block, through feedback weights instead of the net's own.

With layers a_l = W_l h_{l-1}, outputs h_l = f_l(a_l), the error e = dL/da_L and B_l in the shape of W_l:

    delta_L = e,    delta_l = f_l'(a_l) * (B_{l+1}^T delta_{l+1}),    dW_l = delta_l h_{l-1}^T

so that the output block's own gradient is the true one. A rule says what B_l is, by `back`.
"""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop import nets
from altprop.rule import Metrics, Problem, Rule
from altprop.rules.feedback.ways import parts, through
from altprop.rules.losses import losses, output_missing
from altprop.rules.watch import check_units


class Chain(Rule):
    """The base of those rules; not one by itself."""

    def back(self, block: int) -> Float[Tensor, "outputs inputs ..."]:
        """B of a block that is `above` another one that learns, in the shape of its layer's weight."""
        raise TypeError(f"{type(self).__name__} has no back(block): every rule writes its own")

    def teach_feedback(self) -> None:
        """Give feedback that learns its gradients; the layers' own lie, and nothing has been updated."""

    @property
    def above(self) -> list[int]:
        """The blocks with a layer that an error goes down through, to an earlier block that learns."""
        learners = [int(part.partition(".")[2]) for part in self.optimizers if part.startswith("blocks.")]
        found = range(min(learners, default=len(self.net)) + 1, len(self.net))
        return [i for i in found if nets.affine(self.net[i]) is not None]

    def layer(self, block: int) -> nn.Linear | nn.Conv2d:
        layer = nets.affine(self.net[block])
        assert isinstance(layer, nn.Linear | nn.Conv2d)
        return layer

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        return output_missing(net, problem) or wayless(net)

    @torch.enable_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        assert y is not None
        above, h = set(self.above), x
        for i, block in enumerate(self.net):
            before, h = h, passed(block, h, self.back(i)) if i in above else block(h)
            check_units(self, i, before, h)
        loss = losses(h, y, self.problem.kind).mean()
        loss.backward()
        self.teach_feedback()
        for part in reversed(self.optimizers):
            self.update(part)
        return {"loss": loss.detach()}


def passed(
    block: nn.Module, x: Float[Tensor, "batch ..."], b: Float[Tensor, "outputs inputs ..."]
) -> Float[Tensor, "batch ..."]:
    """The block's output; the error goes down through B in the place of its layer's weight."""
    layer = nets.affine(block)
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    return nets.after(block, through(layer, x, b))


def wayless(net: nn.Sequential) -> str | None:
    """Why feedback weights cannot stand for all of this net's own, in words."""
    for i, block in enumerate(net):
        for _, part, why in parts(block):
            if why:
                return f"block {i} holds {why}, which has no feedback weights; DirectFeedbackAlignment needs none there"
            if part is not nets.affine(block):
                return (
                    f"block {i} holds a {type(part).__name__} inside a module of its own; cut the model by "
                    "altprop.blocks(model), or have altprop.convert(model, rule) give its layers feedback weights"
                )
    return None
