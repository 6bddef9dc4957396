"""The base of rules with local losses: the net is cut into modules, each of which learns before the next is entered."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop import nets
from altprop.rule import Metrics, Problem, Rule
from altprop.rules.losses import losses, output_missing
from altprop.rules.watch import check_units


class Modular(Rule):
    """Base of rules whose modules, ranges of consecutive blocks, learn by losses of their own.

    What reaches a module is cut off from the modules before it, and its graph is freed when it has learnt. Its parts
    are "blocks.i" and, for all modules but the last, "heads.i", where i is its last block. The last module ends in the
    output block and has the problem's own loss. A module without trainable parameters is passed through.
    """

    def cut(self, modules: Sequence[range]) -> None:
        """Give every module but the last its head."""
        self.ranges = list(modules)
        self.heads = nn.ModuleDict()
        shapes = nets.shapes(self.net, self.problem.input_shape) if len(modules) > 1 else []
        for module in self.ranges[:-1]:
            last = module[-1]
            if any(f"blocks.{i}" in self.optimizers for i in module):
                self.heads[str(last)] = self.head(shapes[last]).to(next(self.net.parameters()))
                self.add_part(f"heads.{last}", self.heads[str(last)])

    def head(self, shape: tuple[int, ...]) -> nn.Module:
        """What a module's loss needs besides its output, which has this shape for a sample."""
        raise TypeError(f"{type(self).__name__} has no head(shape): every rule of modules writes its own")

    def local_loss(self, last: int, h: Tensor, x: Tensor, y: Tensor) -> Float[Tensor, ""]:
        """The loss of the module that ends with the block `last` and gives h."""
        raise TypeError(f"{type(self).__name__} has no local_loss(last, h, x, y): every rule of modules writes its own")

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        return output_missing(net, problem)

    def turn(self) -> int | None:
        """The one module that learns now; None: all do."""
        return None

    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        """The loss is that of the last module that learns; "local" is the sum of the others'."""
        assert y is not None
        turn = self.turn()
        end = len(self.ranges) - 1 if turn is None else turn
        h, loss, local = x.detach(), x.new_zeros(()), x.new_zeros(())
        for k, module in enumerate(self.ranges[: end + 1]):
            if k == end or (turn is None and self.parts(module)):
                local = local + loss
                h, loss = self._learn_module(module, h, x, y)
            else:
                with torch.no_grad():
                    h = self._through(module, h)
        return {"loss": loss, "local": local}

    def parts(self, module: range) -> list[str]:
        """What learns by the module's loss."""
        names = [*(f"blocks.{i}" for i in module), f"heads.{module[-1]}"]
        return [name for name in names if name in self.optimizers]

    @torch.enable_grad()
    def _learn_module(self, module: range, h: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Float[Tensor, ""]]:
        """The module's output and loss, both cut off."""
        h = self._through(module, h)
        if module is self.ranges[-1]:
            loss = losses(h, y, self.problem.kind).mean()
        else:
            loss = self.local_loss(module[-1], h, x, y)
        parts = self.parts(module)
        if parts:
            loss.backward()
        for part in parts:
            self.update(part)
        return h.detach(), loss.detach()

    def _through(self, module: range, h: Tensor) -> Tensor:
        for i in module:
            before, h = h, self.net[i](h)
            check_units(self, i, before, h)
        return h
