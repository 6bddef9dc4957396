"""What there is: rules with their claims, tasks and nets; read from the sources' text, without importing torch."""

import ast
from importlib.util import find_spec
from pathlib import Path

from rich.table import Table
from rich.text import Text

from altprop import rules, tasks

NETS = {
    "mlp": "linear blocks, flat input",
    "conv": "3x3 convolutions with pooling (a small VGG)",
    "vgg8b": "six 3x3 convolutions and a linear block, whose widths follow from the first one's",
    "local": "local receptive fields without weight sharing",
    "residual": "linear blocks of one width that add to what they take, scaled for any depth, flat input",
    "soft-hebb": "convolutions behind batch normalisations, with triangle units (SoftHebb)",
    "soft-hebb-mlp": "linear blocks with triangle units (SoftHebb), flat input",
    "spiking": "leaky integrate-and-fire neurons over time, flat input",
    "recurrent-spiking": "the same with recurrent weights; the input held, or row after row, flat input",
    "spike-coded": "inputs as spikes, then positive weights under balanced inhibition, flat input",
    "rates": "leaky rate neurons in continuous time, flat input",
    "black-box": "linear blocks on hardware without a derivative (distorted, quantised, noisy, ...), flat input",
}


def describe(name: str) -> tuple[str, dict[str, object]]:
    """A rule's first line of documentation and its literal claims."""
    module, _, attribute = rules.places()[name].partition(":")
    # find_spec imports the parent packages, which hold nothing but a docstring.
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return f"(its module {module} is not installed)", {}
    tree = ast.parse(Path(spec.origin).read_text())
    node = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == attribute)
    claims: dict[str, object] = {}
    for line in node.body:
        named = isinstance(line, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "claims" for t in line.targets)
        if named and isinstance(line, ast.Assign) and isinstance(line.value, ast.Call):
            claims = {k.arg: ast.literal_eval(k.value) for k in line.value.keywords if k.arg}
    return (ast.get_docstring(node) or "").partition("\n")[0], claims


def rules_text() -> Text:
    """One paragraph a rule: its name, what it is, and what it claims."""
    text = Text()
    for name in rules.places():
        line, claims = describe(name)
        text.append(f"{name}\n", style="bold")
        text.append(f"    {line}\n")
        said = "; ".join(f"{claim.replace('_', ' ')}: {_word(value)}" for claim, value in claims.items())
        text.append(f"    {said}\n", style="dim")
    return text


def tasks_table() -> Table:
    """Tasks and nets by name."""
    table = Table(title="tasks and nets", title_justify="left")
    table.add_column("kind")
    table.add_column("name", style="bold", no_wrap=True)
    table.add_column("what it is")
    for name, line in tasks.names().items():
        table.add_row("task", name, line)
    for name, line in NETS.items():
        table.add_row("net", name, line)
    return table


def _word(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
