"""The version of a rule: a hash of its code and of what it is made of, without running any of it.

Comments, docstrings and blank lines don't count: other words don't make measured runs old.
"""

import ast
import hashlib
import io
import sys
import tokenize
from functools import cache
from importlib.util import resolve_name
from pathlib import Path

import altprop
from altprop import rules

FAMILY = "altprop.rules."


@cache  # a run keeps the version that it began with, even if a file changes meanwhile
def source_hash(rule: str) -> str:
    """SHA-256 of the code of a rule's file and of the modules of `altprop.rules` that it imports, directly or not."""
    module = sys.modules[rules.find(rule).__module__]
    path = Path(str(module.__file__))
    digest = hashlib.sha256(code(path).encode())
    others = parts(path, module.__package__ or "") - {module.__name__}
    for name in sorted(others):
        digest.update(f"\n{name}\n{code(place(name))}".encode())
    return digest.hexdigest()[:16]


def code(path: Path) -> str:
    """A source file without its comments, docstrings and blank lines."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            first, last = node.lineno, node.end_lineno or node.lineno
            lines[first - 1 : last] = [lines[first - 1][: node.col_offset], *[""] * (last - first)]
    return "\n".join(line.rstrip() for line in lines if line.strip())


def parts(path: Path, package: str) -> set[str]:
    """The modules of `altprop.rules` that a source file imports, and those that they import; packages left out."""
    found: set[str] = set()
    waiting = list(imported(path, package))
    while waiting:
        name = waiting.pop()
        if name.startswith(FAMILY) and name not in found and place(name).is_file():
            found.add(name)
            waiting += imported(place(name), name.rpartition(".")[0])
    return found


def imported(path: Path, package: str) -> set[str]:
    """The dotted names in a file's import statements; what is imported from a module may be a module itself."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = resolve_name("." * node.level + (node.module or ""), package) if node.level else str(node.module)
            names |= {origin, *(f"{origin}.{alias.name}" for alias in node.names)}
    return names


def place(module: str) -> Path:
    """The file of one of altprop's modules, if it is a file and no package."""
    return Path(str(altprop.__file__)).parent.joinpath(*module.split(".")[1:]).with_suffix(".py")
