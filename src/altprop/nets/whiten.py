"""Blocks that take the mean, or all correlations, out of what they are given: what PCA and ICA ask of their input.

Statistics are running ones, gathered while training and still in evaluation. A whitening matrix is computed anew at the
batches 1, 2, 5, 10, 20, 50, 100 and so on, so that it costs little in the long run. With C = V diag(l) V^T:

    ZCA  z = V diag(l + eps mean l)^-1/2 V^T (x - mean)        as many outputs as inputs, the nearest to them
    PCA  z = R diag(l + eps mean l)^-1/2 V^T (x - mean)        of the k largest l only

R is a rotation, the one that brings a new matrix nearest to the one before: units behind it need not start anew.
"""

from collections.abc import Callable, Sequence
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from altprop.errors import UsageError
from altprop.nets.block import affine, shapes


class Centre(nn.Module):
    """Subtracts the running mean of its input, place by place.

    Arguments:
        shape: of one sample.
        memory: samples that the mean looks back on, where its input changes while it learns; all, if left out.
    """

    mean: Tensor
    samples: Tensor

    def __init__(self, shape: Sequence[int], memory: int | None = None) -> None:
        super().__init__()
        if memory is not None and memory < 1:
            raise UsageError(f"{type(self).__name__}(memory={memory}): give at least one sample, or leave it out")
        self.memory = memory
        self.register_buffer("mean", torch.zeros(*shape))
        self.register_buffer("samples", torch.zeros(()))

    @torch.no_grad()
    def gather(self, x: Float[Tensor, "batch ..."]) -> None:
        self.mean.add_((x - self.mean).mean(0).mul_(self._share(x)))

    def _share(self, x: Float[Tensor, "batch ..."]) -> Tensor:
        """How much of the new statistics is this batch's."""
        self.samples.add_(len(x)).clamp_(max=float("inf") if self.memory is None else self.memory)
        return (len(x) / self.samples).clamp_(max=1.0)

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        if self.training:
            self.gather(x)
        return x - self.mean


class Whiten(Centre):
    """Takes the running mean and all correlations out of its input: outputs of variance 1, and none with another.

    Arguments:
        shape: of one sample; an image is taken as a row of pixels.
        outputs: PCA to so many; ZCA, in the shape of the input, if left out.
        eps: what is added to each variance, in units of their mean: less, and what hardly varies is blown up more. At
            least 1 until there have been twice as many samples as inputs.
        memory: as in `Centre`.
    """

    covariance: Tensor
    matrix: Tensor
    batches: Tensor

    def __init__(
        self, shape: Sequence[int], outputs: int | None = None, eps: float = 1e-2, memory: int | None = None
    ) -> None:
        super().__init__(shape, memory)
        inputs = prod(shape)
        if inputs > LARGEST:
            raise UsageError(
                f"Whiten: samples of shape {tuple(shape)} have {inputs:,} values, and a covariance the square of that "
                f"(up to {LARGEST:,} values are whitened); take nets.Centre, or whiten before a layer that sees fewer"
            )
        if eps <= 0 or not 1 <= (inputs if outputs is None else outputs) <= inputs:
            raise UsageError(
                f"Whiten(outputs={outputs}, eps={eps}): give 1 to {inputs} outputs, or none, and an eps above 0"
            )
        self.outputs, self.eps = outputs, eps
        self.register_buffer("covariance", torch.zeros(inputs, inputs))
        self.register_buffer("matrix", torch.eye(inputs)[:outputs].clone())
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def gather(self, x: Float[Tensor, "batch ..."]) -> None:
        away = (x - self.mean).flatten(1)
        share = self._share(x)
        shift = share * away.mean(0)
        self.covariance.mul_(1 - share).add_(share / len(x) * (away.T @ away)).addr_(shift, shift, alpha=-1)
        self.mean.add_(shift.view_as(self.mean))
        self.batches.add_(1)
        if due(int(self.batches)):
            self.matrix.copy_(self._fitted())

    def _fitted(self) -> Float[Tensor, "outputs inputs"]:
        if not self.covariance.trace() > 0:  # nothing varies yet
            return self.matrix
        # In float32 the decomposition fails on the covariance of images, most of whose eigenvalues are 0.
        sizes, vectors = torch.linalg.eigh(self.covariance.double())
        size = sizes.mean()
        few = bool(self.samples < 2 * len(sizes))
        gains = (sizes.clamp_min(0.0) + (max(self.eps, 1.0) if few else self.eps) * size).rsqrt_()
        if self.outputs is None:
            matrix: Tensor = (vectors * gains) @ vectors.T
            return matrix
        matrix = (vectors * gains).T[-self.outputs :]
        left, _, right = torch.linalg.svd(self.matrix.double() @ matrix.T)
        turned: Tensor = left @ right @ matrix
        return turned

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        z = super().forward(x).flatten(1) @ self.matrix.T
        return z if self.outputs is not None else z.view_as(x)


LARGEST = 4096


def due(batch: int) -> bool:
    """Whether it is one of 1, 2, 5, 10, 20, 50, 100, ..."""
    while batch >= 10 and batch % 10 == 0:
        batch //= 10
    return batch in (1, 2, 5)


def centred(net: nn.Sequential, shape: Sequence[int], memory: int | None = None) -> nn.Sequential:
    """The same blocks, with a `Centre` before each one that has a layer. shape: of one sample."""
    return _prepared(net, shape, lambda size: Centre(size, memory))


def whitened(net: nn.Sequential, shape: Sequence[int], eps: float = 1e-2, memory: int | None = None) -> nn.Sequential:
    """The same blocks, with a `Whiten` (ZCA) before each one that has a layer. shape: of one sample."""
    return _prepared(net, shape, lambda size: Whiten(size, None, eps, memory))


def _prepared(net: nn.Sequential, shape: Sequence[int], make: Callable[[tuple[int, ...]], Centre]) -> nn.Sequential:
    found: list[nn.Module] = []
    for block, size in zip(net, [tuple(shape), *shapes(net, tuple(shape))], strict=False):
        if affine(block) is not None and not (found and isinstance(found[-1], Centre)):
            found.append(make(size).to(next(net.parameters())))
        found.append(block)
    return nn.Sequential(*found)
