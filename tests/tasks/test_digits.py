import numpy as np
import torch

from altprop.tasks import load

PINNED = "4998fe6a3907627c462a84ec25ccc61555ff0444e9552123ca9e3dc66ae73913"


def test_sizes_and_values() -> None:
    task = load("digits")
    assert [len(s) for s in (task.train, task.validation, task.test)] == [1197, 300, 300]
    assert (task.shape, task.classes, task.note) == ((1, 8, 8), 10, "")
    x, y = task.train.batch(slice(None))
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    assert (x.min().item(), x.max().item()) == (0.0, 1.0)
    assert torch.bincount(y, minlength=10).min() > 90


def test_every_image_of_scikit_learn_is_in_exactly_one_split() -> None:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    task = load("digits").flat()
    ours = np.concatenate([np.column_stack([s.x, s.y]) for s in (task.train, task.validation, task.test)])
    theirs = np.column_stack([images, labels])
    assert sorted(map(tuple, ours.astype(int))) == sorted(map(tuple, theirs.astype(int)))


def test_the_permutation_never_changes() -> None:
    task = load("digits")
    assert task.digest == PINNED
    assert load("digits").digest == task.digest
