"""Local receptive fields without weight sharing: a convolution's geometry, but every place has weights of its own.

After Hinton 2022 (arXiv 2212.13345, sections 3.2 and 4). One batched product over the places does the work.
Around it the batch stays innermost in memory: windows are copied, and their gradients added up, in runs of at least
a whole batch, and one layer reads what the layer before it wrote without a transposition.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from altprop.errors import UsageError
from altprop.nets.initialise import initialise


class Local(nn.Module):
    """A locally connected layer: (batch, in_channels, height, width) to (batch, out_channels, rows, columns).

    Arguments:
        size: (height, width) of the image; every place has its own weights, so it cannot change later.
        kernel_size, stride, padding: of the square fields, in pixels, as in `nn.Conv2d`.
        init, generator: how the weights are filled; see `initialise`. Seed 0 if no generator is given.

    Attributes:
        weight: (places * out_channels, in_channels * kernel_size^2), a row a unit, place by place; the columns are in
            the order of `nn.Conv2d`'s kernel.
        bias: (places * out_channels,), or None.
        grid: (rows, columns) of the places.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: tuple[int, int],
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        *,
        bias: bool = True,
        init: str = "lecun",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if min(in_channels, out_channels, *size, kernel_size, stride, padding + 1) < 1:
            raise UsageError(
                f"Local({in_channels}, {out_channels}, {size}, {kernel_size}, {stride}, {padding}): channels, sizes, "
                "kernel and stride must be positive, and the padding not negative"
            )
        if kernel_size > min(size) + 2 * padding:
            raise UsageError(
                f"fields of {kernel_size}x{kernel_size} do not fit into an image of {size[0]}x{size[1]} with a padding "
                f"of {padding}; take smaller fields or fewer layers"
            )
        self.in_channels, self.out_channels, self.size = in_channels, out_channels, size
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.grid = tuple((n + 2 * padding - kernel_size) // stride + 1 for n in size)
        units = self.grid[0] * self.grid[1] * out_channels
        self.weight = nn.Parameter(torch.empty(units, in_channels * kernel_size**2))
        self.bias = nn.Parameter(torch.empty(units)) if bias else None
        initialise(self, init, generator if generator is not None else torch.Generator().manual_seed(0))

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch out rows columns"]:
        return self._over_places(x, slice(None), self.bias)

    def map(
        self, x: Float[Tensor, "batch channels height width"], channels: slice = slice(None)
    ) -> Float[Tensor, "batch out rows columns"]:
        """The part of the sum that comes from some of the input channels (x holds just those), without the bias."""
        return self._over_places(x, channels, None)

    def _over_places(self, x: Tensor, channels: slice, bias: Tensor | None) -> Tensor:
        first, last, _ = channels.indices(self.in_channels)
        if x.shape[1:] != (last - first, *self.size):
            raise UsageError(
                f"a locally connected layer takes ({last - first}, {self.size[0]}, {self.size[1]}) a sample, not "
                f"{tuple(x.shape[1:])}: build it for this image size"
            )
        area = self.kernel_size**2
        weight = self.weight.view(-1, self.out_channels, self.in_channels * area)[:, :, first * area : last * area]
        seen = _Windows.apply(x, self.kernel_size, self.stride, self.padding)  # type: ignore[no-untyped-call]
        if bias is None:
            z = torch.bmm(weight, seen)
        else:
            z = torch.baddbmm(bias.view(-1, self.out_channels, 1), weight, seen)
        return z.view(*self.grid, self.out_channels, len(x)).permute(3, 2, 0, 1)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, size={self.size}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding}, bias={self.bias is not None}"
        )


def windows(
    x: Float[Tensor, "batch channels height width"], kernel: int, stride: int, padding: int
) -> Float[Tensor, "places inputs batch"]:
    """What every place sees, the batch innermost."""
    x = x.permute(1, 2, 3, 0)
    if padding:
        x = nn.functional.pad(x, (0, 0, padding, padding, padding, padding))
    elif x.stride(3) != 1:
        x = x.contiguous()
    seen = x.unfold(1, kernel, stride).unfold(2, kernel, stride).permute(1, 2, 0, 4, 5, 3)
    rows, columns, channels, _, _, batch = seen.shape
    return seen.reshape(rows * columns, channels * kernel**2, batch)


def overlaid(
    seen: Float[Tensor, "places inputs batch"], shape: tuple[int, ...], kernel: int, stride: int, padding: int
) -> Float[Tensor, "batch channels height width"]:
    """The adjoint of `windows`: every pixel of an image of this shape is the sum of what the places hold for it."""
    batch, channels, height, width = shape
    x = seen.new_zeros(height + 2 * padding, width + 2 * padding, channels, batch).permute(2, 0, 1, 3)
    rows, columns = ((n - kernel) // stride + 1 for n in x.shape[1:3])
    seen = seen.view(rows, columns, channels, kernel, kernel, batch)
    if rows * columns <= kernel**2:  # the fewer sums, the faster
        for i in range(rows):
            for j in range(columns):
                x[:, i * stride : i * stride + kernel, j * stride : j * stride + kernel] += seen[i, j]
    else:
        for i in range(kernel):
            for j in range(kernel):
                places = x[:, i : i + stride * rows : stride, j : j + stride * columns : stride]
                places[:, :rows, :columns] += seen[:, :, :, i, j].permute(2, 0, 1, 3)
    return x[:, padding : padding + height, padding : padding + width].permute(3, 0, 1, 2)


class _Windows(torch.autograd.Function):
    """`windows`, with `overlaid` for its derivative: PyTorch's own, that of `unfold` twice, takes ten times as long."""

    @staticmethod
    def forward(x: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
        return windows(x, kernel, stride, padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, *ctx.geometry = inputs
        ctx.shape = tuple(x.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _Overlaid.apply(gradient, ctx.shape, *ctx.geometry), None, None, None  # type: ignore[no-untyped-call]

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        return windows(tangent, *ctx.geometry)


class _Overlaid(torch.autograd.Function):
    """`overlaid`, with `windows` for its derivative."""

    @staticmethod
    def forward(seen: Tensor, shape: tuple[int, ...], kernel: int, stride: int, padding: int) -> Tensor:
        return overlaid(seen.contiguous(), shape, kernel, stride, padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.geometry = inputs[2:]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        return _Windows.apply(gradient, *ctx.geometry), None, None, None, None  # type: ignore[no-untyped-call]
