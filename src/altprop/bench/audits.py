"""Audit the rules of a comparison, once for each version of a rule's source."""

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pandas as pd

from altprop import rules
from altprop.analysis.audit import Finding, audit
from altprop.bench.source import source_hash
from altprop.bench.store import Store


def findings(name: str) -> list[Finding]:
    """The audit of a rule with its default hyperparameters."""
    rule = rules.find(name)
    return audit(lambda net, problem, generator: rule(net, problem, generator=generator))


def audit_all(store: Store, names: Iterable[str]) -> None:
    """Store the findings for every rule whose source has not been audited yet."""
    done = store.audits()
    known = set(zip(done["rule"], done["source_hash"], strict=True))
    for name in sorted(names):
        if (name, source_hash(name)) not in known:
            store.add_audit(name, "", source_hash(name), findings(name))


def audits_of(path: Path) -> pd.DataFrame:
    """The findings in a store."""
    with closing(Store(path, create=False)) as opened:
        return opened.audits()
