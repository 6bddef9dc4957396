"""What a product contracts with a parameter's input dimension: the activations that a forward pass feeds it.

A parameter W (outputs, inputs), or a convolution's kernel flattened to that, maps activations a to W a. A
change of W whose rows are orthogonal to every such a leaves the forward pass of this batch as it was.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import unfold

_PAIRS = {
    "mm": (0, 1), "bmm": (0, 1), "mv": (0, 1), "dot": (0, 1), "_sparse_mm": (0, 1),
    "addmm": (1, 2), "addmv": (1, 2), "addbmm": (1, 2), "baddbmm": (1, 2),
    "_addmm_activation": (1, 2), "_sparse_addmm": (1, 2),
}  # fmt: skip
"""Where the left and the right operand stand."""


def forward_operands(
    op: str, args: Sequence[Any], owners: Callable[[Tensor], Sequence[tuple[str, Tensor]]]
) -> Iterator[tuple[str, Tensor]]:
    """(parameter name, its other operand as (rows, inputs)) for the forward products among `op`'s operands.

    `owners` gives the parameters, with their names, in whose storage a tensor lies. Backward products
    (gradient @ W, a transposed convolution) contract the output dimension and yield nothing.
    """
    if op == "convolution":
        x, weight, _, stride, padding, dilation, transposed, _, groups = args
        if not transposed and weight.dim() in (3, 4):
            seen = patches(x, weight.shape[2:], stride, padding, dilation, groups)
            yield from ((name, seen) for name, _ in owners(weight))
    elif op in _PAIRS:
        left, right = (args[i] for i in _PAIRS[op])
        for matrix, axis, other, facing in ((left, -1, right, -2), (right, -2, left, -1)):
            for name, parameter in owners(matrix):
                rows = _contracted(matrix, axis, parameter, other, facing)
                if rows is not None:
                    yield name, rows


def patches(
    x: Float[Tensor, "batch channels ..."],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Float[Tensor, "rows inputs"]:
    """What each position of a 1- or 2-dimensional convolution sees: (batch * positions * groups, inputs)."""
    if len(kernel) == 1:  # as an image of height 1
        x, kernel, stride = x.unsqueeze(2), (1, *kernel), (1, *stride)
        padding, dilation = (0, *padding), (1, *dilation)
    columns = unfold(x, tuple(kernel), tuple(dilation), tuple(padding), tuple(stride))
    return columns.transpose(1, 2).reshape(columns.size(0) * columns.size(2) * groups, -1)


def _contracted(matrix: Tensor, axis: int, parameter: Tensor, other: Tensor, facing: int) -> Tensor | None:
    """`other`, contracted along `facing`, as rows over the parameter's inputs.

    None if `matrix`, a view of the parameter, is contracted along something else. A vector has one axis only.
    """
    axis, facing = max(axis, -matrix.dim()), max(facing, -other.dim())
    if parameter.dim() < 2 or matrix.layout != torch.strided or matrix.stride(axis) != parameter.stride(-1):
        return None
    inputs, size = parameter[0].numel(), matrix.size(axis)
    if other.layout != torch.strided:
        other = other.to_dense()
    rows = other.movedim(facing, -1).reshape(-1, size)
    if size == inputs:
        return rows
    first = (matrix.storage_offset() - parameter.storage_offset()) % max(parameter.stride(0), 1)
    if not parameter.is_contiguous() or first + size > inputs:
        return None
    whole = torch.zeros(len(rows), inputs, dtype=rows.dtype, device=rows.device)
    whole[:, first : first + size] = rows  # a product with some of W's columns
    return whole
