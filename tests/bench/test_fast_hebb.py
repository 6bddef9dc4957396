"""The study of Hebbian updates by matrix products: both forms agree, and its page says what the rows say."""

from pathlib import Path

import pytest
import torch

from altprop.bench import fast_hebb
from altprop.oracles.check import apart


@pytest.mark.parametrize("name", fast_hebb.UPDATES)
@torch.no_grad()
def test_both_forms_are_the_same_update(name: str) -> None:
    layer, x, _ = fast_hebb.drawn(9, 5, 7)
    layer, x = layer.double(), x.double()
    fast, naive = fast_hebb.UPDATES[name]
    y = layer(x)
    assert apart(fast(layer, x, y), naive(layer, x, y)) < 1e-13
    assert fast_hebb.peak(fast, layer, x, y) < fast_hebb.peak(naive, layer, x, y)


def test_rows_figure_and_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_hebb, "SIZES", ((4, 3, 2), (6, 3, 2)))
    monkeypatch.setattr(fast_hebb, "GOAL", (6, 3, 2))
    monkeypatch.setattr(fast_hebb, "seconds", lambda update, *made: 0.06 if "sanger" in update.__name__ else 0.001)
    threads = torch.get_num_threads()
    fast_hebb.main(fast_hebb.Options(output=tmp_path, rounds=1))
    torch.set_num_threads(threads)
    text = (tmp_path / "fast_hebb.md").read_text()
    assert "50 times faster (**no**: at least 1 times" in text and text.count("| Sanger |") == 2
    assert (tmp_path / "fast_hebb" / "updates.png").exists()


def test_ratios_are_the_quartiles_of_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    def counted(update: fast_hebb.Update, *made: object) -> float:
        if update is fast_hebb.sanger:
            return 1.0
        naive.append(len(naive))
        return float(naive[-1])

    naive: list[int] = []
    monkeypatch.setattr(fast_hebb, "seconds", counted)
    monkeypatch.setattr(fast_hebb, "SIZES", ((4, 3, 2),))
    monkeypatch.setattr(fast_hebb, "UPDATES", {"Sanger": fast_hebb.UPDATES["Sanger"]})
    threads = torch.get_num_threads()
    (row,) = fast_hebb.measure(5).to_dict("records")
    torch.set_num_threads(threads)
    assert (row["ratio_low"], row["ratio"], row["ratio_high"]) == (1.0, 2.0, 3.0)
    assert (row["fast_ms"], row["naive_ms"]) == (1000.0, 2000.0)
