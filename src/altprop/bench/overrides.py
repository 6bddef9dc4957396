"""`--set rule.name=value`: one hyperparameter of one contender, checked against the rule's signature; and
`--set net.name=value`: one option of the common net, checked against its builder's.
"""

import ast
import difflib
import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

from altprop import rules, schedules
from altprop.bench.contender import BUILDERS, Contender, Optimizer
from altprop.errors import UsageError

OWNED = {"self", "net", "problem", "optimizer", "schedule", "generator"}
OWNED_OF_NETS = {"widths", "width", "shape", "channels", "fields", "classes", "act", "init", "generator"}
"""Arguments of rules and of nets' builders that a contender gives."""


def override(contenders: list[Contender], settings: list[str], kind: str = "mlp") -> list[Contender]:
    """Apply each setting to the plain contender of its rule (controls keep their own tuning), and what is set of the
    net, which is of this kind, to all that are on it (a control keeps its own derivative).

    A name is a hyperparameter of the rule, or `batch_size`, `schedule`, `lr`, or `part.lr` for one part's rate.
    Raises UsageError for an unknown rule or name (with the nearest one) and for a value of another kind.
    """
    found = list(contenders)
    for setting in settings:
        name, equals, text = setting.partition("=")
        rule, dot, key = name.strip().partition(".")
        if not (equals and dot and key):
            raise UsageError(f"--set {setting}: write it as rule.name=value, e.g. --set backprop.lr=3e-4")
        if rule == "net":
            found = _set_net(found, kind, key, _value(text.strip()), setting)
            continue
        present = sorted({c.rule for c in found})
        if rule not in present:
            near = difflib.get_close_matches(rule, present, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(present)}"
            raise UsageError(f"--set {setting}: there is no rule {rule!r} in this comparison; {hint}")
        found = [_set(c, key, _value(text.strip()), setting) if c.rule == rule and not c.variant else c for c in found]
    return found


def _set(contender: Contender, key: str, value: Any, setting: str) -> Contender:
    part, _, argument = key.rpartition(".")
    if argument == "lr" and (not part or part in contender.optimizer):
        _check(isinstance(value, int | float) and value > 0, setting, "a learning rate is a positive number")
        chosen = {name: _rate(o, value) if part in ("", name) else o for name, o in contender.optimizer.items()}
        return replace(contender, optimizer=chosen)
    if key == "batch_size":
        _check(isinstance(value, int) and value > 0, setting, "a batch size is a positive whole number")
        return replace(contender, batch_size=value)
    if key == "schedule":
        known = [name for name, f in vars(schedules).items() if inspect.isfunction(f)]
        _check(value in known, setting, f"the schedules are {', '.join(known)}")
        return replace(contender, schedule=value)
    options = _options(rules.find(contender.rule), OWNED)
    rates = ["lr", *(f"{part}.lr" for part in contender.optimizer if part != "all")]
    value = _fitting(options, key, value, setting, contender.rule, [*rates, "batch_size", "schedule"])
    return replace(contender, options={**contender.options, key: value})


def _set_net(contenders: list[Contender], kind: str, key: str, value: Any, setting: str) -> list[Contender]:
    """The option for every contender on the common net."""
    value = _fitting(_options(BUILDERS[kind], OWNED_OF_NETS), key, value, setting, f"the {kind} net", [])
    found = []
    for c in contenders:
        own = c.net or not c.widths or (c.variant and key in c.net_options)
        found.append(c if own else replace(c, net_options={**c.net_options, key: value}))
    return found


def _options(called: Callable[..., Any], owned: set[str]) -> dict[str, inspect.Parameter]:
    """What may be set, by name; a class that hands on what it does not know takes what its bases take, too."""
    bases = called.__mro__ if isinstance(called, type) else ()
    makers = [vars(kind)["__init__"] for kind in bases if "__init__" in vars(kind)] or [called]
    found: dict[str, inspect.Parameter] = {}
    for maker in makers:
        parameters = inspect.signature(maker).parameters
        named = {name: p for name, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        found = found | {name: p for name, p in named.items() if name not in {*found, *owned, "self"}}
        if all(p.kind != p.VAR_KEYWORD for p in parameters.values()):
            break
    return found


def _kind(option: inspect.Parameter) -> type | None:
    """The type that an option's values have: its default's, or "int" of `int | None`; None where that is not known."""
    if option.default not in (None, inspect.Parameter.empty):
        return type(option.default)
    named = [kind for kind in get_args(option.annotation) if kind is not type(None)]
    return named[0] if len(named) == 1 and named[0] in (int, float, str, bool) else None


def _fitting(
    options: dict[str, inspect.Parameter], key: str, value: Any, setting: str, whose: str, others: list[str]
) -> Any:
    """The value, if there is such an option and it is of its kind."""
    if key not in options:
        known = [*options, *others]
        near = difflib.get_close_matches(key, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known) or 'none'}"
        raise UsageError(f"--set {setting}: {whose} has no hyperparameter {key!r}; {hint}")
    kind = _kind(options[key])
    if kind is float and type(value) is int:
        value = float(value)
    if kind is not None:
        words = f"{key} is of kind {kind.__name__} (now {options[key].default!r})"
        _check(value is None or type(value) is kind, setting, words)
    return value


def _rate(optimizer: Optimizer, value: float) -> Optimizer:
    return replace(optimizer, arguments={**optimizer.arguments, "lr": float(value)})


def _check(fits: bool, setting: str, rule: str) -> None:
    if not fits:
        raise UsageError(f"--set {setting}: {rule}")


def _value(text: str) -> Any:
    """A Python literal, or the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
