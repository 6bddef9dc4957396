"""Recipes: their contenders can be built, their goals are of predictors that exist, pages come from published rows."""

from pathlib import Path

import pandas as pd
import pytest

from altprop import Problem, UsageError, rules
from altprop.bench import compare, recipes
from altprop.bench import recipe as recipe_module
from altprop.bench.cases import worded
from altprop.bench.compare import unsupported
from altprop.bench.contender import IMAGES, Setting
from altprop.bench.contenders import controls
from altprop.bench.publish import read_rows, write_rows
from altprop.bench.recipe import Goal, Lead, Recipe, lines, section
from altprop.bench.recipes import BOOK, Page, chosen

RECIPES = [recipe for page in BOOK for recipe in page.recipes]
SHAPES = {"mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
SMALL = Recipe(
    "Two small ones",
    1,
    {("backprop", ""): Goal(20.0, 99.99, "nobody"), ("signal-propagation", "nearest"): Goal(100.0)},
    task="digits",
    width=16,
    seeds=2,
)


@pytest.fixture(autouse=True)
def _no_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "audit_all", lambda *_: None)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.folder)
def test_each_recipes_contenders_can_be_built_and_its_goals_are_theirs(recipe: Recipe) -> None:
    shape = SHAPES[recipe.task]
    vectors = (shape[0] * shape[1] * shape[2],)
    taken = shape if recipe.net in IMAGES else vectors
    common = Setting(recipe.task, Problem(taken, 10), recipe.net, 64, recipe.depth)
    contenders = recipe.contenders(common)
    labels = {c.label for c in [*contenders, *controls(contenders, common)]}
    assert {label for label, _ in recipe.goals} <= labels
    assert {name for lead in recipe.leads for name in (lead.ahead, lead.behind)} <= labels
    for c in contenders:
        kind = c.net or recipe.net
        setting = Setting(recipe.task, Problem(shape if kind in IMAGES else vectors, 10), recipe.net, 64, recipe.depth)
        assert unsupported(c, setting, 0) is None
        predictors = c.build(setting, 0).predictors()
        assert {predictor for label, predictor in recipe.goals if label == c.label} <= set(predictors)


@pytest.mark.parametrize(
    ("each", "values", "verdict"),
    [
        (False, (0.92, 0.97), "in the mean|+2.00, +4.00 points|yes."),
        (False, (0.905, 0.93), "+0.50, +0.00 points|in the mean|**no**."),
        (True, (0.92, 0.97), "+2.00, +4.00 points|on each|yes."),
        (True, (0.905, 0.97), "+0.50, +4.00 points|on each|**no**."),
        (False, (0.92, float("nan")), "+2.00, +nan points|**no**."),
    ],
)
def test_a_lead_is_judged_seed_by_seed(
    monkeypatch: pytest.MonkeyPatch, each: bool, values: tuple[float, float], verdict: str
) -> None:
    frame = pd.DataFrame(
        [
            {"rule": rule, "variant": variant, "predictor": predictor, "seed": seed, "value": value}
            for rule, variant, predictor, found in (
                ("soft-hebb", "", "", values),
                ("soft-hebb", "frozen", "", (0.9, 0.93)),
                ("forward-forward", "", "head", (0.1, 0.1)),
                ("forward-forward", "", "energy", (0.1, 0.1)),
            )
            for seed, value in enumerate(found)
        ]
    )
    monkeypatch.setattr(recipe_module, "final", lambda frame: frame)
    text = Lead("soft-hebb", "soft-hebb · frozen", 1.0, each).verdict(frame)
    assert all(words in text for words in verdict.split("|")) and text.startswith("soft-hebb minus soft-hebb · frozen")


def test_names_are_one_of_a_kind() -> None:
    assert len({recipe.folder for recipe in RECIPES}) == len(RECIPES)
    assert chosen(("ten-epochs", "Ten epochs", "recurrent")) == [
        recipe for recipe in RECIPES if recipe.folder in ("ten-epochs", "recurrent")
    ]
    assert chosen(()) == RECIPES
    with pytest.raises(UsageError, match="did you mean 'ten-epochs'"):
        chosen(("ten-epoch",))


def test_the_foundations_recipes_name_rules_that_exist() -> None:
    assert {rule for recipe in BOOK[0].recipes for rule, _ in recipe.goals} <= set(rules.places())


def test_a_page_is_made_from_what_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page("page", "# Head\n\n{interval}{pages}", (SMALL, Recipe("Never run", 1, {})))
    monkeypatch.setattr(recipes, "BOOK", (page,))
    recipes.main(("two-small-ones",), tmp_path, tmp_path / "s.db")
    text = (tmp_path / "page.md").read_text()
    assert "## Two small ones" in text and "digits, 1 epoch, 2 seeds." in text and "Never run" not in text
    assert "99.99 (nobody)" in text and "| yes |" in text and "**no**" in text
    assert text.index("backprop |") < text.index("backprop · frozen |")
    for name in ("rows.csv", "runs.csv", "digits-accuracy-samples.png", "digits-accuracy-samples.svg"):
        assert (tmp_path / SMALL.folder / name).exists()
    assert not list(tmp_path.rglob("*.pdf"))
    assert section(SMALL, tmp_path) in text
    top = text[: text.index("## Two small ones")]
    assert "[Two small ones](#two-small-ones), 1 epoch, 2 seeds | backprop |" in top and "frozen" not in top


def test_a_recipe_with_a_diverged_seed_is_not_reached() -> None:
    common = {"case": "c", "label": "backprop", "rule": "backprop", "variant": "", "predictor": "", "state": "ok"}
    common |= {
        "status": "ok",
        "metric": "accuracy",
        "samples": 10,
        "train_seconds": 60.0,
        "task": "digits",
        "net": "mlp",
    }
    common |= {"depth": 2, "width": 8, "hyperparameters": "{}", "epochs": 1}
    for values, reached in (([0.9, 0.92, 0.91], "yes"), ([0.9, float("nan"), 0.91], "**no**")):
        frame = pd.DataFrame([
            {**common, "seed": seed, "run": seed, "split": split, "value": value}
            for seed, value in enumerate(values)
            for split in ("train", "test")
        ])  # fmt: skip
        (cells,) = lines(Recipe("r", 1, {("backprop", ""): Goal(90.0)}), frame)
        assert cells[-1] == reached and ("diverged" in cells[5]) == (reached != "yes")


def test_only_a_recipes_own_runs_are_published(tmp_path: Path) -> None:
    store = tmp_path / "s.db"
    plans = SMALL.plans()
    frame = compare.compare("digits", ["backprop"], seeds=1, samples=64, width=16, store=store)
    assert compare.measured(plans, frame, store).empty
    frame = compare.carry_out(plans[:2], store)
    mine = compare.measured(plans, frame, store)
    assert mine["run"].nunique() == 2 and frame["run"].nunique() > 2


def test_controls_on_the_same_net_only() -> None:
    setting = Setting("digits", Problem((64,), 10), "mlp", 16, 2)
    data = SMALL.plans()[0].task
    plain = SMALL.contenders(setting)
    labels = [c.label for c in compare.controlled(plain, setting, data, same_net=True)]
    assert labels == ["backprop", "signal-propagation"]
    other = [c for c in recipes.FOUNDATION[1].contenders(setting)][:1]
    labels = [c.label for c in compare.controlled(other, setting, data, same_net=True)]
    assert labels == ["forward-forward", "backprop · on the net of forward-forward"]


def test_published_rows_are_the_stored_ones(tmp_path: Path) -> None:
    stored = compare.compare("digits", ["soft-wta", "forward-forward"], seeds=1, epochs=1, width=16, net="conv",
                             store=tmp_path / "s.db")  # fmt: skip
    assert {"unsupported"} < set(stored["status"])
    stored["source_hash"] = "20373618488e7849"  # no number, though it could be read as one
    write_rows(stored, tmp_path / "out")
    back = read_rows(tmp_path / "out")
    keys = ["rule", "variant", "seed", "samples", "predictor", "split"]
    columns = [
        *keys,
        "value",
        "status",
        "reason",
        "source_hash",
        "protocol",
        "hyperparameters",
        "batch_size",
        "train_seconds",
        "task_note",
    ]
    one, other = (
        worded(frame)[columns].sort_values(keys, key=lambda c: c.astype(str), ignore_index=True)
        for frame in (stored, back)
    )
    pd.testing.assert_frame_equal(one, other, check_dtype=False, rtol=1e-6)
    assert read_rows(tmp_path).empty
