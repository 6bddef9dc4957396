"""Every oracle that comes with the package holds, and is able to fail."""

import io

import pytest
import torch
from rich.console import Console

from altprop import oracles
from altprop.errors import UsageError
from altprop.oracles.check import Check, apart
from altprop.oracles.shown import show
from altprop.rules import RULES

PLACES = sorted({place for places in oracles.ORACLES.values() for place in places})


@pytest.mark.parametrize("place", PLACES)
def test_oracle(place: str) -> None:
    oracle = oracles.find(place)
    checks = list(oracle())
    assert checks
    assert oracle.__doc__
    assert not [check for check in checks if not check.holds]


def test_oracles_are_of_rules_that_there_are() -> None:
    assert set(oracles.ORACLES) <= set(RULES)


def test_what_does_not_hold() -> None:
    assert not Check("a", 2.0, 1.0).holds
    assert not Check("a", float("nan"), 1.0).holds
    assert not Check("a", float("nan"), 1.0, "at least").holds
    assert Check("a", 2.0, 1.0, "at least").holds
    assert apart(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0])) == 0.5


def test_show(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = Console(file=io.StringIO(), width=120)
    assert show("z-il", wide)
    text = wide.file.getvalue()
    assert "gradients of three tanh blocks, and backpropagation's" in text and "all bounds hold" in text
    monkeypatch.setattr(oracles, "find", lambda place: lambda: iter([Check("this", 2.0, 1.0)]))
    assert not show("z-il", wide)
    assert "a bound does not hold" in wide.file.getvalue()
    with pytest.raises(UsageError, match="no oracle of backprop comes with the package"):
        show("backprop", wide)
    with pytest.raises(UsageError, match="did you mean 'z-il'"):
        show("zil", wide)
