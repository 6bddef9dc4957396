"""Every Python example in the documents runs as it stands."""

import multiprocessing
import os
import re
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = [
    pytest.param(code, id=f"{path.stem}-{i}")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for i, code in enumerate(re.findall(r"^```python\n(.*?)^```", path.read_text(), re.M | re.S))
]


FRESH = multiprocessing.get_context("forkserver")
FRESH.set_forkserver_preload(["torch", "altprop.rule"])
"""Each example has a process of its own, forked from one that has imported what takes seconds to import."""


def execute(code: str, folder: Path, warn: str) -> None:
    """In a fresh process: run the code in the folder; what it prints goes to `out` there."""
    os.chdir(folder)
    file = os.open("out", os.O_CREAT | os.O_WRONLY)
    os.dup2(file, 1)
    os.dup2(file, 2)
    warnings.simplefilter(warn)  # type: ignore[arg-type]
    exec(compile(code, "example", "exec"), {"__name__": "__main__"})


def run(code: str, folder: Path, warn: str = "error") -> str:
    """What an example prints; fails if it raises, or takes two minutes."""
    process = FRESH.Process(target=execute, args=(code, folder, warn))
    process.start()
    process.join(120)
    printed = (folder / "out").read_text()
    if process.is_alive():
        process.kill()
    assert process.exitcode == 0, printed
    return printed


@pytest.mark.parametrize("code", EXAMPLES)
def test_example(code: str, tmp_path: Path) -> None:
    run(code, tmp_path)


def test_an_example_that_fails_or_warns_is_found(tmp_path: Path) -> None:
    for code, said in (("1 / 0", "ZeroDivisionError"), ("import warnings; warnings.warn('look out')", "look out")):
        with pytest.raises(AssertionError, match=said):
            run(code, tmp_path)


def test_the_readme_has_an_example_that_reaches_its_accuracy(tmp_path: Path) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    assert float(run(code, tmp_path, "default").split()[-1]) > 0.93


@pytest.mark.parametrize("path", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda p: p.name)
def test_links_lead_somewhere(path: Path) -> None:
    prose = re.sub(r"^```.*?^```|`[^`]*`", "", path.read_text(), flags=re.M | re.S)
    for link in re.findall(r"\]\(([^)#]+)\)", prose):
        assert link.startswith(("http://", "https://")) or (path.parent / link).exists(), link
