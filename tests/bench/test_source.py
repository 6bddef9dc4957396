"""A rule's version covers its own source and that of the modules of rules that it imports, however it imports them."""

import ast
import hashlib
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from altprop import rules
from altprop.bench import source
from altprop.bench.source import code, parts, source_hash


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of rules of its own: `main` imports `near` and, through it, `far`; `apart` is imported by nobody."""
    folder = tmp_path / "altprop" / "rules" / "made"
    folder.mkdir(parents=True)
    files = {
        "__init__": "",
        "alone": "import torch\nfrom altprop.rule import Rule\nclass Alone: pass\n",
        "main": "from altprop.rules.made import near\nclass Main: pass\n",
        "near": "from .far import thing\nfrom altprop.rules import find\n",
        "far": "import altprop.rules.made.main\nthing = 1\n",
        "apart": "",
    }
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    (tmp_path / "altprop" / "__init__.py").write_text("")
    monkeypatch.setattr(source.altprop, "__file__", str(tmp_path / "altprop" / "__init__.py"))
    source_hash.cache_clear()
    yield folder
    source_hash.cache_clear()


def test_imports_are_followed_without_running_them(package: Path) -> None:
    family = "altprop.rules.made"
    assert parts(package / "main.py", family) == {f"{family}.near", f"{family}.far", f"{family}.main"}
    assert parts(package / "alone.py", family) == set()
    assert f"{family}.near" not in sys.modules


def version(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The hash of the rule in the folder's file `name`."""
    module = type(sys)(f"altprop.rules.made.{name}")
    module.__file__, module.__package__ = str(folder / f"{name}.py"), "altprop.rules.made"
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(rules, "find", lambda _: type("Made", (), {"__module__": module.__name__}))
    source_hash.cache_clear()
    return source_hash(name)


def test_a_rule_that_imports_none_has_the_hash_of_its_file(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = hashlib.sha256((package / "alone.py").read_bytes().rstrip()).hexdigest()[:16]
    assert version(package, "alone", monkeypatch) == plain


WORDS = '''"""What a made rule is."""

# a comment
class Main:  # another
    """Its docstring,
    in two lines."""

    size = 3
    """What an attribute is."""

    def learn(self) -> str:
        """What it does."""
        return "# no comment"
'''
CODE = """class Main:
    size = 3
    def learn(self) -> str:
        return "# no comment"
"""


def test_words_are_not_code(package: Path) -> None:
    (package / "main.py").write_text(WORDS)
    assert code(package / "main.py") == CODE.rstrip()
    (package / "main.py").write_text("x = 1; 'a word'\n")
    assert code(package / "main.py") == "x = 1;"


@pytest.mark.parametrize("rule", list(rules.RULES))
def test_code_without_words_is_the_same_code(rule: str) -> None:
    path = Path(str(sys.modules[rules.find(rule).__module__].__file__))
    bare, whole = (ast.dump(without_words(ast.parse(text))) for text in (code(path), path.read_text()))
    assert bare == whole


def without_words(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [n for n in node.body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]
    return tree


@pytest.mark.parametrize(
    ("changed", "word", "matters"),
    [
        ("main", "another = 1", True),
        ("near", "another = 1", True),
        ("far", "another = 1", True),
        ("apart", "another = 1", False),
        ("far", "# another word", False),
    ],
)
def test_a_change_of_code_anywhere_in_what_is_imported_is_another_version(
    package: Path, monkeypatch: pytest.MonkeyPatch, changed: str, word: str, matters: bool
) -> None:
    before = version(package, "main", monkeypatch)
    with (package / f"{changed}.py").open("a") as file:
        file.write(f"{word}\n")
    assert (version(package, "main", monkeypatch) != before) == matters


def test_backprop_is_made_of_its_own_file_alone() -> None:
    source_hash.cache_clear()
    module = importlib.import_module("altprop.rules.reference.backprop")
    assert source_hash("backprop") == hashlib.sha256(code(Path(str(module.__file__))).encode()).hexdigest()[:16]
