"""The version of a rule: a hash of its source and of what it is made of, without running any of it."""

import ast
import hashlib
import sys
from functools import cache
from importlib.util import resolve_name
from pathlib import Path

import altprop
from altprop import rules

FAMILY = "altprop.rules."


@cache  # a run keeps the version that it began with, even if a file changes meanwhile
def source_hash(rule: str) -> str:
    """SHA-256 of a rule's source file and of the modules of `altprop.rules` that it imports, directly or not."""
    module = sys.modules[rules.find(rule).__module__]
    path = Path(str(module.__file__))
    digest = hashlib.sha256(path.read_bytes())
    others = parts(path, module.__package__ or "") - {module.__name__}
    for name in sorted(others):
        digest.update(f"\n{name}\n".encode() + place(name).read_bytes())
    return digest.hexdigest()[:16]


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
