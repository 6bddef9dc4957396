"""Signal propagation: targets travel forward through the same blocks as the inputs, and each block compares the two.

Kohan, Rietman & Siegelmann 2022 (arXiv 2204.01723). With a context generator C for targets and blocks F_l:

    h_1 = F_1(x),           t_1 = f(C(target))            the signal enters at the first block's output, or, with
    h_l = F_l(h_{l-1}),     t_l = F_l(t_{l-1})            context="input", as an input: t_1 = F_1(C(target))
    p_l = softmax over targets m of k cos(h_l, t_lm)
    L_l = -sum_m match_m log p_lm                         dW_l = dL_l/dW_l with h_{l-1} and t_{l-1} held fixed

A block learns as soon as both streams have passed it, and then its activities are dropped. Predictions: option 1, the
class whose target is nearest at the last block that learns; option 2, the same by a tree that compares few targets at
early blocks and prunes (`target_tree.py`); option 3, an output block that learns by cross-entropy (regression: half the
squared error) on h_{L-1} held fixed.

Losses: "all" targets that match (v9 of the authors' library), "one" of them at random (v14), the "top" nearest to the
own one at the block's input (v15), and "hebbian", without any derivative: with the post-synaptic factor
sum_m (match_m - p_lm) t_m / |t_m| for inputs, sum_i (match_i - p_li) h_i / |h_i| for targets, dW = post x pre.

Departures from the paper:
1. The targets are the classes, one row a class, and not one a sample of the batch (targets="samples"): a sample is
   compared with every class, also with one that its batch lacks, and the second stream costs as many rows as there are
   classes. Then exactly one target matches, and "all" and "one" are the same loss.
2. Likeness is the cosine times `sharpness`, so that no block can win by growing its activities.
3. f is the first block's own activation; S of C(c) = S c + d is normal, and d is left out for classes.
4. The targets never touch the inputs' running statistics: a batch normalisation takes the targets' own, over the rows
   at hand, while learning and while predicting.
5. The Hebbian loss is ours; the paper's trains continuous-time nets by the difference of two products of activities.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Claims, Metrics, Problem, Rule
from altprop.rules.forward_only import likeness
from altprop.rules.forward_only.contexts import Context
from altprop.rules.forward_only.likeness import MATCHES, cosine
from altprop.rules.forward_only.streams import Seen, before_activation, both, target_pass
from altprop.rules.forward_only.target_tree import Level, descend, grow
from altprop.rules.losses import losses, output_missing

CHOICES = {"loss": (*MATCHES, "hebbian"), "context": ("hidden", "input"), "targets": ("classes", "samples")}


class SignalPropagation(Rule):
    """Signal propagation (Kohan, Rietman & Siegelmann 2022) for blocks of any kind, with an output block.

    Arguments:
        sharpness: k, the factor of the cosine in each block's softmax.
        loss: "all", "one", "top" or "hebbian" (above); top: how many targets match for "top".
        context: where signals enter: "hidden" (at the first block's output) or "input" (as inputs).
        signals: a context generator of your own: a module from codes (rows, outputs), one-hot for classes, to signals
            (rows, *shape of what they enter).
        learned: whether the signals learn, or stay as they were drawn.
        targets: "classes" (one row a class) or "samples" (one a sample of the batch); regression has "samples".
        alternate: the streams take turns: in one step the inputs' side learns, in the next the targets'.
        margin: of the tree of option 2: branches are followed that are at most so far (in cosine) behind the nearest.
        The others are those of `Rule`; the parts are "blocks.0", "blocks.1", ... and "target" (the signals).
    """

    claims = Claims(
        later_blocks="none",
        forward_lock=False,
        update_lock=False,
        order="forward",
        differentiable=False,
        memory="flat",
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
        sharpness: float = 30.0,
        loss: str = "all",
        top: int = 6,
        context: str = "hidden",
        signals: nn.Module | None = None,
        learned: bool = True,
        targets: str = "classes",
        alternate: bool = False,
        margin: float = 0.1,
        **options: Any,
    ) -> None:
        super().__init__(net, problem, **options)
        self._check(loss=loss, context=context, targets=targets)
        self._check_numbers(sharpness, top, margin)
        self.sharpness, self.loss, self.top, self.margin = sharpness, loss, top, margin
        self.each_sample = targets == "samples" or self.problem.kind == "regression"
        self.learners = [i for i in range(len(net) - 1) if f"blocks.{i}" in self.optimizers]
        self.entry = self.learners[0] if context == "hidden" else -1
        self.look = before_activation if loss == "hebbian" else nets.observe
        self._check_loss(context, learned)
        self._check_context(context, learned)
        unread = alternate or self.problem.kind == "regression"  # whose prediction asks for no signal
        self.claims = replace(self.claims, batch_of_one=not self.each_sample, same_net=learned, training_only=unread)
        self.target = self._context(signals, learned)
        self.add_part("target", self.target)
        self.alternate = alternate
        if alternate:
            self.register_buffer("turns", torch.zeros((), dtype=torch.int64))
        self._grown: tuple[object, list[Level]] | None = None

    def _context(self, own: nn.Module | None, learned: bool) -> nn.Module:
        """The context generator, in the shape of what its signals enter."""
        every = [tuple(int(n or 0) for n in self.problem.input_shape), *nets.shapes(self.net, self.problem.input_shape)]
        shape, n, units = every[self.entry + 1], self.problem.outputs, self._units()
        if own is None:
            return Context(n, shape, learned=learned, origin=self.each_sample, generator=self.generator).to(units)
        if not isinstance(own, nn.Module):
            raise UsageError(
                f"SignalPropagation: signals is a {type(own).__name__}; give a torch.nn.Module, from codes (one-hot "
                "for classes) to signals"
            )
        try:
            with torch.no_grad():
                made = tuple(own.to(units)(units).shape)
        except (RuntimeError, TypeError, ValueError) as error:
            raise UsageError(
                f"SignalPropagation: signals does not take the codes of the {n} classes, {(n, n)} with one row a class "
                f"({error}); build it for {n} inputs"
            ) from error
        if made != (n, *shape):
            raise UsageError(
                f"SignalPropagation: signals makes {made} of the {n} classes' codes, and what they enter takes "
                f"{(n, *shape)}; build it for that shape, or let them enter elsewhere (context='hidden' or 'input')"
            )
        return own.requires_grad_(learned)

    def _check(self, **options: str) -> None:
        for name, value in options.items():
            if value not in CHOICES[name]:
                known = " or ".join(repr(choice) for choice in CHOICES[name])
                raise UsageError(f"SignalPropagation: {name}={value!r} is not known; choose {known}")

    @staticmethod
    def _check_numbers(sharpness: float, top: int, margin: float) -> None:
        if not sharpness >= 0 or top < 1 or not margin >= 0:
            raise UsageError(
                f"SignalPropagation: top={top} must be 1 or more, sharpness={sharpness} and margin={margin} not below 0"
            )

    def _check_context(self, context: str, learned: bool) -> None:
        before = [module for block in list(self.net)[: self.learners[0] + 1] for module in block.modules()]
        if context == "input" and learned and any(isinstance(m, nets.BlackBox) and m.closed for m in before):
            raise UsageError(
                "SignalPropagation: signals that enter as inputs learn by a derivative through what comes before the "
                "first block's output, and a black box there has none; take learned=False, or context='hidden'"
            )

    def _check_loss(self, context: str, learned: bool) -> None:
        if self.loss == "top" and not self.each_sample:
            raise UsageError(
                "SignalPropagation: loss='top' lets the nearest targets match, which with one row a class are other "
                "classes; take targets='samples', or loss='all'"
            )
        if self.loss == "hebbian" and context == "input" and learned:
            raise UsageError(
                "SignalPropagation: signals that enter as inputs learn by a derivative through the first block, which "
                "loss='hebbian' does without; take learned=False, or context='hidden'"
            )
        for i in self.learners if self.loss == "hebbian" else []:
            block = self.net[i]
            if not isinstance(block, nets.Block) or block.affine is None or block.pool is not None:
                raise UsageError(
                    "SignalPropagation: loss='hebbian' needs blocks of an affine layer and an activation of the same "
                    f"shape, and block {i} is another; build it so, or take another loss"
                )

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        if (reason := output_missing(net, problem)) is not None:
            return reason
        if not any(p.requires_grad for p in net[:-1].parameters()):
            return "it needs a block with trainable parameters before the output block (give the net a hidden width)"
        return None

    # Learning.

    @torch.enable_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        """The loss is the output block's; "local" is the sum of the other blocks' losses."""
        assert y is not None
        self._grown = None  # fused optimizers leave no trace in a parameter's version
        codes, turn = self._codes(y), self._turn()
        local = x.new_zeros(())
        h, t = x.detach(), None if self.entry >= 0 else self._signals(codes)
        for i in range(len(self.net) - 1):
            before, (inputs, targets) = t, self._through(i, h, t, codes)
            h = inputs[0].detach()
            if targets is not None and i in self.learners:
                local += self._descend(i, inputs, targets, self._matches(before, codes, y), turn)
            if targets is not None:  # signals that enter as inputs learn in the first block that learns
                t = targets[0].detach() if i >= self.learners[0] else targets[0]
        return {"loss": self._read_out(h, y), "local": local}

    def _codes(self, y: Tensor) -> Float[Tensor, "batch outputs"] | None:
        """The codes of the targets' rows; None: one row a class."""
        if not self.each_sample:
            return None
        return y if self.problem.kind == "regression" else one_hot(y, self.problem.outputs).to(self._units())

    def _units(self) -> Float[Tensor, "outputs outputs"]:
        """The code of every class in turn."""
        like = next(self.net[self.learners[0]].parameters())
        return torch.eye(self.problem.outputs, dtype=like.dtype, device=like.device)

    def _signals(self, codes: Float[Tensor, "rows outputs"] | None) -> Float[Tensor, "rows ..."]:
        """C(codes); None: of every class in turn, which the rule's own context knows without a product."""
        own = codes is None and not isinstance(self.target, Context)
        signals: Tensor = self.target(self._units() if own else codes)
        return signals

    def _turn(self) -> str:
        """Which stream learns now."""
        if not self.alternate:
            return "both"
        turns = self.get_buffer("turns")
        turns += 1
        return "inputs" if bool(turns % 2) else "targets"

    def _through(self, i: int, h: Tensor, t: Tensor | None, codes: Tensor | None) -> tuple[Seen, Seen | None]:
        """Both streams through block i."""
        block = self.net[i]
        if i == self.entry:
            return self.look(block, h), self._enter(codes)
        return (self.look(block, h), None) if t is None else both(block, h, t, self.look)

    def _enter(self, codes: Tensor | None) -> Seen:
        """t_1 = f(C(target))."""
        entry, signal = self.net[self.entry], self._signals(codes)
        f = entry.activation if isinstance(entry, nets.Block) else None
        out, seen = (signal, signal) if f is None else nets.observe(f, signal.clone())  # f may work in place
        return (out.detach(), signal) if self.loss == "hebbian" else (out, seen)

    def _matches(self, before: Tensor | None, codes: Tensor | None, y: Tensor) -> Tensor:
        """Which targets match each input: (batch,) their places where it is one, else (batch, rows) weights."""
        if codes is None:
            return y
        near = codes if before is None or self.loss != "top" else before.detach().flatten(1)
        kind = "all" if self.loss == "hebbian" else self.loss
        return likeness.matches(near, near, kind, self.top, self.generator)

    def _descend(self, i: int, inputs: Seen, targets: Seen, match: Tensor, turn: str) -> Tensor:
        """Block i learns from its own loss, and so do the signals where they enter."""
        (h, u), (t, v) = inputs, targets
        u, v = u.detach() if turn == "targets" else u, v.detach() if turn == "inputs" else v
        if self.loss == "hebbian":
            loss, pull = self._hebbian(h, t, u, v, match)
        else:
            loss = pull = cross_entropy(self.sharpness * cosine(u, v), match)
        if pull.requires_grad:
            pull.backward()
            parts = {f"blocks.{i}": self.net[i]} | ({"target": self.target} if i == self.learners[0] else {})
            for part, module in parts.items():  # in a turn of one stream nothing may reach a part
                if part in self.optimizers and any(p.grad is not None for p in module.parameters()):
                    self.update(part)
        return loss.detach()

    def _hebbian(self, h: Tensor, t: Tensor, u: Tensor, v: Tensor, match: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, and what has the post-synaptic factors for its derivative by u and v, the affine layers' sums."""
        scores = self.sharpness * cosine(h.detach(), t.detach())
        weights = one_hot(match, len(t)).to(h) if match.dim() == 1 else match
        posts = likeness.hebbian(h.detach().flatten(1), t.detach().flatten(1), scores, weights)
        pull = scores.new_zeros(())
        for post, out, sums in zip(posts, (h, t), (u, v), strict=True):
            held = sums if sums.dim() == out.dim() else sums.unsqueeze(1)  # sums of a static input have no time axis
            pull = pull + (post.view_as(out) * held).sum()
        return cross_entropy(scores, match), pull

    def _read_out(self, h: Tensor, y: Tensor) -> Tensor:
        """The output block learns from what the last block before it says."""
        last = len(self.net) - 1
        loss = losses(self.net[last](h), y, self.problem.kind).mean()
        if loss.requires_grad:
            loss.backward()
            self.update(f"blocks.{last}")
        return loss.detach()

    # Predictions.

    def activities(self, x: Float[Tensor, "batch ..."]) -> list[Float[Tensor, "batch units"]]:
        """What is compared with the targets, of each block that learns."""
        found = []
        for i in range(self.learners[-1] + 1):
            seen = nets.observe(self.net[i], x)
            found += [self._compared(seen)] if i in self.learners else []
            x = seen[0]
        return found

    def targets(self) -> list[Float[Tensor, "classes units"]]:
        """The classes' targets at each block that learns, of the net as it is now."""
        codes = self._units() if self.each_sample else None
        t = None if self.entry >= 0 else self._signals(codes)
        found = []
        for i in range(self.learners[-1] + 1):
            if i == self.entry:
                seen = self._enter(codes)
            elif t is None:
                continue
            else:
                seen = target_pass(self.net[i], t, nets.observe)
            found += [self._compared(seen)] if i in self.learners else []
            t = seen[0]
        return found

    def _compared(self, seen: Seen) -> Tensor:
        return (seen[0] if self.loss == "hebbian" else seen[1]).flatten(1)

    def nearest(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch classes"]:
        """Option 1: the cosine between each input and each class's target at the last block that learns."""
        return cosine(self.activities(x)[-1], self.targets()[-1])

    def adaptive(self, x: Float[Tensor, "batch ..."]) -> tuple[Float[Tensor, "batch classes"], Int[Tensor, " batch"]]:
        """Option 2: the same for the classes that the tree leads to, -1 for the others; and how many comparisons each
        input took (option 1 takes one a class)."""
        return descend(self._tree(), self.activities(x), self.margin)

    def _tree(self) -> list[Level]:
        """The tree over the targets of the net as it is now; kept until a parameter changes (not through `.data`, which
        leaves no trace) or the mode does."""
        tensors = (*self.parameters(), *self.buffers())
        version = [self.training, *((p._version, p.device, p.dtype) for p in tensors)]
        if self._grown is None or self._grown[0] != version:
            with torch.no_grad():
                self._grown = version, grow(self.targets())
        return self._grown[1]

    def finish(self) -> None:
        """Grow the tree in the mode in which it will be asked, where no random number is used up."""
        if self.problem.kind == "classification":
            training = self.training
            self.eval()
            self._tree()
            self.train(training)

    def predictors(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Option 3, which is `forward`; and, for classes, options 1 and 2."""
        if self.problem.kind == "regression":
            return {"": self.forward}
        return {"output": self.forward, "nearest": self.nearest, "adaptive": lambda x: self.adaptive(x)[0]}
