"""Recorded products, so that they can be run again by themselves: the floor of a step's time."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._pytree import tree_leaves, tree_map

from altprop.errors import UsageError


@dataclass(frozen=True)
class Layout:
    """A tensor without its values: what decides how long a product takes."""

    shape: tuple[int, ...]
    stride: tuple[int, ...] | None
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, tensor: Tensor) -> "Layout":
        stride = tensor.stride() if tensor.layout == torch.strided else None
        return cls(tuple(tensor.shape), stride, tensor.dtype, tensor.device)

    def make(self, generator: torch.Generator) -> Tensor:
        """A tensor of this layout with normal values (zeros for integers)."""
        if self.stride is None:
            raise UsageError("a product with a sparse matrix cannot be replayed: only dense layouts are kept")
        extent = 1 + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))
        if self.dtype.is_floating_point or self.dtype.is_complex:
            values = torch.randn(max(extent, 0), generator=generator, dtype=self.dtype).to(self.device)
        else:
            values = torch.zeros(max(extent, 0), dtype=self.dtype, device=self.device)
        return values.as_strided(self.shape, self.stride)


@dataclass(frozen=True)
class Product:
    """One product of a step: the operator, its arguments with a `Layout` for each tensor, its operations."""

    op: OpOverload
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    operations: int

    @classmethod
    def of(cls, op: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any], operations: int) -> "Product":
        bare = partial(tree_map, lambda a: Layout.of(a) if isinstance(a, Tensor) else a)
        return cls(op, bare(args), bare(kwargs), operations)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the tensor arguments, in order."""
        return tuple(a.shape for a in tree_leaves((self.args, self.kwargs)) if isinstance(a, Layout))

    @property
    def dtypes(self) -> tuple[torch.dtype, ...]:
        """Element types of the tensor arguments, in order."""
        return tuple(a.dtype for a in tree_leaves((self.args, self.kwargs)) if isinstance(a, Layout))

    def prepare(self, generator: torch.Generator) -> Callable[[], Any]:
        """The same product on fresh operands of the same layout; call the result as often as wanted."""
        fill = partial(tree_map, lambda a: a.make(generator) if isinstance(a, Layout) else a)
        return partial(self.op, *fill(self.args), **fill(self.kwargs))
