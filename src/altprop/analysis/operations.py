"""Operations of one tensor operator: a multiply-add counts as 2.

Counted are products and factorisations of matrices, and convolutions; element-wise operators count nothing
(so does `torch.outer`, which PyTorch runs as a broadcast multiplication; `torch.addr` is a product).
PyTorch's own table, `torch.utils.flop_counter.flop_registry`, is asked for whatever is not here; it lacks
in-place, vector, solve and sparse forms, and counts the weight gradient of a grouped convolution too often.

Conventions: a convolution counts its products with zero padding; a sparse matrix counts its stored values
only; factorisations count the leading order of the textbook algorithm (Golub and Van Loan, Matrix
Computations, 4th edition, 2013), whatever the library really runs. Eigen- and singular values alone count as
much as with their vectors, because PyTorch computes both while it is being traced.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils.flop_counter import flop_registry

Number = int | float
Formula = Callable[[Sequence[Any], Any], Number]
"""From the operator's arguments, in its schema's order, and its result to its operations."""


def operations(op: OpOverload, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> int | None:
    """Operations of one call of `op`; None where the operator is no product (element-wise, a view, ...)."""
    formula = FORMULAS.get(op._schema.name.removeprefix("aten::").removesuffix("_"))
    if formula is not None:
        given = [
            args[i] if i < len(args) else kwargs.get(argument.name, argument.default_value)
            for i, argument in enumerate(op._schema.arguments)
        ]
        return round(formula(given, result))
    registered = flop_registry.get(op.overloadpacket)
    return None if registered is None else int(registered(*args, **kwargs, out_val=result))


def _stored(matrix: Tensor) -> int:
    """Values that a product with this matrix touches."""
    return matrix.numel() if matrix.layout == torch.strided else matrix._nnz()


def _product(left: Tensor, right: Tensor) -> Number:
    """Matrices (one, or a batch of them) or a matrix and a vector."""
    columns = right.size(-1) if right.dim() > 1 else 1
    if left.layout == torch.strided and right.layout != torch.strided:
        return 2 * left.size(-2) * _stored(right)
    return 2 * _stored(left) * columns


def _sparse_pair(left: Tensor, right: Tensor) -> Number:
    """Two sparse matrices: what is expected when the stored values lie at random."""
    return 2 * _stored(left) * _stored(right) / max(left.size(-1), 1)


def _convolution(x: Tensor, weight: Tensor, output: Tensor, transposed: bool) -> Number:
    positions = (x if transposed else output).shape[2:]
    return 2 * len(x) * prod(positions) * weight.numel()


def _convolution_backward(args: Sequence[Any], _: Any) -> Number:
    gradient, x, weight, transposed, wanted = args[0], args[1], args[2], args[7], args[10]
    return (int(wanted[0]) + int(wanted[1])) * _convolution(x, weight, gradient, transposed)


def _sides(matrix: Tensor) -> tuple[int, int, int]:
    """(number of matrices, longer side, shorter side)"""
    rows, columns = matrix.shape[-2:]
    return prod(matrix.shape[:-2]), max(rows, columns), min(rows, columns)


def _cubic(factor: Number, position: int = 0) -> Formula:
    """`factor` n^3 for a square matrix at this position of the arguments."""
    return lambda args, _: factor * _sides(args[position])[0] * args[position].size(-1) ** 3


def _solve(factor: Number, matrix: int, right: int) -> Formula:
    """`factor` n for each value of the right-hand side, once the factors are there."""
    return lambda args, _: factor * args[matrix].size(-1) * args[right].numel()


def _householder(matrix: Tensor) -> Number:
    count, longer, shorter = _sides(matrix)
    return 2 * count * shorter**2 * (longer - shorter / 3)


def _lstsq(matrix: Tensor, right: Tensor) -> Number:
    _, longer, shorter = _sides(matrix)
    return _householder(matrix) + right.numel() / longer * (4 * longer * shorter - shorter**2)


def _svd(matrix: Tensor) -> Number:
    count, longer, shorter = _sides(matrix)
    return count * (14 * longer * shorter**2 + 8 * shorter**3)


def _attention(query: Tensor, key: Tensor, value: Tensor) -> Number:
    """The scores, (batch, heads, queries, keys), then the means of the values."""
    scores = prod(query.shape[:-1]) * key.size(-2)
    return 2 * scores * (query.size(-1) + value.size(-1))


FORMULAS: dict[str, Formula] = {
    "mm": lambda a, _: _product(a[0], a[1]),
    "mv": lambda a, _: _product(a[0], a[1]),
    "bmm": lambda a, _: _product(a[0], a[1]),
    "_sparse_mm": lambda a, _: _product(a[0], a[1]),
    "addmm": lambda a, _: _product(a[1], a[2]),
    "_addmm_activation": lambda a, _: _product(a[1], a[2]),
    "addmv": lambda a, _: _product(a[1], a[2]),
    "addbmm": lambda a, _: _product(a[1], a[2]),
    "baddbmm": lambda a, _: _product(a[1], a[2]),
    "_sparse_addmm": lambda a, _: _product(a[1], a[2]),
    "_sparse_sparse_matmul": lambda a, _: _sparse_pair(a[0], a[1]),
    "sparse_sampled_addmm": lambda a, _: 2 * _stored(a[0]) * a[1].size(-1),
    "dot": lambda a, _: 2 * a[0].numel(),
    "vdot": lambda a, _: 2 * a[0].numel(),
    "addr": lambda a, _: 2 * a[1].numel() * a[2].numel(),
    "linear": lambda a, _: 2 * a[0].numel() * a[1].size(0),
    "_euclidean_dist": lambda a, _: 2 * a[0].numel() * a[1].size(-2),
    "_cdist_forward": lambda a, _: 2 * a[0].numel() * a[1].size(-2),
    "convolution_backward": _convolution_backward,
    "mkldnn_rnn_layer": lambda a, _: 2 * prod(a[0].shape[:2]) * (a[1].numel() + a[2].numel()),
    "_scaled_dot_product_flash_attention_for_cpu": lambda a, _: _attention(a[0], a[1], a[2]),
    # Backward: two products for each of the two forward ones, and the scores once more.
    "_scaled_dot_product_flash_attention_for_cpu_backward": lambda a, _: 2.5 * _attention(a[1], a[2], a[3]),
    "linalg_cholesky_ex": _cubic(1 / 3),
    "linalg_ldl_factor_ex": _cubic(1 / 3),
    "cholesky_inverse": _cubic(2 / 3),
    "linalg_lu_factor_ex": _cubic(2 / 3),
    "_linalg_det": _cubic(2 / 3),
    "_linalg_slogdet": _cubic(2 / 3),
    "linalg_inv_ex": _cubic(2),
    "linalg_eig": _cubic(25),
    "_linalg_eigvals": _cubic(10),
    "_linalg_eigh": _cubic(9),
    "_linalg_solve_ex": lambda a, _: _cubic(2 / 3)(a, _) + _solve(2, 0, 1)(a, _),
    "cholesky_solve": _solve(2, 1, 0),
    "linalg_lu_solve": _solve(2, 0, 2),
    "linalg_ldl_solve": _solve(2, 0, 2),
    "linalg_solve_triangular": _solve(1, 0, 1),
    "triangular_solve": _solve(1, 1, 0),
    "linalg_qr": lambda a, _: _householder(a[0]) * (1 if a[1] == "r" else 2),
    "geqrf": lambda a, _: _householder(a[0]),
    "linalg_householder_product": lambda a, _: _householder(a[0]),
    "linalg_lstsq": lambda a, _: _lstsq(a[0], a[1]),
    "_linalg_svd": lambda a, _: _svd(a[0]),
    "linalg_pinv": lambda a, _: _svd(a[0]) + 2 * a[0].numel() * min(a[0].shape[-2:]),
}
"""One line an operator, in-place and `out=` variants included."""
