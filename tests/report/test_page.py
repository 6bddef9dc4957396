"""The page, in a real browser: it opens from disk, asks for nothing, and does what it shows."""

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from altprop.errors import UsageError
from altprop.report import page as module
from altprop.report import write

HOSTILE = '</script><script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">{{plotly}}'


def saved(results: pd.DataFrame, audits: pd.DataFrame, folder: Path) -> Path:
    """Only the page: the figures have tests of their own."""
    path = folder / "index.html"
    path.write_text(module.html(module.content(results, audits)), encoding="utf-8")
    return path


class Opened:
    """A page in the browser, with everything that it complained about or asked for."""

    def __init__(self, browser: Any, path: Path, width: int = 1400, **options: Any) -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900}, **options)
        self.troubles: list[str] = []
        self.page.on("console", lambda said: self.troubles.append(f"{said.type}: {said.text}"))
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("request", lambda asked: self.troubles.append(asked.url) if asked.url != path.as_uri() else None)
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("#plot-samples .main-svg")

    def axis(self, plot: str = "plot-samples", axis: str = "xaxis") -> str:
        return str(self.page.evaluate(f"document.getElementById('{plot}').layout.{axis}.type"))

    def download(self, button: str) -> str:
        with self.page.expect_download() as coming:
            self.page.click(button)
        return Path(coming.value.path()).read_bytes().decode()

    def filter(self, words: str) -> str:
        self.page.fill("#filter", words)
        return str(self.page.inner_text("#shown"))


@pytest.fixture(scope="module")
def path(results: pd.DataFrame, audits: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(results, audits, tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def shared(browser: Any, path: Path) -> Iterator[Opened]:
    opened = Opened(browser, path)
    yield opened
    opened.page.close()


@pytest.fixture
def opened(shared: Opened) -> Opened:
    """The one page, as it was opened."""
    shared.page.reload()
    shared.page.wait_for_selector("#plot-samples .main-svg")
    return shared


pytestmark = pytest.mark.browser


def test_it_asks_for_nothing_and_complains_of_nothing(opened: Opened) -> None:
    assert opened.troubles == []


def test_every_plot_is_drawn(opened: Opened) -> None:
    for plot in ("samples", "seconds", "operations", "seeds", "profile"):
        assert opened.page.locator(f"#plot-{plot} .scatterlayer .trace").count() > 5, plot


@pytest.mark.parametrize(("width", "scheme"), [(400, "light"), (1400, "dark")])
def test_it_fits_narrow_and_wide_light_and_dark(browser: Any, path: Path, width: int, scheme: str) -> None:
    opened = Opened(browser, path, width, color_scheme=scheme)
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    paper = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper)[:3])) < 384) == (scheme == "dark")
    assert opened.troubles == []
    opened.page.close()


def test_the_switches_change_the_axes_and_the_split(opened: Opened) -> None:
    assert (opened.axis(), opened.axis(axis="yaxis")) == ("log", "linear")
    opened.page.click("[data-choice='x=linear']")
    assert (opened.axis(), opened.axis("plot-seconds")) == ("linear", "linear")
    opened.page.click("[data-choice='x=log']")
    opened.page.click("[data-choice='y=error']")
    assert (opened.axis(), opened.axis(axis="yaxis")) == ("log", "log")
    opened.page.click("[data-choice='split=train']")
    assert opened.page.evaluate("document.getElementById('plot-seeds').layout.xaxis.title.text") == "train accuracy"


def test_a_name_in_the_legend_hides_its_lines_everywhere(opened: Opened) -> None:
    count = "document.getElementById('{}').data.length"
    before = [opened.page.evaluate(count.format(plot)) for plot in ("plot-samples", "plot-profile")]
    opened.page.click("#accuracy .legend button >> nth=0")
    after = [opened.page.evaluate(count.format(plot)) for plot in ("plot-samples", "plot-profile")]
    assert after[0] < before[0]
    assert after[1] == before[1] - 1


def test_another_case_shows_another_leaderboard_and_the_depths(opened: Opened) -> None:
    assert opened.page.locator("#depth").is_hidden()
    first = opened.page.inner_text("#leaderboard tbody")
    opened.page.select_option("#case", "cifar10 · depth 4")
    assert opened.page.inner_text("#leaderboard tbody") != first
    assert opened.page.locator("#plot-depth-bytes .scatterlayer .trace").count() > 5


def test_a_click_on_a_head_sorts(opened: Opened) -> None:
    first = "#leaderboard tbody tr >> nth=0"
    assert opened.page.inner_text(first).startswith("backprop\n")
    opened.page.click("[data-sort=operations]")
    assert opened.page.inner_text(first).startswith("backprop · linear")
    assert opened.page.get_attribute("#leaderboard th:has([data-sort=operations])", "aria-sort") == "ascending"
    opened.page.click("[data-sort=operations]")
    assert opened.page.inner_text(first).startswith("predictive-coding")
    # What has no number stays last, whichever way the others go.
    assert opened.page.inner_text("#leaderboard tbody tr >> nth=-1").startswith("soft-wta · on conv")


def test_what_did_not_happen_is_said_in_words(opened: Opened) -> None:
    board = opened.page.inner_text("#leaderboard")
    assert "1 of 3 seeds diverged: the loss is not finite" in board
    assert "unsupported: needs one-dimensional inputs" in board
    assert "running at epoch 3" in board
    goals = opened.page.inner_text("#targets")
    assert "not reached" in goals
    assert "unsupported" in goals
    assert "claimed: no" in opened.page.inner_text("#claims td.fails")
    opened.filter("readout")
    assert "no readout yet" in opened.page.inner_text("#raw tbody")


def test_the_filter_keeps_the_rows_with_all_words(opened: Opened, results: pd.DataFrame) -> None:
    assert opened.filter("").startswith("showing 500 of ")
    assert opened.page.locator("#raw tbody tr").count() == 500
    wanted = results.query("rule == 'soft-wta' and split == 'test' and seed == 1 and task == 'mnist'")
    shown = opened.filter("rule=soft-wta split=test seed=1 task=mnist")
    assert shown == f"showing {len(wanted)} of {len(results):,} rows"
    assert opened.page.locator("#raw tbody tr").count() == len(wanted)


def test_a_download_holds_every_column_of_the_rows_that_the_filter_keeps(opened: Opened, results: pd.DataFrame) -> None:
    wanted = results.query("rule == 'soft-wta' and split == 'test' and task == 'mnist'")
    opened.filter("rule=soft-wta split=test task=mnist")
    rows = list(csv.DictReader(io.StringIO(opened.download("#csv"), newline="")))
    assert list(rows[0]) == list(results.columns)
    assert len(rows) == len(wanted)
    for row, (_, true) in zip(rows, wanted.iterrows(), strict=True):
        assert row["machine"] == true["machine"]  # JSON with commas and quotes survives
        assert row["value"] == "" if pd.isna(true["value"]) else float(row["value"]) == pytest.approx(true["value"])
    stored = json.loads(opened.download("#json"))
    assert [row["samples"] for row in stored] == wanted["samples"].tolist()
    assert stored[0]["value"] is None


def test_hostile_names_are_only_text(
    browser: Any, one_task: pd.DataFrame, audits: pd.DataFrame, tmp_path: Path
) -> None:
    few = one_task[one_task["rule"].isin(["backprop", "soft-wta"])]
    columns = ("task", "rule", "reason", "command", "source_hash")
    bad = few.assign(**{name: few[name].replace({"mnist": HOSTILE, "soft-wta": HOSTILE}) for name in columns})
    bad = bad.assign(reason=HOSTILE, command=HOSTILE, machine=json.dumps({HOSTILE: HOSTILE}))
    path = saved(bad, audits.assign(claim=HOSTILE, measured=HOSTILE), tmp_path)
    opened = Opened(browser, path)
    opened.filter("script")
    assert opened.page.evaluate("window.hacked") is None
    assert opened.page.locator("img").count() == 0
    assert HOSTILE in opened.page.inner_text("#leaderboard")
    hovers = opened.page.evaluate("document.getElementById('plot-samples').data.flatMap((trace) => trace.text || [])")
    assert any("&lt;img" in text for text in hovers)
    assert not any("<img" in text for text in hovers)
    assert opened.troubles == []
    opened.page.close()


def test_twenty_thousand_rows_open_quickly(
    browser: Any, one_task: pd.DataFrame, audits: pd.DataFrame, tmp_path: Path
) -> None:
    losses = one_task.assign(metric="loss")
    many = pd.concat([one_task] + [losses] * (20_000 // len(losses)), ignore_index=True)
    path = saved(many, audits, tmp_path)
    assert path.stat().st_size < 5_000_000
    opened = Opened(browser, path)
    assert opened.page.locator("#raw tbody tr").count() == 500
    assert opened.page.evaluate("performance.now()") < 20_000  # a second or two; the bound is for a busy machine
    opened.page.close()


def test_older_protocols_are_left_out_and_the_page_says_so(one_task: pd.DataFrame, audits: pd.DataFrame) -> None:
    both = pd.concat([one_task, one_task.assign(protocol="0.9", value=0.5, run=one_task["run"] + 1000)])
    data = module.content(both, audits)
    assert data["protocol"] == "1.0"
    assert data["raw"]["length"] == len(one_task)
    assert data["notes"] == [
        f"{len(one_task):,} rows of an older protocol are left out: protocols are never mixed (shown: 1.0)."
    ]


def test_write_leaves_the_page_the_figures_and_nothing_else(
    one_task: pd.DataFrame, audits: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("altprop.report.figures.FORMATS", {"svg": {"Date": None}})
    few = one_task[one_task["rule"] == "backprop"]
    written = write(few, audits, tmp_path / "deep" / "report")
    assert written == tmp_path / "deep" / "report" / "index.html"
    names = {path.name for path in written.parent.iterdir()}
    assert names == {"index.html", *(f"mnist-accuracy-{cost}.svg" for cost in ("samples", "seconds", "operations"))}
    assert '"mnist-accuracy-samples.svg"' in written.read_text()


def test_nothing_to_report_is_said(audits: pd.DataFrame, one_task: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="altprop compare"):
        write(one_task.iloc[:0], audits, tmp_path)


def test_a_folder_that_is_a_file_is_said(audits: pd.DataFrame, one_task: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        write(one_task, audits, tmp_path / "file")
