"""One step of a rule, seen from below autograd: operations, live bytes, and who touches which parameter when.

A `TorchDispatchMode` sees every operator under `no_grad`, in autograd's backward pass and under `torch.func`.
Saved-tensor hooks and `FlopCounterMode` were tried first: the former are blind to hand-written products and
refuse `torch.func.vjp`, the latter misses `addmm_` and others. Not seen: what one operator allocates and
frees inside itself, and the inside of compiled blocks.
"""

import weakref
from collections.abc import Mapping
from functools import cache, partial
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from altprop.analysis.operands import forward_operands
from altprop.analysis.operations import operations
from altprop.analysis.products import Product


class Access(NamedTuple):
    """One operator that touched a parameter; one that writes may read as well."""

    kind: Literal["read", "write"]
    parameter: str
    op: str


class Trace(TorchDispatchMode):
    """Records what runs inside `with Trace(dict(rule.named_parameters())) as trace:`.

    Arguments:
        parameters: watched tensors by name. They count by storage: a view of W is W, tied ones are all
            touched.
        keep_operands: fill `operands` (a copy of every activation that meets a watched parameter).

    Attributes, in order of time:
        operations: of all products; element-wise operators count 0 (see `altprop.analysis.operations`).
        products: every recorded product, ready to be replayed.
        peak_bytes: the most bytes alive at once in storages created since the trace began. What was there
            before (parameters, optimizer state, the batch) does not count; an optimizer creates its state in
            the first step, so trace the second.
        accesses: reads and writes of the parameters; making a view, or a tensor of that shape, is neither.
        operands: for each parameter the matrices (rows, inputs) that met its input dimension.
    """

    def __init__(self, parameters: Mapping[str, Tensor], *, keep_operands: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = 0
        self.products: list[Product] = []
        self.peak_bytes = 0
        self.accesses: list[Access] = []
        self.operands: dict[str, list[Float[Tensor, "rows inputs"]]] = {name: [] for name in parameters}
        self._keep_operands = keep_operands
        self._live_bytes = 0
        self._created: dict[int, tuple[weakref.ref[Any], int]] = {}
        self._watched: dict[int, list[tuple[str, Tensor]]] = {}
        for name, parameter in parameters.items():
            for storage in storages(parameter):
                self._watched.setdefault(storage._cdata, []).append((name, parameter.detach()))

    def __enter__(self) -> "Trace":
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if is_composite(func):  # inference mode hands these over whole
            with self:
                return func.decompose(*args, **kwargs)
        result = func(*args, **kwargs)
        touched = touches(func, args, kwargs)
        self._measure(func, touched, result)
        self._note_accesses(func, touched)
        count = operations(func, args, kwargs, result)
        if count is not None:
            self.operations += count
            self.products.append(Product.of(func, args, kwargs, count))
            if self._keep_operands:
                self._note_operands(func, args)
        return result

    def _measure(self, func: OpOverload, touched: list[tuple[bool, int]], result: Any) -> None:
        known = {key for _, key in touched}
        if func is torch.ops.aten.lift_fresh.default:  # torch.tensor(...) allocates before it is seen
            known.clear()
        for storage in storages(result):
            key, size = storage._cdata, storage.nbytes()
            if key in self._created:
                reference, before = self._created[key]  # resized in place, if the size differs
            elif key not in known and key not in self._watched:
                reference, before = weakref.ref(storage, partial(self._free, key)), 0
            else:
                continue
            self._created[key] = (reference, size)
            self._live_bytes += size - before
        self.peak_bytes = max(self.peak_bytes, self._live_bytes)

    def _free(self, key: int, _: object) -> None:
        self._live_bytes -= self._created.pop(key)[1]

    def _note_accesses(self, func: OpOverload, touched: list[tuple[bool, int]]) -> None:
        if func.is_view or is_shape_only(func):
            return
        for written, key in sorted(touched, key=lambda t: t[0]):  # an operator reads before it writes
            for name, _ in self._watched.get(key, ()):
                self.accesses.append(Access("write" if written else "read", name, func._schema.name))

    @torch.no_grad()
    def _note_operands(self, func: OpOverload, args: tuple[Any, ...]) -> None:
        op = func._schema.name.removeprefix("aten::").removesuffix("_")
        for name, rows in forward_operands(op, args, self._owners):
            self.operands[name].append(rows.detach().clone())

    def _owners(self, tensor: Tensor) -> list[tuple[str, Tensor]]:
        return [owner for storage in storages(tensor) for owner in self._watched.get(storage._cdata, ())]


def touches(func: OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[tuple[bool, int]]:
    """Whether it is written, and the key, of each storage among an operator's arguments, lists included."""
    found = []
    for i, argument in enumerate(func._schema.arguments):
        value = args[i] if i < len(args) else kwargs.get(argument.name)
        if isinstance(value, Tensor | list | tuple):
            written = argument.alias_info is not None and argument.alias_info.is_write
            found += [(written, storage._cdata) for storage in storages(value)]
    return found


def storages(value: Any) -> list[torch.UntypedStorage]:
    """Where the values of a tensor lie (one storage, or those of a sparse tensor's parts), or of all in a list."""
    if isinstance(value, list | tuple):
        return [storage for item in value for storage in storages(item)]
    if not isinstance(value, Tensor):
        return []
    if value.layout == torch.strided:
        return [value.untyped_storage()]
    if value.layout == torch.sparse_coo:
        return storages([value._indices(), value._values()])
    if value.layout in (torch.sparse_csr, torch.sparse_bsr):
        return storages([value.crow_indices(), value.col_indices(), value.values()])
    if value.layout in (torch.sparse_csc, torch.sparse_bsc):
        return storages([value.ccol_indices(), value.row_indices(), value.values()])
    return []  # opaque layouts of other libraries


@cache
def is_shape_only(func: OpOverload) -> bool:
    """Operators that look at a tensor's shape and never at its values."""
    name = func._schema.name.removeprefix("aten::")
    return name.endswith("_like") or name.startswith("new_") or name in ("_unsafe_view", "is_same_size")


@cache
def is_composite(func: OpOverload) -> bool:
    """Operators that are nothing but other operators in a row."""
    name = func._schema.name + (f".{func._schema.overload_name}" if func._schema.overload_name else "")
    return torch._C._dispatch_has_kernel_for_dispatch_key(name, "CompositeImplicitAutograd")
