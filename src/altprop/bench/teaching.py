"""Train a net as the bench does, without points and checkpoints, for studies that look inside one."""

from itertools import chain

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
    data_seed = protocol.seed_of("data", seed)
    batches = (task.loader("train", batch_size, seed=data_seed, epoch=epoch) for epoch in range(epochs))
    total, done = epochs * len(task.train), 0
    for x, y in chain.from_iterable(batches):
        rule.progress = done / total
        rule.step(x, y)
        done += len(y)
