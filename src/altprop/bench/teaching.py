"""Train a net as the bench does, without points and checkpoints, for studies that look inside one."""

from collections.abc import Iterator
from itertools import chain

from torch import Tensor

from altprop.bench import protocol
from altprop.bench.contender import Contender, Setting
from altprop.rule import Rule
from altprop.tasks import Task


def trained(chosen: Contender, setting: Setting, task: Task, epochs: int, seed: int) -> Rule:
    """The contender's rule after whole epochs, ready to predict."""
    rule = chosen.build(setting, seed)
    teach(rule, task, chosen.batch_size or protocol.DEFAULT_BATCH_SIZE, epochs, seed)
    rule.finish()
    return rule.eval()


def teach(rule: Rule, task: Task, batch_size: int, epochs: int, seed: int) -> None:
    """Whole epochs in the protocol's order for the seed, progress from 0 to 1."""
    for _ in lessons(rule, task, batch_size, epochs, seed):
        pass


def lessons(rule: Rule, task: Task, batch_size: int, epochs: int, seed: int) -> Iterator[int]:
    """The same, a step at a time: how many samples the rule has learnt from so far, 0 at first."""
    total, done = epochs * len(task.train), 0
    yield done
    for x, y in batches(task, batch_size, epochs, seed):
        rule.progress = done / total
        rule.step(x, y)
        done += len(y)
        yield done


def batches(task: Task, batch_size: int, epochs: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Whole epochs of training samples in the protocol's order for the seed."""
    data_seed = protocol.seed_of("data", seed)
    return chain.from_iterable(task.loader("train", batch_size, seed=data_seed, epoch=e) for e in range(epochs))
