import numpy as np
import pytest
import torch

from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.tasks import Split, Task, order
from altprop.tasks.task import divided, fingerprint


def small(n: int = 10) -> Task:
    x = np.arange(n * 6, dtype=np.uint8).reshape(n, 1, 2, 3)
    part = Split(x, np.arange(n) % 2, scale=1 / 255)
    return divided("small", {"train": part, "validation": part, "test": part}, ("even", "odd"))


def test_batch_by_slice_and_by_index_are_the_same_samples() -> None:
    part = small().train
    x, y = part.batch(slice(2, 5))
    again, labels = part.batch(torch.tensor([2, 3, 4]))
    assert torch.equal(x, again) and torch.equal(y, labels)
    assert x.shape == (3, 1, 2, 3) and x.is_contiguous()
    assert x[0, 0, 0, 0].item() == pytest.approx(12 / 255)


def test_writing_into_a_batch_leaves_the_data_alone() -> None:
    part = Split(np.ones((4, 2), dtype=np.float32), np.zeros(4, dtype=np.int64), scale=1.0)
    x, y = part.batch(slice(None))
    x.zero_(), y.fill_(9)
    assert part.x.min() == 1 and part.y.max() == 0


def test_every_level_lies_in_the_unit_interval() -> None:
    levels = Split(np.arange(256, dtype=np.uint8)[:, None], np.zeros(256, dtype=np.int64), scale=1 / 255)
    x, _ = levels.batch(slice(None))
    assert x.min() == 0 and x.max() == 1


def test_train_comes_in_the_protocols_order_with_a_short_last_batch() -> None:
    task = small()
    batches = list(task.loader(batch_size=4, seed=1, epoch=2))
    assert [len(y) for _, y in batches] == [4, 4, 2]
    rows = torch.cat([x[:, 0, 0, 0] for x, _ in batches]) * 255 / 6
    assert rows.round().long().tolist() == order(10, 1, 2).tolist()


@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_other_splits_come_in_natural_order(split: str) -> None:
    rows = torch.cat([x[:, 0, 0, 0] for x, _ in small().loader(split, 3, seed=5)])
    assert torch.equal(rows, rows.sort().values)


def test_flat_is_a_view() -> None:
    task = small()
    flat = task.flat()
    assert flat.shape == (6,) and flat.train.x.shape == (10, 6)
    assert np.shares_memory(flat.train.x, task.train.x)
    assert (flat.digest, flat.classes) == (task.digest, 2)


def test_flat_knows_the_way_back() -> None:
    task = small()
    assert task.image == task.flat().image == (1, 2, 3)
    back = task.flat().images()
    assert back.shape == (1, 2, 3) and np.shares_memory(back.train.x, task.train.x)
    assert np.array_equal(back.test.x, task.test.x)


def test_vectors_do_not_become_images() -> None:
    part = Split(np.zeros((4, 6), dtype=np.uint8), np.zeros(4, dtype=np.int64), scale=1.0)
    vectors = divided("vectors", {"train": part, "validation": part, "test": part}, ("only",))
    with pytest.raises(UsageError, match="no images"):
        vectors.images()


@pytest.mark.parametrize("flat", [True, False])
def test_binary_is_another_task_of_zeros_and_ones(flat: bool) -> None:
    x = np.array([[0, 7, 8], [9, 15, 16]], dtype=np.uint8).reshape(1, 1, 2, 3)
    part = Split(x, np.zeros(1, dtype=np.int64), scale=1 / 16)
    task = divided("grey", {"train": part, "validation": part, "test": part}, ("only",), note="a note")
    task = task.flat() if flat else task
    binary = task.binary()
    pixels, labels = binary.train.batch(slice(None))
    assert pixels.flatten().tolist() == [0, 0, 0, 1, 1, 1]  # exactly half is not above half
    assert pixels.shape[1:] == binary.shape == task.shape and labels.tolist() == [0]
    assert (binary.name, binary.note, binary.image) == ("grey-binary", "a note", (1, 2, 3))
    assert binary.digest != task.digest


def test_problem() -> None:
    assert small().problem == Problem((1, 2, 3), 2, "classification")
    assert small().flat().problem == Problem((6,), 2, "classification")


def test_bad_arguments_are_refused_at_once() -> None:
    with pytest.raises(UsageError, match=r"no split 'valid'.*train, validation, test"):
        small().loader("valid")
    with pytest.raises(UsageError, match="batch size 0"):
        small().loader(batch_size=0)


def test_fingerprint_sees_type_shape_and_values() -> None:
    a = np.arange(6, dtype=np.int64)
    seen = {fingerprint(b) for b in (a, a.reshape(2, 3), a.astype(np.int32), a[::-1])}
    assert len(seen) == 4 and fingerprint(a.copy()) in seen
