"""The command line as a user meets it: a subprocess, its output and its exit code."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

QUICK = ["--rules", "backprop", "--seeds", "1", "--epochs", "1", "--width", "16"]


def altprop(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    kept = {name: value for name, value in os.environ.items() if name != "ALTPROP_STORE"}
    return subprocess.run(
        [sys.executable, "-m", "altprop.cli", *arguments],
        cwd=cwd,
        env={**kept, "COLUMNS": "160", **environment},
        capture_output=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compared")
    done = altprop("compare", *QUICK, cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    assert b"backprop" in done.stdout and b"index.html" in done.stdout
    assert not done.stderr
    return folder


def test_compare_leaves_a_store_a_page_and_figures(compared: Path) -> None:
    assert (compared / "altprop.db").exists()
    assert (compared / "altprop-report" / "index.html").stat().st_size > 100_000
    for suffix in ("png", "svg", "pdf"):
        assert list((compared / "altprop-report").rglob(f"*.{suffix}"))


@pytest.mark.parametrize("format", ["json", "csv", "parquet"])
def test_results_in_every_format(compared: Path, format: str) -> None:
    done = altprop("results", "--format", format, cwd=compared)
    assert done.returncode == 0, done.stderr.decode()
    data = io.BytesIO(done.stdout)
    frame = {"json": pd.read_json, "csv": pd.read_csv, "parquet": pd.read_parquet}[format](data)
    assert set(frame["rule"]) == {"backprop"}
    assert set(frame["split"]) == {"train", "validation", "test"}
    altprop("results", "--format", format, "--output", "out", cwd=compared)
    assert (compared / "out").read_bytes() == done.stdout
    if format == "json":
        assert len(json.loads(done.stdout)) == len(frame)


def test_report_again_and_the_store_by_name(compared: Path, tmp_path: Path) -> None:
    store = str(compared / "altprop.db")
    done = altprop("report", "--store", store, "--output", "page", cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    assert (tmp_path / "page" / "index.html").exists()
    assert altprop("results", cwd=tmp_path, ALTPROP_STORE=store).stdout == altprop("results", cwd=compared).stdout
    assert not (tmp_path / "altprop.db").exists()


def test_list(tmp_path: Path) -> None:
    done = altprop("list", cwd=tmp_path)
    for word in ("backprop", "forward-forward", "later blocks: none", "digits", "mnist", "conv", "black-box"):
        assert word in done.stdout.decode()


def test_black_boxes_say_who_trains(tmp_path: Path) -> None:
    short = ["--samples", "500", "--seeds", "1", "--width", "16"]
    done = altprop("compare", "--net", "black-box", "--rules", "backprop,spela", *short, cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    shown = done.stdout.decode()
    assert "unsupported: a black box in it" in " ".join(shown.split())
    assert "backprop · straight through" in shown and "spela (sum)" in shown


@pytest.mark.parametrize("arguments", [["--help"], ["list"]])
def test_help_and_list_do_not_wait_for_torch(tmp_path: Path, arguments: list[str]) -> None:
    code = f"import sys; sys.argv = ['altprop', *{arguments}]\nfrom altprop.cli import main\n"
    code += "try:\n    main()\nexcept SystemExit:\n    pass\nassert 'torch' not in sys.modules, 'torch was imported'"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compare", "--rules", "backprob"], "did you mean 'backprop'"),
        (["compare", "--task", "minst", *QUICK], "did you mean 'mnist'"),
        (["compare", "--net", "covn", *QUICK], "did you mean 'conv'"),
        (["compare", "--net", "vgg8b", "--depth", "3", *QUICK], "leave --depth out"),
        (["compare", "--set", "backprop.lrr=1", *QUICK], "did you mean 'lr'"),
        (["compare", "--net", "black-box", "--set", "net.box=nosy", *QUICK], "box='nosy' is not known"),
        (["compare", "--depth", "2,x", *QUICK], "whole numbers"),
        (["compare", "--depth", "0", *QUICK], "positive whole number"),
        (["compare", "--batch-size", "0", *QUICK], "positive whole number"),
        (["compare", *QUICK, "--samples", "5"], "one positive budget"),
        (["compare", "--device", "cuda:99", *QUICK], "--device"),
        (["compare", "--stream", "--rules", "backprop", "--epochs", "3"], "sees the data once"),
        (["compare", "--stream", "--rules", "backprop", "--samples", "2000"], "1,197 training samples"),
        (["compare", "--store", "no/such/folder/s.db", *QUICK], "folder"),
        (["results"], "run `altprop compare` first"),
        (["report", "--store", "nothing.db"], "there is no store at nothing.db"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(tmp_path: Path, arguments: list[str], words: str) -> None:
    done = altprop(*arguments, cwd=tmp_path, HF_HUB_OFFLINE="1")
    errors = done.stderr.decode()
    assert done.returncode == 2, errors
    assert words in errors and "Traceback" not in errors
    assert len(errors.strip().splitlines()) == 1


def test_stream_answers_before_it_learns(tmp_path: Path) -> None:
    command = ["compare", "--stream", "--rules", "backprop", "--seeds", "1", "--width", "8", "--samples", "300"]
    done = altprop(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    assert "one pass" in done.stdout.decode() and "ms to the" in done.stdout.decode()
    assert list((tmp_path / "altprop-report").glob("digits-stream.svg"))
    rows = pd.read_csv(io.BytesIO(altprop("results", cwd=tmp_path).stdout))
    stream = rows[rows["split"] == "stream"]
    assert set(stream["batch_size"]) == {1} and {"accuracy", "accuracy of all"} <= set(stream["metric"])


def test_unknown_flag_is_exit_code_2(tmp_path: Path) -> None:
    assert altprop("compare", "--sedes", "3", cwd=tmp_path).returncode == 2


def test_ctrl_c_keeps_what_was_measured_and_says_how_to_go_on(tmp_path: Path) -> None:
    command = ["compare", "--rules", "backprop", "--seeds", "1", "--epochs", "100000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "altprop.cli", *command], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # background jobs inherit that it is ignored
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("altprop.db.checkpoints/*-2394.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.02)
        if list(tmp_path.glob("altprop.db.checkpoints/1-*.safetensors")):
            break
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "To go on: altprop compare --rules backprop" in errors.decode() and b"Traceback" not in errors
    rows = pd.read_csv(io.BytesIO(altprop("results", cwd=tmp_path).stdout))
    assert set(rows["status"]) == {"interrupted"} and rows["samples"].max() > 0
