"""Windows of a text, against slices of the text itself."""

from pathlib import Path

import pytest
import torch

from altprop import nets
from altprop.errors import UsageError
from altprop.rules.forward_only.forward_forward import ForwardForward
from altprop.tasks import text

STORY = "the quick brown fox jumps over the lazy dog; " * 40


@pytest.fixture
def story(tmp_path: Path) -> Path:
    path = tmp_path / "story.txt"
    path.write_text(STORY.upper())
    return path


def test_each_input_spells_the_text_and_the_label_is_the_next_symbol(story: Path) -> None:
    task = text(story, length=5, samples=(300, 50, 50))
    assert task.names == tuple(sorted(set(STORY)))
    x, y = task.train.batch(slice(None))
    assert x.shape == (300, 5 * task.classes)
    for row, label in zip(x.view(300, 5, -1), y, strict=True):
        assert bool((row.sum(1) == 1).all())
        assert "".join(task.names[i] for i in [*row.argmax(1).tolist(), int(label)]) in STORY


def test_no_window_reaches_into_another_part(tmp_path: Path) -> None:
    path = tmp_path / "parts.txt"
    path.write_text("a" * 800 + "b" * 100 + "c" * 100)
    task = text(path, length=3, samples=(1000, 1000, 1000))
    for part, symbol, size in ((task.train, 0, 797), (task.validation, 1, 97), (task.test, 2, 97)):
        assert len(part) == size
        assert set(part.y.tolist()) == {symbol}


@pytest.mark.parametrize(("content", "length"), [("abc", 10), ("", 1), ("abcdefghij" * 3, 0)])
def test_a_short_text_is_refused(tmp_path: Path, content: str, length: int) -> None:
    path = tmp_path / "short.txt"
    path.write_text(content)
    with pytest.raises(UsageError, match="too few for a window"):
        text(path, length=length)
    with pytest.raises(UsageError, match="no such file"):
        text(tmp_path / "none.txt")


def test_forward_forward_learns_which_symbol_comes_next(story: Path) -> None:
    """The label after the window is its last symbol, and a hard negative is one that the net itself predicted."""
    task = text(story, length=5, samples=(600, 50, 100))
    net = nets.mlp([task.shape[0] + task.classes, 64, 64], init="lecun")
    rule = ForwardForward(net, task.problem, placement="concatenate")
    for epoch in range(10):
        for x, y in task.loader("train", 50, epoch=epoch):
            rule.step(x, y)
    x, y = task.test.batch(slice(None))
    with torch.no_grad():
        assert (rule(x).argmax(1) == y).float().mean() > 0.6
