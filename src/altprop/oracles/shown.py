"""What `altprop verify` prints."""

from rich.console import Console
from rich.table import Table

from altprop import oracles, rules
from altprop.errors import UsageError
from altprop.oracles.check import Check


def show(rule: str, console: Console) -> bool:
    """Print what each of the rule's oracles found ("all": of every rule that has some); whether all bounds hold."""
    if rule != "all":
        rules.find(rule)
    names = list(oracles.ORACLES) if rule == "all" else [rule]
    if rule not in oracles.ORACLES and rule != "all":
        name = rule.replace("-", "_")
        raise UsageError(
            f"no oracle of {rule} comes with the package (those of {', '.join(oracles.ORACLES)} do); its tests are in "
            f"tests/rules/test_{name}.py"
        )
    held = True
    for name in names:
        for says, checks in oracles.verify(name):
            console.print(f"[bold]{name}[/bold]: {says}", highlight=False)
            console.print(table(checks))
            held &= all(check.holds for check in checks)
    console.print("all bounds hold" if held else "[red]a bound does not hold[/red]")
    return held


def table(checks: list[Check]) -> Table:
    found = Table(box=None, pad_edge=False)
    for head in ("compared", "found", "bound", ""):
        found.add_column(head, justify="right" if head in ("found", "bound") else "left", overflow="fold")
    for check in checks:
        what = f"{check.what} (must fail)" if check.control else check.what
        mark = "[green]holds[/green]" if check.holds else "[red]fails[/red]"
        found.add_row(what, f"{check.found:.3g}", f"{check.kind} {check.bound:.3g}", mark)
    return found
