"""The engine of all rules that settle: every solver finds the same states, and says how far it got."""

import pytest
import torch
from torch import Tensor

from altprop import nets
from altprop.rules.energy.contrastive_hebbian import ContrastiveHebbian
from altprop.rules.energy.fixed_point import KINDS, Solver, States, relax
from settled_nets import batch


def linear_problem(strength: float, samples: int = 6, layers: int = 4) -> tuple[object, States, Tensor]:
    """s = A s + c in four parts, with the spectral radius `strength`; the moves, a start, and the solution."""
    g = torch.Generator().manual_seed(0)
    a = torch.randn(4 * layers, 4 * layers, generator=g, dtype=torch.float64)
    a = (a + a.T) * strength / torch.linalg.eigvalsh(a + a.T).abs().max()
    c = torch.randn(samples, 4 * layers, generator=g, dtype=torch.float64)
    solution = torch.linalg.solve(torch.eye(4 * layers, dtype=a.dtype) - a, c.T).T

    def move(i: int, states: States) -> Tensor:
        part = slice(4 * i, 4 * i + 4)
        return torch.cat(states, 1) @ a[:, part] + c[:, part]

    return move, [torch.zeros(samples, 4, dtype=a.dtype)] * layers, solution


@pytest.mark.parametrize("rate", [1.0, 0.6])
@pytest.mark.parametrize("kind", KINDS)
def test_every_solver_finds_the_solution_of_linear_equations(kind: str, rate: float) -> None:
    move, start, solution = linear_problem(0.7)
    found = relax(move, start, Solver(kind, 500, 1e-12, rate))
    torch.testing.assert_close(torch.cat(found.states, 1), solution, rtol=0.0, atol=1e-10)
    assert found.sweeps < 500 and float(found.residual) <= 1e-12


def test_the_residual_is_the_largest_move_relative_to_values_above_one() -> None:
    move, start, _ = linear_problem(0.7)
    for kind in ("damped", "anderson"):
        before = relax(move, start, Solver(kind, 6, 0.0, 0.6)).states
        moves = [float((move(i, before) - s).abs().max()) for i, s in enumerate(before)]
        assert float(relax(move, start, Solver(kind, 7, 0.0, 0.6)).residual) == pytest.approx(
            max(moves) / max(1.0, *(float(s.abs().max()) for s in before))
        )


def test_asynchronous_sweeps_and_anderson_need_fewer_sweeps() -> None:
    move, start, _ = linear_problem(0.97)
    sweeps = {kind: relax(move, start, Solver(kind, 5000, 1e-9)).sweeps for kind in KINDS}
    assert sweeps["asynchronous"] < 0.7 * sweeps["damped"] and sweeps["anderson"] < 0.2 * sweeps["damped"]


def test_even_states_move_first_and_odd_ones_see_them() -> None:
    found = relax(lambda i, s: sum(s) + 10.0**i, [torch.zeros(1, 1)] * 3, Solver("asynchronous", 1, 0.0)).states
    assert [float(s) for s in found] == [1.0, 112.0, 101.0]


@pytest.mark.parametrize("kind", KINDS)
def test_no_sample_feels_another(kind: str) -> None:
    move, start, _ = linear_problem(0.7)
    solver = Solver(kind, 7, 0.0, 0.9)
    together = relax(move, start, solver).states

    def alone(i: int, states: States) -> Tensor:
        return move(i, [s.expand(6, -1) for s in states])[2:3]

    for s, t in zip(relax(alone, [s[2:3] for s in start], solver).states, together, strict=True):
        torch.testing.assert_close(s, t[2:3], rtol=0.0, atol=1e-12)


def test_a_start_that_is_the_solution_stays_there() -> None:
    move, _, solution = linear_problem(0.7)
    for kind in KINDS:
        found = relax(move, list(solution.split(4, 1)), Solver(kind, 500, 1e-12))
        assert found.sweeps == 4
        torch.testing.assert_close(torch.cat(found.states, 1), solution, rtol=0.0, atol=1e-12)


def test_a_rule_warns_once_where_it_does_not_settle_and_says_so_in_every_step() -> None:
    x, y = batch(6, 5, 3)
    net = nets.mlp([5, 8], classes=3, act="tanh").double()
    rule = ContrastiveHebbian(net, sweeps=2, feedback=1.0)
    with pytest.warns(UserWarning, match=r"after 2 sweeps states still move by .* more sweeps"):
        metrics = rule.step(x, y)
    again = rule.step(x, y)  # a second warning would be an error
    for found in (metrics, again):
        assert float(found["unsettled"]) == 1.0 and float(found["residual"]) > 1e-5 and float(found["iterations"]) == 4
    settled = ContrastiveHebbian(net, feedback=0.1).step(x, y)
    assert float(settled["unsettled"]) == 0.0 and float(settled["residual"]) <= 1e-5
