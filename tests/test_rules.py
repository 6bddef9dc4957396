"""The dictionary of rules: every line leads somewhere, other packages add theirs, unknown names get the nearest one."""

from collections.abc import Iterator
from importlib.metadata import EntryPoint

import pytest

import altprop
from altprop import Backprop, UsageError, rules
from altprop.rule import Rule


@pytest.fixture
def with_entry_point(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    point = EntryPoint("their-rule", "altprop.rules.reference.backprop:Backprop", "altprop.rules")
    monkeypatch.setattr(rules, "entry_points", lambda group: [point] if group == "altprop.rules" else [])
    rules.places.cache_clear()
    yield
    monkeypatch.undo()
    rules.places.cache_clear()


@pytest.mark.parametrize("name", rules.RULES)
def test_every_line_leads_to_a_rule_that_the_package_shows(name: str) -> None:
    found = rules.find(name)
    assert issubclass(found, Rule)
    assert getattr(altprop, found.__name__) is found


@pytest.mark.usefixtures("with_entry_point")
def test_other_packages_add_rules_but_do_not_replace_ours() -> None:
    assert rules.find("their-rule") is Backprop
    assert set(rules.places()) == {*rules.RULES, "their-rule"}


@pytest.mark.parametrize(("name", "words"), [("backprob", "did you mean 'backprop'"), ("xyz", "there are backprop")])
def test_unknown_names(name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        rules.find(name)


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        altprop.nothing  # noqa: B018
