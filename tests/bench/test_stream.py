"""A stream of one's own: whatever gives pairs, and one clear sentence for what cannot be a sample."""

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import altprop
from altprop import Backprop, Problem, UsageError, nets
from altprop.bench.answer import PROBES
from every import DIGITS, batches, rule_of

X, Y = DIGITS.train.batch(slice(0, 40))


def test_accuracy_is_that_of_a_plain_loop() -> None:
    for name in ("backprop", "signal-propagation", "spela"):
        mine, theirs = rule_of(name), rule_of(name)
        right = 0
        for x, y in batches(1, 60):
            theirs.eval()
            with torch.no_grad():
                right += int(theirs(x).argmax() == y)
            theirs.step(x, y)
        answers = list(altprop.stream(mine, batches(1, 60)))
        assert sum(int(answer.right) for answer in answers) == right > 0
        assert {answer.one_pass for answer in answers[PROBES:]} == {name != "spela"}


def test_samples_and_batches_tensors_and_arrays_are_the_same_stream() -> None:
    sources: list[Any] = [
        zip(X, Y, strict=True),
        zip(X[:, None], Y[:, None], strict=True),
        zip(X.numpy(), Y.numpy().astype(np.uint8), strict=True),
        ([x.tolist(), int(y)] for x, y in zip(X, Y, strict=True)),
    ]
    found = [torch.cat([a.scores for a in altprop.stream(rule_of("backprop"), source)]) for source in sources]
    assert all(torch.equal(found[0], other) for other in found)
    assert found[0].shape == (40, 10)
    small = list(altprop.stream(rule_of("backprop"), [(X[:32], Y[:32]), (X[32:], Y[32:])]))
    assert [len(answer.right) for answer in small] == [32, 8]


def test_images_targets_and_no_labels() -> None:
    conv = Backprop(nets.conv((1, 8, 8), [4], classes=10))
    assert len(list(altprop.stream(conv, zip(X.view(-1, 1, 8, 8), Y, strict=True)))) == 40
    line = Backprop(nets.mlp([64], classes=2), Problem((64,), 2, "regression"))
    answers = list(altprop.stream(line, ((x, x[:2]) for x in X)))
    assert answers[-1].one_pass and answers[-1].scores.shape == (1, 2)
    soft = rule_of("unsupervised-forward-forward", options={"negatives": "blurred", "blurs": 1})
    assert [answer.y for answer in altprop.stream(soft, ((x,) for x in X[:3]))] == [None] * 3


def broken() -> Iterator[Any]:
    yield from zip(X[:3], Y[:3], strict=True)
    raise EOFError("end of file within a record")


ENDS = "the stream ends in mid-sample: "
GOOD = [(x, y) for x, y in zip(X[:2], Y[:2], strict=True)]


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        ([(X[2],)], f"{ENDS}sample 3 has an input and no label.*the 2 samples before it are learned"),
        ([(X[2], None)], f"{ENDS}sample 3 has an input and no label"),
        (
            [(X[2, :50], Y[2])],
            f"{ENDS}sample 3 has 50 of the 64 values that the net takes; the 2 samples before it are",
        ),
        ([(X[:8, :50], Y[:8])], f"{ENDS}sample 3 has 50 of the 64 values"),
        ([(X[:8], Y[:5])], f"{ENDS}after 2 samples came 8 inputs with 5 labels"),
        ([X[2], Y[2]], r"gave a Tensor and no pair \(x, y\) after 2 samples"),
        ([{"x": X[2]}], "gave a dict and no pair"),
        ([(X[2], Y[2], 1.0)], "gave a tuple and no pair"),
        ([(None, Y[2])], "input of sample 3 is no array of numbers"),
        ([(X[2], "seven")], "label of sample 3 is no array of numbers"),
        ([(X[2].double(), Y[2])], r"sample 3 of the stream: .*convert one with \.to\(torch\.float32\)"),
        ([(X[2] * float("nan"), Y[2])], "sample 3 of the stream: .*NaN"),
        ([(X[2], 10)], "sample 3 of the stream: .*classes 0 to 9"),
        ([(X[2], 1.0)], "sample 3 of the stream: .*labels must be integers"),
        ([(X[2].repeat(2), Y[2])], r"sample 3 of the stream: .*\(1, 128\), the net takes \(batch, 64\)"),
        ([(X[:0], Y[:0])], "sample 3 of the stream: .*the batch is empty"),
    ],
)
def test_what_is_no_sample_is_one_sentence_and_what_came_before_is_learned(rest: list[Any], words: str) -> None:
    rule, other = rule_of("backprop"), rule_of("backprop")
    with pytest.raises(UsageError, match=words) as caught:
        list(altprop.stream(rule, [*GOOD, *rest]))
    assert "\n" not in str(caught.value)
    for x, y in GOOD:
        other.step(x[None], y[None])
    assert all(torch.equal(p, q) for p, q in zip(rule.parameters(), other.parameters(), strict=True))


def test_a_source_that_breaks_off_or_is_empty_or_of_another_shape_from_the_start() -> None:
    with pytest.raises(UsageError, match=r"breaks off in mid-sample, after 3 whole items .end of file within a record"):
        list(altprop.stream(rule_of("backprop"), broken()))
    with pytest.raises(UsageError, match="the stream is empty"):
        list(altprop.stream(rule_of("backprop"), []))
    with pytest.raises(UsageError, match=r"sample 1 of the stream: .*\(1, 50\), the net takes \(batch, 64\)"):
        list(altprop.stream(rule_of("backprop"), [(X[0, :50], Y[0])]))


def test_rules_that_need_a_batch_say_so() -> None:
    with pytest.raises(
        UsageError, match="SelfContrastiveForwardForward cannot learn from sample 1 of the stream: it compares"
    ):
        list(altprop.stream(rule_of("self-contrastive-forward-forward"), GOOD))
    assert list(altprop.stream(rule_of("self-contrastive-forward-forward"), [(X[:8], Y[:8])]))
    normal = Backprop(nn.Sequential(nn.Sequential(nn.Linear(64, 8), nn.BatchNorm1d(8)), nn.Linear(8, 10)))
    with pytest.raises(UsageError, match="batch normalisation"):
        list(altprop.stream(normal, GOOD))


def test_a_later_batch_that_cannot_be_learned_from_is_refused_too() -> None:
    normal = Backprop(nn.Sequential(nn.Sequential(nn.Linear(64, 8), nn.BatchNorm1d(8)), nn.Linear(8, 10)))
    with pytest.raises(UsageError, match=r"cannot learn from sample 9 of the stream: .*batch normalisation"):
        list(altprop.stream(normal, [(X[:8], Y[:8]), (X[8], Y[8])]))


def test_a_record_that_is_cut_is_refused() -> None:
    def records() -> Iterator[tuple[Tensor, Tensor]]:
        yield X[0], Y[0]
        struct.unpack("<2f", bytes(7))

    with pytest.raises(UsageError, match="breaks off in mid-sample, after 1 whole items"):
        list(altprop.stream(rule_of("backprop"), records()))
