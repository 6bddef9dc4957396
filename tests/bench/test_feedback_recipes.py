"""The recipe of the feedback family: its contenders can be built, and its verdict follows from the numbers."""

import pandas as pd
import pytest

from altprop import Problem
from altprop.bench import feedback_recipes
from altprop.bench.contender import Setting

SETTING = Setting("mnist", Problem((784,), 10), "mlp", 256, 2)


def test_all_contenders_have_the_same_net_and_every_goal_is_of_one_of_them() -> None:
    (recipe,) = feedback_recipes.FEEDBACK
    found = recipe.contenders(SETTING)
    for chosen in found:
        rule = chosen.build(SETTING, 0)
        assert [tuple(p.shape) for p in rule.net.parameters() if p.dim() > 1] == [(256, 784), (256, 256), (10, 256)]
        assert (chosen.act, chosen.init) == ("tanh", "lecun")
    labels = [chosen.label for chosen in found]
    assert len(set(labels)) == len(labels) and {name for name, _ in recipe.goals} <= set(labels)


@pytest.mark.parametrize(("gap", "verdict"), [(0.02, "yes"), (0.005, "**no**")])
def test_targets_against_the_shallow_net(monkeypatch: pytest.MonkeyPatch, gap: float, verdict: str) -> None:
    rows = [
        {"rule": rule, "variant": variant, "seed": seed, "value": value}
        for rule, variant, value in (
            ("direct-random-target-projection", "", 0.9 + gap),
            ("backprop", "frozen", 0.9),
            ("backprop", "", 0.98),
        )
        for seed in (0, 1)
    ]
    monkeypatch.setattr(feedback_recipes, "final", lambda frame: frame)
    text = feedback_recipes.above_shallow(pd.DataFrame(rows))
    assert text.endswith(f"{verdict}.") and f"{100 * gap:+.2f}, {100 * gap:+.2f} points" in text
