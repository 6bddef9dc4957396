"""The study of the block-size knob, small, on the digits."""

from pathlib import Path

import pandas as pd
import pytest

from altprop.bench import block_sizes

STUDY = block_sizes.Study("digits", width=32, blocks=4, epochs=2, seeds=2, batch=64, large=512)


def test_sizes_end_at_the_whole_net() -> None:
    assert STUDY.sizes() == [1, 2, 4]
    assert block_sizes.Study(blocks=6).sizes() == [1, 2, 4, 6]


def test_the_study_is_published(tmp_path: Path) -> None:
    block_sizes.run(STUDY, tmp_path)
    table = pd.read_csv(tmp_path / "block_sizes" / "rows.csv")
    assert len(table) == 8 * 2 and (tmp_path / "block_sizes" / "block_sizes.png").exists()
    by = table.set_index(["rule", "block_size", "seed"])
    for seed in range(2):
        whole, plain = by.loc[("local-classifier", 4, seed)], by.loc[("backprop", 0, seed)]
        assert whole["test"] == plain["test"] == by.loc[("checkpointed-backprop", 0, seed), "test"]
        assert whole["operations"] == plain["operations"]
    peaks = by["peak_bytes"].groupby(["rule", "block_size"]).first()
    assert peaks["local-classifier", 1] < peaks["local-classifier", 2] < peaks["local-classifier", 4]
    assert peaks["local-classifier", 4] == pytest.approx(peaks["backprop", 0], rel=0.02)
    assert peaks["deep-supervision", 0] > peaks["backprop", 0] > peaks["accumulated-backprop", 0]
    few, many = (by[column].xs(0, level="seed") for column in ("peak_bytes", "large_peak_bytes"))
    assert (many > few).all()
    parts = many["accumulated-backprop", 0] / many["backprop", 0]
    assert many["accumulated-backprop, 16 parts", 0] / many["backprop", 0] < parts < 1.0
    assert many["accumulated-backprop, 16 parts", 0] < many["local-classifier", 1]
    text = (tmp_path / "block_sizes.md").read_text()
    assert "| local-classifier | 4 |" in text and "one block a module" in text


def test_the_verdict_names_the_controls_that_need_less_and_compares_seed_by_seed() -> None:
    rows = [
        ("local-classifier", 1, 0.9, 100, 100),
        ("local-classifier", 2, 0.95, 200, 200),
        ("backprop", 0, 0.97, 300, 300),
        ("accumulated-backprop", 0, 0.97, 150, 100),
    ]
    table = pd.DataFrame(rows, columns=["rule", "block_size", "test", "peak_bytes", "large_peak_bytes"])
    table = pd.concat([table.assign(seed=seed, test=table["test"] + 0.05 * seed) for seed in range(3)])
    assert block_sizes.verdict(table, "peak_bytes").startswith("no control")
    said = block_sizes.verdict(table, "large_peak_bytes")
    assert said.endswith("accumulated-backprop (+7.00 points of accuracy, +7.00 to +7.00: more accurate).")
    apart = (table["rule"] == "accumulated-backprop") * (table["seed"] - 1) * 0.2
    assert "within chance" in block_sizes.verdict(table.assign(test=table["test"] + apart), "large_peak_bytes")
