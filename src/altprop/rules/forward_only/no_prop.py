"""NoProp: every block learns by itself to tell a noisy label from the input; nothing passes from block to block.

Li, Teh & Pascanu 2025 (arXiv 2503.24322), in discrete time (NoProp-DT). T steps, one a block; class embeddings u_m;
z_t is the label's embedding under noise that falls with t (see `denoising`), s_t its signal. Step t has a predictor
of its own, on the input x and z_{t-1}:

    p_t = softmax(H_t [F_t(E_t(x)), z_{t-1}]),      û_t = sum_m p_tm u_m
    L = -log p(y | z_T) + eta/2 sum_t (SNR_t - SNR_{t-1}) |û_t - u_y|^2,      SNR_t = s_t / (1 - s_t)
    prediction: z_t = a_t û_t(x, z_{t-1}) + b_t z_{t-1} for t = 1..T, then the classifier p(y | z_T)

F_t is the net's block, E_t an embedding of x in the shape that F_t takes (none for the first block, which takes x), H_t
linear. While learning, z_t is drawn around the true u_y, so that no step waits for another one. Given the class, x and
z_{t-1} are independent, so that their log-odds add up, and those of z_{t-1} are linear in it: H_t loses nothing.

Departures from the paper:
1. A step is E_t, a block of the net and H_t; the paper's steps are deeper nets, in which layers mix x and z.
2. Predictions follow the means, from z_0 = 0 and without noise, so that they are the same each time.
3. Every batch trains all steps: a sum over t stands for T times the mean over a random t. The paper trains one step
   after the other, and with it the classifier and the embeddings each time.
4. The signal starts at 0 exactly (z_0 is pure noise), so that the paper's divergence of z_0 from its prior is 0.
5. Embeddings that are learnt start normal with variance 1 / embedding. The weights of the classifier start at the
   embeddings, so that its first choice is the class whose embedding is most like z_T.
"""

import math
from itertools import pairwise
from math import prod
from typing import Any

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Claims, Metrics, Problem, Rule
from altprop.rules.forward_only.denoising import cosine_signal, denoising_steps


class NoProp(Rule):
    """NoProp in discrete time (Li, Teh & Pascanu 2025), one denoising step a block, without an output block.

    A block without parameters belongs to the step before it; those before the first step shape the input for all.

    Arguments:
        embedding: size of learnt class embeddings; None: one-hot and fixed.
        eta: weight of the squared errors beside the classifier's cross-entropy.
        The others are those of `Rule`; the parts are "blocks.0", ..., "entries.1", ... (E_t), "heads.0", ... (H_t),
        "head" (the classifier), and "embedding" where it is learnt.

    Raises UsageError for a regression, and for a net with an output block or without parameters.
    """

    claims = Claims(
        later_blocks="none",
        forward_lock=False,
        update_lock=False,
        order="forward",
        differentiable=True,
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
        embedding: int | None = None,
        eta: float = 0.1,
        **options: Any,
    ) -> None:
        super().__init__(net, problem, **options)
        if not eta >= 0 or (embedding is not None and embedding < 1):
            raise UsageError(f"NoProp: eta={eta} must not be below 0, and embedding={embedding} be 1 or more, or None")
        self.eta = eta
        self.starts = [i for i, block in enumerate(net) if any(True for _ in block.parameters())]
        self.signal = cosine_signal(len(self.starts))
        self.steps = denoising_steps(self.signal)
        classes, like, draw = self.problem.outputs, next(net.parameters()), self.generator
        self.size = classes if embedding is None else embedding
        self.entries, self.heads, self.embedding = nn.ModuleDict(), nn.ModuleDict(), nn.ParameterList()
        shapes = [self.problem.input_shape, *nets.shapes(net, self.problem.input_shape)]
        seen = tuple(int(n or 0) for n in shapes[self.starts[0]])
        for i, end in pairwise([*self.starts, len(net)]):
            if i != self.starts[0]:
                self.entries[str(i)] = embed(seen, shapes[i], draw).to(like)
                self.add_part(f"entries.{i}", self.entries[str(i)])
            features = prod(int(n or 0) for n in shapes[end])
            self.heads[str(i)] = nets.linear(features + self.size, classes, "lecun", draw).to(like)
            self.add_part(f"heads.{i}", self.heads[str(i)])
        self.head = nets.linear(self.size, classes, "lecun", draw).to(like)
        self.add_part("head", self.head)
        if embedding is not None:
            u = torch.randn(classes, embedding, generator=draw) / embedding**0.5
            self.embedding.append(u.to(like))
            self.add_part("embedding", self.embedding)
        self.assign(self.head.weight, self._embed(torch.arange(classes, device=like.device)))

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        if problem.kind == "regression":
            return "its steps denoise the embedding of a class, and a regression has none; choose another rule"
        if nets.output_layer(net) is not None:
            return "it brings a classifier for every step and one for the end; build the net without classes"
        if not any(True for _ in net.parameters()):
            return "it needs a block with parameters (build the net with altprop.nets and a hidden width)"
        return None

    @torch.enable_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        """The loss is L; "classifier" is its first term."""
        assert y is not None
        x, local = self._seen(x.detach()), x.new_zeros(())
        for t, (i, step) in enumerate(zip(self.starts, self.steps, strict=True)):
            guess = self._denoise(i, x, self._noisy(y, t))
            error = (guess - self._embed(y)).square().sum(1).mean()
            parts = f"blocks.{i}", f"entries.{i}", f"heads.{i}"
            local += self._descend(self.eta / 2 * step.rise * error, *parts)
        scores = self.head(self._noisy(y, len(self.steps)))
        loss = self._descend(nn.functional.cross_entropy(scores, y), "head", "embedding")
        return {"loss": loss + local, "classifier": loss}

    def _descend(self, loss: Float[Tensor, ""], *parts: str) -> Float[Tensor, ""]:
        """These parts learn; the embeddings gather gradients from every step until it is their turn."""
        loss.backward()
        for part in parts:
            if part in self.optimizers:
                self.update(part)
        return loss.detach()

    def _embed(self, y: Int64[Tensor, " batch"]) -> Float[Tensor, "batch size"]:
        """u_y."""
        if len(self.embedding):
            found: Tensor = self.embedding[0][y]
            return found
        return nn.functional.one_hot(y, self.size).to(self.head.weight)

    def _noisy(self, y: Int64[Tensor, " batch"], t: int) -> Float[Tensor, "batch size"]:
        """z_t, drawn around the true label's embedding."""
        noise = torch.randn(len(y), self.size, generator=self.generator).to(self.head.weight)
        return math.sqrt(self.signal[t]) * self._embed(y) + math.sqrt(1 - self.signal[t]) * noise

    def _seen(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """The input as all steps see it."""
        for block in list(self.net)[: self.starts[0]]:
            x = block(x)
        return x

    def _denoise(self, i: int, x: Float[Tensor, "batch ..."], z: Float[Tensor, "batch size"]) -> Tensor:
        """û of the step that begins with block i."""
        h = self.entries[str(i)](x) if str(i) in self.entries else x
        end = next((start for start in self.starts if start > i), len(self.net))
        for block in list(self.net)[i:end]:
            h = block(h)
        p: Tensor = self.heads[str(i)](torch.cat([h.flatten(1), z], 1)).softmax(1)
        return p @ self.embedding[0] if len(self.embedding) else p

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch classes"]:
        """From z_0 = 0 along the means, and then the classifier."""
        x, z = self._seen(x), x.new_zeros(len(x), self.size)
        for i, step in zip(self.starts, self.steps, strict=True):
            z = step.a * self._denoise(i, x, z) + step.b * z
        scores: Tensor = self.head(z)
        return scores


def embed(seen: tuple[int, ...], taken: tuple[int | None, ...], generator: torch.Generator) -> nn.Sequential:
    """E_t, from the input to the shape that a block takes: for images a convolution and a pooling, else a linear layer;
    and a ReLU."""
    shape = tuple(int(n or 0) for n in taken)
    if len(seen) == len(shape) == 3:
        layer: nn.Module = nn.utils.skip_init(nn.Conv2d, seen[0], shape[0], 3, padding=1)
        nets.initialise(layer, "kaiming", generator)
        return nn.Sequential(layer, nn.ReLU(), nn.AdaptiveMaxPool2d(shape[1:]))
    layer = nets.linear(prod(seen), prod(shape), "kaiming", generator)
    return nn.Sequential(nn.Flatten(), layer, nn.ReLU(), nn.Unflatten(1, shape))
