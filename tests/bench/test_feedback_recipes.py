"""The recipes of the feedback family: their contenders can be built, and every goal is of one of them."""

from altprop import Problem
from altprop.bench import feedback_recipes
from altprop.bench.contender import Setting

SETTING = Setting("mnist", Problem((784,), 10), "mlp", 256, 2)


def test_all_contenders_have_the_same_net_and_every_goal_is_of_one_of_them() -> None:
    recipe, long_run = feedback_recipes.FEEDBACK
    found = recipe.contenders(SETTING)
    for chosen in found:
        rule = chosen.build(SETTING, 0)
        assert [tuple(p.shape) for p in rule.net.parameters() if p.dim() > 1] == [(256, 784), (256, 256), (10, 256)]
        assert (chosen.act, chosen.init) == ("tanh", "lecun")
    labels = [chosen.label for chosen in found]
    assert len(set(labels)) == len(labels) and {name for name, _ in recipe.goals} <= set(labels)
    assert [c.label for c in long_run.contenders(SETTING)] == [name for name, _ in long_run.goals]
