"""The tracer against counts by hand."""

import gc
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from altprop.analysis.trace import Access, Trace

B, M, N, K = 3, 5, 7, 4


def rand(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def traced(run: Callable[[], object], parameters: dict[str, Tensor] | None = None, **options: bool) -> Trace:
    with Trace(parameters or {}, **options) as trace:
        run()
    return trace


def spd(n: int) -> Tensor:
    return torch.eye(n) * 2


def sparse() -> Tensor:
    """(M, N) with 3 stored values."""
    return torch.sparse_coo_tensor([[0, 1, 4], [2, 0, 6]], [1.0, 2.0, 3.0], (M, N), check_invariants=True)


HAND_COUNTS = {
    "mm": (lambda: rand(M, N) @ rand(N, K), 2 * M * N * K),
    "mm out": (lambda: torch.mm(rand(M, N), rand(N, K), out=torch.empty(M, K)), 2 * M * N * K),
    "addmm": (lambda: torch.addmm(rand(K), rand(M, N), rand(N, K)), 2 * M * N * K),
    "addmm_": (lambda: rand(M, K).addmm_(rand(M, N), rand(N, K)), 2 * M * N * K),
    "bmm": (lambda: rand(B, M, N) @ rand(B, N, K), 2 * B * M * N * K),
    "baddbmm_": (lambda: rand(B, M, K).baddbmm_(rand(B, M, N), rand(B, N, K)), 2 * B * M * N * K),
    "addbmm": (lambda: torch.addbmm(rand(M, K), rand(B, M, N), rand(B, N, K)), 2 * B * M * N * K),
    "einsum": (lambda: torch.einsum("bi,bo->oi", rand(B, M), rand(B, N)), 2 * B * M * N),
    "mv": (lambda: rand(M, N) @ rand(N), 2 * M * N),
    "addmv_": (lambda: rand(M).addmv_(rand(M, N), rand(N)), 2 * M * N),
    "dot": (lambda: rand(N) @ rand(N), 2 * N),
    "addr_": (lambda: rand(M, N).addr_(rand(M), rand(N)), 2 * M * N),
    "linear": (lambda: functional.linear(rand(B, M, N), rand(K, N), rand(K)), 2 * B * M * N * K),
    "convolution": (lambda: functional.conv2d(rand(B, 4, 6, 6), rand(8, 4, 3, 3)), 2 * B * 16 * 8 * 4 * 9),
    "grouped": (
        lambda: functional.conv2d(rand(B, 4, 6, 6), rand(8, 2, 3, 3), groups=2),
        2 * B * 16 * 8 * 2 * 9,
    ),
    "transposed": (
        lambda: functional.conv_transpose2d(rand(B, 4, 6, 6), rand(4, 8, 3, 3)),
        2 * B * 36 * 4 * 8 * 9,
    ),
    "convolution 1d": (lambda: functional.conv1d(rand(B, 4, 6), rand(8, 4, 3)), 2 * B * 4 * 8 * 4 * 3),
    "sparse mm": (lambda: torch.sparse.mm(sparse(), rand(N, K)), 2 * 3 * K),
    "sparse rows mm": (lambda: sparse().to_sparse_csr() @ rand(N, K), 2 * 3 * K),
    "sparse mv": (lambda: sparse().to_sparse_csr() @ rand(N), 2 * 3),
    "sparse sparse": (lambda: torch.sparse.mm(sparse(), sparse().t()), 2 * 3 * 3 / N),
    "distances": (lambda: torch.cdist(rand(M, N), rand(K, N)), 2 * M * N * K),
    "distances by products": (lambda: torch.cdist(rand(40, N), rand(30, N)), 2 * 40 * N * 30),
    "attention": (
        lambda: functional.scaled_dot_product_attention(*[rand(1, 2, M, N)] * 3),
        2 * 2 * 2 * M * M * N,
    ),
    "solve": (lambda: torch.linalg.solve(spd(6), rand(6, 2)), 2 / 3 * 6**3 + 2 * 6**2 * 2),
    "solve a vector": (lambda: torch.linalg.solve(spd(6), rand(6)), 2 / 3 * 6**3 + 2 * 6**2),
    "cholesky": (lambda: torch.linalg.cholesky(spd(6)), 6**3 / 3),
    "cholesky solve": (lambda: torch.cholesky_solve(rand(6, 2), spd(6)), 2 * 6**2 * 2),
    "batch of inverses": (lambda: torch.linalg.inv(torch.stack([spd(6)] * B)), B * 2 * 6**3),
    "triangular": (lambda: torch.linalg.solve_triangular(spd(6), rand(6, 2), upper=True), 6**2 * 2),
    "eigh": (lambda: torch.linalg.eigh(spd(6)), 9 * 6**3),
    "qr": (lambda: torch.linalg.qr(rand(9, 6)), 2 * 2 * 6**2 * (9 - 2)),
    "qr, only r": (lambda: torch.linalg.qr(rand(9, 6), mode="r"), 2 * 6**2 * (9 - 2)),
    "svd": (lambda: torch.linalg.svd(rand(9, 6), full_matrices=False), 14 * 9 * 36 + 8 * 6**3),
    "least squares": (lambda: torch.linalg.lstsq(rand(9, 6), rand(9, 2)), 2 * 36 * 7 + 2 * (4 * 9 * 6 - 36)),
    "recurrent": (lambda: nn.RNN(N, K)(rand(B, M, N)), 2 * B * M * (N * K + K * K)),
    "element-wise": (lambda: torch.outer(rand(M), rand(N)).relu().sum() + 1, 0),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("grad", [True, False, None], ids=["autograd", "no_grad", "inference"])
@pytest.mark.parametrize("name", HAND_COUNTS)
def test_operations_by_hand(name: str, grad: bool | None) -> None:
    run, count = HAND_COUNTS[name]
    with torch.inference_mode() if grad is None else torch.set_grad_enabled(grad):
        assert traced(run).operations == round(count)


@pytest.mark.parametrize("groups", [1, 2])
def test_operations_of_a_convolution_backward(groups: int) -> None:
    x, w = rand(B, 4, 6, 6).requires_grad_(), rand(8, 4 // groups, 3, 3).requires_grad_()
    forward = 2 * B * 16 * 8 * (4 // groups) * 9
    assert traced(lambda: functional.conv2d(x, w, groups=groups).sum().backward()).operations == 3 * forward
    assert traced(lambda: functional.conv2d(x.detach(), w, groups=groups).sum().backward()).operations == 2 * forward


def test_operations_of_a_long_short_term_memory() -> None:
    net, x = nn.LSTM(N, K), rand(B, M, N)
    with torch.no_grad():
        assert traced(lambda: net(x)).operations == 2 * B * M * 4 * (N * K + K * K)


def test_operations_of_backward_and_of_functional_transforms() -> None:
    layer, x = nn.Linear(N, K), rand(M, N).requires_grad_()
    forward = 2 * M * N * K
    assert traced(lambda: layer(x).sum().backward()).operations == 3 * forward
    assert traced(lambda: torch.func.vjp(layer, x)[1](rand(M, K))).operations == 2 * forward
    assert traced(lambda: torch.func.grad(lambda h: layer(h).sum())(x)).operations == 2 * forward
    assert traced(lambda: torch.func.vmap(layer)(x)).operations == forward


def test_products_replay() -> None:
    layer, x = nn.Linear(N, K), rand(M, N)
    trace = traced(
        lambda: (layer(x).sum().backward(), functional.conv2d(rand(B, 4, 6, 6), rand(8, 4, 3, 3), padding=1))
    )
    assert [p.shapes for p in trace.products] == [
        ((K,), (M, N), (N, K)),
        ((K, M), (M, N)),
        ((B, 4, 6, 6), (8, 4, 3, 3)),
    ]
    assert trace.products[0].dtypes == (torch.float32,) * 3
    assert sum(p.operations for p in trace.products) == trace.operations
    generator = torch.Generator().manual_seed(0)
    again = [p.prepare(generator) for p in trace.products]
    assert traced(lambda: [run() for run in again]).operations == trace.operations
    assert [tuple(run().shape) for run in again] == [(M, K), (K, N), (B, 8, 6, 6)]
    with Trace({}) as repeated:
        again[0]()
    assert repeated.products[0].args[2].stride == (1, N)  # W.t() stays a transposed view


# Memory.


def test_peak_bytes_of_three_tensors_with_one_freed() -> None:
    def run() -> Tensor:
        a = torch.ones(100)  # 400 bytes live
        b = torch.ones(50)  # 600
        view = a[:10].view(2, 5)  # a view is free
        del a  # still held by the view
        c = torch.ones(25)  # 700, the peak
        del view, b  # 100
        return c + torch.ones(25)  # 300

    assert traced(run).peak_bytes == 700


def test_peak_bytes_leaves_out_what_was_there_before() -> None:
    weight, state, x = rand(K, N), rand(K, N), rand(M, N)

    def run() -> None:
        state.mul_(0.9).add_(weight)
        state.t().reshape(-1)  # N * K values, copied
        torch.mm(x, weight.t(), out=torch.empty(M, K))

    assert traced(run, {"weight": weight}).peak_bytes == 4 * max(K * N, M * K)


def test_peak_bytes_in_autograd() -> None:
    x, w = rand(64, 64).requires_grad_(), rand(64, 64)
    square = 4 * 64 * 64

    def run(depth: int) -> None:
        h = x
        for _ in range(depth):
            h = (h @ w).tanh()
        h.sum().backward()

    def run_free(depth: int) -> Tensor:
        h = x
        for _ in range(depth):
            h = (h @ w).tanh()
        return h

    for depth in (2, 5):
        peak = traced(lambda depth=depth: run(depth)).peak_bytes
        # Saved: one activation a layer. On top: the gradient before and after the tanh of the last layer.
        assert depth * square < peak <= (depth + 2) * square + 64
        x.grad = None
        with torch.no_grad():  # flat: the old activation, the product, the new activation
            assert traced(lambda depth=depth: run_free(depth)).peak_bytes == 3 * square


def test_peak_bytes_of_gradients_made_in_backward() -> None:
    layer, x = nn.Linear(64, 64, bias=False), rand(1, 64)
    trace = traced(lambda: layer(x).sum().backward())
    assert trace.peak_bytes >= 4 * 64 * 64  # the weight's gradient outweighs everything else
    assert trace.peak_bytes <= 4 * 64 * 64 + 4 * 64 * 2


def test_peak_bytes_in_functional_transforms() -> None:
    layer, x = nn.Linear(64, 64), rand(64, 64)
    square = 4 * 64 * 64
    cotangent = rand(64, 64)
    assert traced(lambda: torch.func.vjp(layer, x)[1](cotangent)).peak_bytes == 2 * square


def test_peak_bytes_of_resized_and_sparse_tensors() -> None:
    trace = traced(lambda: torch.empty(0).resize_(100))
    assert trace.peak_bytes == 400
    indices, values = 2 * 3 * 8, 3 * 4
    dense = sparse().to_dense()
    assert traced(lambda: dense.to_sparse()).peak_bytes == indices + values
    assert traced(lambda: torch.tensor([1.0, 2.0])).peak_bytes == 8


def test_a_finished_trace_can_be_dropped_before_its_tensors() -> None:
    with Trace({}) as trace:
        kept = torch.ones(10)
    del trace
    gc.collect()
    assert kept.sum() == 10
    del kept


# Accesses.


def accesses(run: Callable[[], object], **parameters: Tensor) -> list[tuple[str, str]]:
    return [(a.kind, a.parameter) for a in traced(run, parameters).accesses]


def test_reads_count_by_storage_and_views_do_not() -> None:
    w, x = rand(K, N), rand(M, N)
    assert accesses(lambda: w.t()[1:].detach().unsqueeze(0).expand(3, -1, -1), w=w) == []
    assert accesses(lambda: (torch.zeros_like(w), w.new_empty(3), w.shape), w=w) == []
    assert traced(lambda: x @ w.t(), {"w": w}).accesses == [Access("read", "w", "aten::mm")]
    assert accesses(lambda: w.clone(), w=w) == [("read", "w")]
    assert accesses(lambda: x.mul(2), w=w) == []


def test_tied_parameters_are_all_touched() -> None:
    w = rand(K, N)
    assert accesses(lambda: w.sum(), first=w, second=w.t()) == [("read", "first"), ("read", "second")]


def test_reads_of_autograd() -> None:
    first, second, x = nn.Linear(N, K), nn.Linear(K, K), rand(M, N)
    parameters = {"first": first.weight, "second": second.weight}
    order = [("read", "first"), ("read", "second"), ("read", "second")]  # forward, forward, delta @ W
    assert accesses(lambda: second(first(x)).sum().backward(), **parameters) == order


@pytest.mark.parametrize(
    ("make", "op"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.1), "aten::add_"),
        (lambda p: torch.optim.SGD(p, lr=0.1, fused=True), "aten::_fused_sgd_"),
        (lambda p: torch.optim.Adam(p, lr=0.1), "aten::addcdiv_"),
        (lambda p: torch.optim.Adam(p, lr=0.1, fused=True), "aten::_fused_adam_"),
        (lambda p: torch.optim.Adam(p, lr=0.1, foreach=True), "aten::_foreach_addcdiv_"),
    ],
    ids=["sgd", "fused sgd", "adam", "fused adam", "foreach adam"],
)
def test_writes_of_optimizers(make: Callable[[list[Tensor]], torch.optim.Optimizer], op: str) -> None:
    layer, x = nn.Linear(N, K), rand(M, N)
    optimizer = make(list(layer.parameters()))
    layer(x).sum().backward()
    trace = traced(optimizer.step, dict(layer.named_parameters()))
    assert trace.accesses == [Access("write", "weight", op), Access("write", "bias", op)]


def test_writes_in_place_and_out() -> None:
    w, x = rand(M, N), rand(M, N)
    assert accesses(lambda: w.copy_(x), w=w) == [("write", "w")]
    assert accesses(lambda: torch.add(w, x, out=w), w=w) == [("read", "w"), ("write", "w")]
    assert accesses(lambda: w.data[0].zero_(), w=w) == [("write", "w")]
    assert accesses(lambda: w.t().mul_(2), w=w) == [("write", "w")]


# Operands.


def operand(run: Callable[[], object], w: Tensor) -> list[Tensor]:
    return traced(run, {"w": w}, keep_operands=True).operands["w"]


@pytest.mark.parametrize("shape", [(K, N), (N, N), (K, 1), (1, N)], ids=str)
def test_operands_of_forward_products_only(shape: tuple[int, int]) -> None:
    w, x, gradient = rand(*shape), rand(M, shape[1]), rand(M, shape[0])
    for run in (
        lambda: x @ w.t(),
        lambda: functional.linear(x, w, rand(shape[0])),
        lambda: w @ x.t(),
        lambda: torch.bmm(x[None], w.t()[None]),
        lambda: torch.stack([w @ row for row in x]),
        lambda: torch.stack([w[0] @ row for row in x]),
    ):
        rows = torch.cat(operand(run, w))
        assert torch.equal(rows, x)
    for run in (lambda: gradient @ w, lambda: w.t() @ gradient.t(), lambda: gradient.t() @ x):
        assert operand(run, w) == []


def test_operands_in_autograd_and_inference() -> None:
    layer, x = nn.Linear(N, K), rand(M, N).requires_grad_()
    assert [tuple(r.shape) for r in operand(lambda: layer(x).sum().backward(), layer.weight)] == [(M, N)]
    with torch.inference_mode():
        assert [tuple(r.shape) for r in operand(lambda: layer(x), layer.weight)] == [(M, N)]


def test_operands_of_some_columns() -> None:
    w, x = rand(K, N), rand(M, 3)
    (rows,) = operand(lambda: x @ w[:, 2:5].t(), w)
    assert torch.equal(rows, functional.pad(x, (2, N - 5)))


@pytest.mark.parametrize("groups", [1, 2])
def test_operands_of_convolutions_are_patches(groups: int) -> None:
    x, w = rand(2, 4, 5, 5), rand(6, 4 // groups, 3, 3)
    (rows,) = operand(lambda: functional.conv2d(x, w, stride=2, padding=1, groups=groups), w)
    assert rows.shape == (2 * 9 * groups, 4 // groups * 9)
    _, _, basis = torch.linalg.svd(rows[: 4 // groups])  # a kernel that does not see the first patches
    blind = basis[-1].reshape(1, *w.shape[1:]).expand(w.shape)
    changed = functional.conv2d(x, w + blind, stride=2, padding=1, groups=groups)
    before = functional.conv2d(x, w, stride=2, padding=1, groups=groups)
    assert torch.allclose(changed[0, :, 0, 0], before[0, :, 0, 0], atol=1e-5)
    assert not torch.allclose(changed, before, atol=1e-2)
    w = rand(6, 4 // groups, 3)
    (line,) = operand(lambda: functional.conv1d(x[:, :, 0], w, groups=groups), w)
    assert line.shape == (2 * 3 * groups, 4 // groups * 3)
    assert torch.equal(line[0], x[0, : 4 // groups, 0, :3].flatten())


def test_no_operands_unless_asked() -> None:
    w = rand(K, N)
    assert traced(lambda: rand(M, N) @ w.t(), {"w": w}).operands == {"w": []}
