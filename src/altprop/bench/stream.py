"""A stream of one's own: samples that come one by one, or in small batches, answered and learned from as they come."""

import math
import struct
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from altprop.bench.answer import Answer, Answering, unfit
from altprop.errors import UsageError
from altprop.rule import Rule, check_batch

SMALL = (torch.uint8, torch.int8, torch.int16, torch.int32)
"""Integers that labels come in, besides int64."""


def stream(rule: Rule, source: Iterable[Any], *, overhear: bool = True) -> Iterator[Answer]:
    """Answer each sample, learn from it, and yield the answer, until the source ends.

    Arguments:
        rule: any rule; give it no schedule, or set its `progress` on the way.
        source: pairs (x, y): a sample (*input_shape) and its label, or a batch (batch, *input_shape) and its labels
            (batch,); tensors, or what torch makes tensors of. y is None, or left out, for a rule without labels.
        overhear: take the answer from the learning pass where it gives one (see `altprop.bench.answer`); False: never.

    Raises UsageError for a stream that is empty, breaks off or ends in mid-sample, and for samples that the rule cannot
    take. What came before is learned.
    """
    answering, number, sizes = Answering(rule, overhear=overhear), 0, set[int]()
    for item in _items(source):
        x, y = _batch(rule, item, number)
        if len(x) not in sizes and (reason := unfit(rule, len(x))) is not None:
            raise UsageError(f"{type(rule).__name__} cannot learn from sample {number + 1:,} of the stream: {reason}")
        sizes.add(len(x))
        yield answering.step(x, y)
        number += len(x)
    if number == 0:
        raise UsageError("the stream is empty: it ended before its first sample; give pairs (x, y)")


def _items(source: Iterable[Any]) -> Iterator[Any]:
    """What the source gives, until it ends or (a file, a socket) breaks off."""
    if not isinstance(source, Iterable):
        raise UsageError(f"the stream is a {type(source).__name__}; give an iterable of pairs (x, y)")
    number = 0
    try:
        for item in source:
            yield item
            number += 1
    except (EOFError, OSError, struct.error) as error:
        raise UsageError(
            f"the stream breaks off in mid-sample, after {number:,} whole items ({error or type(error).__name__}); "
            "they are learned, mend the source and go on from there"
        ) from error


def _batch(rule: Rule, item: Any, number: int) -> tuple[Tensor, Tensor | None]:
    """An item as a batch that the rule takes; so many samples came before it."""
    x, y = _pair(rule, item, number)
    one = x.dim() == len(rule.problem.input_shape)
    if one:
        x = x.unsqueeze(0)
    if y is not None:
        scalar = y.numel() == 1 and rule.problem.kind == "classification"
        y = (y.reshape(1) if scalar else y.unsqueeze(0)) if one else y
        y = y.long() if y.dtype in SMALL else y
    _check_whole(rule, x, y, number)
    try:
        check_batch(rule, x, y)
    except UsageError as error:
        raise UsageError(f"sample {number + 1:,} of the stream: {error}") from None
    return x, y


def _pair(rule: Rule, item: Any, number: int) -> tuple[Tensor, Tensor | None]:
    if not isinstance(item, tuple | list) or len(item) not in (1, 2):
        raise UsageError(
            f"the stream gave a {type(item).__name__} and no pair (x, y) after {number:,} samples; "
            "let it yield each input together with its label"
        )
    x, y = item if len(item) == 2 else (item[0], None)
    if y is None and rule.claims.labels:
        raise UsageError(
            f"the stream ends in mid-sample: sample {number + 1:,} has an input and no label, and "
            f"{type(rule).__name__} learns from labels; the {number:,} samples before it are learned"
        )
    return _tensor(rule, x, f"input of sample {number + 1:,}"), (
        None if y is None else _tensor(rule, y, f"label of sample {number + 1:,}")
    )


def _tensor(rule: Rule, value: Any, what: str) -> Tensor:
    try:
        return torch.as_tensor(value, device=next(rule.parameters()).device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"the stream's {what} is no array of numbers ({error}); convert it to a tensor") from None


def _check_whole(rule: Rule, x: Tensor, y: Tensor | None, number: int) -> None:
    """Raise UsageError where samples are cut short: an input that lacks values, inputs that lack labels."""
    shape = rule.problem.input_shape
    have, need = x[:1].numel(), math.prod(size or 0 for size in shape)
    if number and x.dim() == len(shape) + 1 and 0 < have < need:
        raise UsageError(
            f"the stream ends in mid-sample: sample {number + 1:,} has {have:,} of the {need:,} values that the net "
            f"takes; the {number:,} samples before it are learned"
        )
    if y is not None and y.dim() and len(y) < len(x):
        raise UsageError(
            f"the stream ends in mid-sample: after {number:,} samples came {len(x):,} inputs with {len(y):,} labels; "
            "give a label to every input, or leave the rest out"
        )
