"""The study of Hebbian updates by matrix products: both forms agree, and its page says what the rows say."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from altprop import nets
from altprop.bench import fast_hebb
from altprop.oracles.check import apart
from altprop.rule import Problem
from altprop.rules.hebbian.body import Hebbian
from altprop.rules.hebbian.competition import responsibilities
from altprop.rules.hebbian.competitive import CompetitiveLearning
from altprop.rules.hebbian.pca import HebbianPCA


@pytest.mark.parametrize("name", fast_hebb.UPDATES)
@pytest.mark.parametrize("made", [fast_hebb.drawn(9, 5, 7), fast_hebb.convolved(2, 5, 3, 7, 3)], ids=["linear", "conv"])
@torch.no_grad()
def test_both_forms_are_the_same_update(name: str, made: fast_hebb.Made) -> None:
    layer, x, _ = made
    layer, x = layer.double(), x.double()
    fast, naive = fast_hebb.UPDATES[name]
    y = layer(x)
    assert apart(fast(layer, x, y), naive(layer, x, y)) < 1e-13
    assert fast_hebb.peak(fast, layer, x, y) < fast_hebb.peak(naive, layer, x, y)


@torch.no_grad()
def test_flushing_changes_nothing_that_can_be_seen_and_leaves_no_subnormals() -> None:
    layer, x, y = fast_hebb.drawn(40, 30, 20)
    assert apart(fast_hebb.flushed(layer, x, y), fast_hebb.unflushed(layer, x, y)) < 1e-6
    tiny = torch.finfo(torch.float32).tiny
    for r, subnormal in ((responsibilities(y, fast_hebb.SHARP), False), ((fast_hebb.SHARP * y).softmax(1), True)):
        assert bool(((r > 0) & (r < tiny)).any()) == subnormal


@pytest.mark.parametrize(
    ("update", "kind", "options"),
    [
        (fast_hebb.sanger, HebbianPCA, {"update": "sanger", "relative": False}),
        (fast_hebb.subspace, HebbianPCA, {"update": "subspace", "relative": False}),
        (
            fast_hebb.winners,
            CompetitiveLearning,
            {"competition": "soft", "inverse_temperature": 1.0, "similarity": "dot", "average": "patches"},
        ),
    ],
)
@torch.no_grad()
def test_fast_forms_are_those_of_the_rules(
    update: fast_hebb.Update, kind: type[Hebbian], options: dict[str, Any]
) -> None:
    layer, x, y = fast_hebb.drawn(9, 5, 7)
    rule = kind(nn.Sequential(nets.Block(layer.requires_grad_(), None, nn.ReLU())), Problem((7,), 2), **options)
    assert torch.equal(rule.change(len(rule.net) - 1, layer, x, y), update(layer, x, y))


def test_rows_figure_and_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_hebb, "SIZES", ((4, 3, 2), (6, 3, 2)))
    monkeypatch.setattr(fast_hebb, "GOAL", (6, 3, 2))
    monkeypatch.setattr(fast_hebb, "IMAGES", (2, 3, 1, 4, 3))
    monkeypatch.setattr(fast_hebb, "seconds", lambda update, *made: 0.06 if "sanger" in update.__name__ else 0.001)
    fast_hebb.main(fast_hebb.Options(output=tmp_path, rounds=1))
    text = (tmp_path / "fast_hebb.md").read_text()
    assert "50 times faster (**no**: at least 1 times" in " ".join(text.split()) and text.count("| Sanger |") == 2
    assert (tmp_path / "fast_hebb" / "updates.png").exists()


def test_ratios_are_the_quartiles_of_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    def counted(update: fast_hebb.Update, *made: object) -> float:
        if update is not fast_hebb.naive_sanger:
            return 1.0
        naive.append(len(naive))
        return float(naive[-1])

    naive: list[int] = []
    monkeypatch.setattr(fast_hebb, "seconds", counted)
    monkeypatch.setattr(fast_hebb, "SIZES", ((4, 3, 2),))
    monkeypatch.setattr(fast_hebb, "UPDATES", {"Sanger": fast_hebb.UPDATES["Sanger"]})
    monkeypatch.setattr(fast_hebb, "CONVOLVED", ())
    row, _ = fast_hebb.measure(5).to_dict("records")
    assert (row["ratio_low"], row["ratio"], row["ratio_high"]) == (1.0, 2.0, 3.0)
    assert (row["fast_ms"], row["naive_ms"]) == (1000.0, 2000.0)
