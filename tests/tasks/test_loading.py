import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from altprop.errors import UsageError
from altprop.tasks import Task, hub, load
from altprop.tasks.loading import LOSSY_NOTE

Make = Callable[..., Path]
DATA = os.environ.get("ALTPROP_DATA", "")


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(hub_id: str, looked: str) -> Path:
        raise UsageError(f"asked the hub for {hub_id}; {looked}")

    monkeypatch.setattr(hub, "fetch", refuse)


def test_the_folder_of_the_environment(make_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder("mnist")
    with pytest.raises(UsageError, match="asked the hub for ylecun/mnist; ALTPROP_DATA is not set"):
        load("mnist")
    monkeypatch.setenv("ALTPROP_DATA", str(tmp_path))
    assert load("mnist").name == "mnist"
    with pytest.raises(UsageError, match=r"asked the hub for uoft-cs/cifar10; looked for the folder .*cifar10"):
        load("cifar10")


def test_an_explicit_path_wins(make_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder("mnist", seed=1)
    other = make_folder("other", seed=2)
    monkeypatch.setenv("ALTPROP_DATA", str(tmp_path))
    task = load("mnist", path=other)
    assert task.digest == load("other").digest != load("mnist").digest


def test_a_name_that_is_a_folder(make_folder: Make) -> None:
    folder = make_folder("mine")
    assert load("mine").name == load(str(folder)).name == load(f"{folder}/").name == "mine"


def test_a_hub_id(make_folder: Make) -> None:
    with pytest.raises(UsageError, match="asked the hub for owner/name"):
        load("owner/name")


@pytest.mark.parametrize("name", ["./nothing", "/no/such/place", "a/b/c"])
def test_a_path_that_is_not_there_never_goes_to_the_hub(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name.lstrip('./')} does not exist"):
        load(name)


def test_a_file_is_no_folder(make_folder: Make) -> None:
    file = next(make_folder().glob("*.parquet"))
    with pytest.raises(UsageError, match="is a file, not a folder"):
        load("mnist", path=file)


def test_an_unknown_name_gets_the_near_one() -> None:
    with pytest.raises(UsageError, match=r"unknown task 'mnits' \(did you mean 'mnist'\?\).*cifar10"):
        load("mnits")
    with pytest.raises(UsageError, match="a task needs a name"):
        load(" ")


def test_digits_take_no_path(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'digits' is built in"):
        load("digits", path=tmp_path)


def test_a_column_that_holds_no_images(make_folder: Make) -> None:
    with pytest.raises(UsageError, match=r"column 'label' of .* holds no images"):
        load("set", path=make_folder(), image="label", label="label")


@pytest.mark.parametrize(("kind", "name", "note"), [("JPEG", "cifar10", LOSSY_NOTE), ("PNG", "cifar10", "")])
def test_a_jpeg_copy_of_a_lossless_original_is_noted(make_folder: Make, kind: str, name: str, note: str) -> None:
    assert load(name, path=make_folder(kind=kind)).note == note


def test_jpeg_is_not_noted_where_it_may_be_the_original(make_folder: Make) -> None:
    assert load("mine", path=make_folder(kind="JPEG")).note == ""


def real(name: str, monkeypatch: pytest.MonkeyPatch) -> Task:
    if not (Path(DATA) / name).is_dir() or not DATA:
        pytest.skip(f"ALTPROP_DATA names no folder with {name}")
    monkeypatch.setenv("ALTPROP_DATA", DATA)
    return load(name)


@pytest.mark.slow
def test_mnist(monkeypatch: pytest.MonkeyPatch) -> None:
    task = real("mnist", monkeypatch)
    assert [len(s) for s in (task.train, task.validation, task.test)] == [50_000, 10_000, 10_000]
    assert (task.shape, task.classes) == ((1, 28, 28), 10)
    assert task.train.y[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    total = (
        sum(x.double().sum() for x, _ in task.loader(batch_size=1000))
        + task.validation.batch(slice(None))[0].double().sum()
    )
    assert float(total) / (60_000 * 784) == pytest.approx(0.1306604762738429, abs=1e-7)  # MNIST's known mean


@pytest.mark.slow
def test_cifar10(monkeypatch: pytest.MonkeyPatch) -> None:
    task = real("cifar10", monkeypatch)
    assert [len(s) for s in (task.train, task.validation, task.test)] == [41_667, 8_333, 10_000]
    assert (task.shape, task.names[3]) == ((3, 32, 32), "cat")
    assert torch.bincount(task.test.batch(slice(None))[1]).tolist() == [1000] * 10
