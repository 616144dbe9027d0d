"""The report: right figures, plain words, nothing from outside, the same bytes again, clear errors."""

from __future__ import annotations

import base64
import itertools
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from world4rl.config import Gates, Params
from world4rl.errors import DataError
from world4rl.evaluation import figures, wording
from world4rl.evaluation.metrics import Summary, read_summary
from world4rl.evaluation.report import write_report
from world4rl.evaluation.statistics import mean_gain, paired_difference_interval
from world4rl.evaluation.tables import check_trials, read_curve, read_trials
from world4rl.files import read_json, write_json
from world4rl.paths import Paths
from world4rl.runner import visible_params
from world4rl.stages import STAGES

from .conftest import BUTTON, GOOD, HANDLE, POOR, Outcome

Builder = Callable[..., tuple[Params, Paths]]
VOID = {"meta", "link", "img", "br", "hr", "input", "source"}


class Page(HTMLParser):
    """A page's elements with their attributes, and its text; refuses tags that do not match."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("style", "pre"):
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def read(paths: Paths) -> Page:
    return Page(paths.report.read_text(encoding="utf-8"))


def test_a_good_run_says_yes_and_by_how_much(finished_run: Builder) -> None:
    params, paths = finished_run(GOOD)
    write_report(params, paths)
    text = read(paths).text
    assert "Yes: practising in imagination made the policies better." in text
    assert "Over 2 tasks and 200 trials a policy, success rose by 20.5 points: from 51.5\u00a0%" not in text  # spaces
    assert "success rose by 20.5 points: from 51.5 % for the policies cloned from demonstrations to 72 %" in text
    _, (low, high) = mean_gain([24, 17], [_points(GOOD[BUTTON]), _points(GOOD[HANDLE])])
    assert f"lies between {low:+.0f} and {high:+.0f} points: above zero" in text
    assert "What fell short Nothing: every task is clearly better" in text
    assert "Each task on its own is clearly better too." in text


def _points(outcome: Outcome) -> tuple[float, float]:
    low, high = paired_difference_interval(outcome.both, outcome.gained, outcome.lost, outcome.neither)
    return 100 * low, 100 * high


def test_a_poor_run_is_reported_as_such(finished_run: Builder) -> None:
    params, paths = finished_run(POOR, poor=True)
    write_report(params, paths)
    text = read(paths).text
    assert "No: practising in imagination made the policies worse." in text
    assert "Keep the policies as they were cloned." in text
    for sentence in (
        "Faucet open: the refined policy is worse than the cloned one (−15 points, −26 to −3). Use the cloned policy.",
        "Button press topdown: the refined policy succeeded less often than the cloned one, though perhaps by bad luck",
        "imagination flatters the refined policy: it succeeds 83 % of the time there and 53 % in the simulator",
        "55 % of held-out expert successes are seen as successes; at least 90 % should be",
        "25 steps ahead the world model predicts no better than repeating the last frame",
        "The world model hardly listens to the actions",
        "with random actions its error is only 1.08 times that with the true ones; it should be at least 1.2 times",
        "calls real frames a success it is right 81 % of the time; the bound is 90 %",
        "On generated frames the success classifier called nothing a success",
        "10 things fell short",
        "✕ not foretold",
    ):
        assert sentence in text
    # Exactly 15 points apart is still within 15 points.
    assert "imagination flatters the cloned policy" not in text


@pytest.mark.parametrize(("ratio", "heeds"), [(1.0, False), (1.19, False), (1.2, True), (3.0, True)])
def test_a_model_that_random_actions_hardly_disturb_falls_short(
    finished_run: Builder, ratio: float, heeds: bool
) -> None:
    """Also where exchanged actions, which may be much alike, leave nothing to complain of."""
    params, paths = finished_run(GOOD)
    write_json(paths.fidelity_metrics, read_json(paths.fidelity_metrics) | {"random_action_ratio": ratio})
    write_report(params, paths)
    text = read(paths).text
    assert ("Nothing: every task is clearly better" in text) == heeds
    assert ("The world model does not heed what the robot does" in text) != heeds
    assert f"{figures.number(ratio, 3)}× the error when they are random" in text


def test_a_small_gain_is_not_called_one(finished_run: Builder) -> None:
    params, paths = finished_run({BUTTON: Outcome(40, 22, 15, 23, 0.55, 0.62)})
    write_report(params, paths)
    text = read(paths).text
    assert "Not proven" in text
    assert "That range holds zero, so the difference may be luck." in text
    assert "Button press topdown: the refined policy is not shown to be better than the cloned one (+7 points" in text
    assert "Over 100 trials, success rose by 7 points" in text


def test_the_page_needs_nothing_from_outside(finished_run: Builder) -> None:
    params, paths = finished_run(GOOD)
    write_report(params, paths)
    page = read(paths)
    for _, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "srcset", "data", "poster", "action"):
            assert attributes.get(name, "data:").startswith(("data:", "#"))
    source = paths.report.read_text(encoding="utf-8")
    style = source[source.index("<style>") : source.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert not page.all("script")
    assert len(page.all("video")) == 6
    video = page.all("video")[0]
    folder = paths.evaluation(params.tasks[0])
    assert base64.b64decode(video["src"].partition(",")[2]) == sorted(folder.glob("*.mp4"))[0].read_bytes()
    assert len(page.all("img")) == 4


def test_everyone_can_read_the_page(finished_run: Builder) -> None:
    params, paths = finished_run(GOOD)
    write_report(params, paths)
    page = read(paths)
    assert page.all("html")[0]["lang"] == "en"
    assert (
        "width=device-width"
        in {each.get("name"): each["content"] for each in page.all("meta") if "name" in each}["viewport"]
    )
    assert "prefers-color-scheme: dark" in paths.report.read_text(encoding="utf-8")
    assert all(len(each["alt"]) > 40 for each in page.all("img"))
    assert all(each["aria-label"] for each in page.all("video"))
    charts = [each for each in page.all("svg") if "role" in each]
    assert len(charts) > 15
    assert all(len(each["aria-label"]) > 10 for each in charts)
    headings = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert headings.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(headings))
    identifiers = {each["id"] for _, each in page.elements if "id" in each}
    assert {each["href"][1:] for each in page.all("a")} <= identifiers


def test_the_page_shows_data_stages_and_versions(finished_run: Builder) -> None:
    params, paths = finished_run(POOR, poor=True)
    write_report(params, paths)
    text = read(paths).text
    assert "408 episodes passed every check; 4 did not and were set aside." in text
    assert "Cloned policy 103 not_finite action holds NaN (row 12)" in text
    assert "camera <corner2> stands still" in text  # escaped in the source, or the parser would take it for a tag
    assert "Train the world model 3 min 25 s" in text
    assert "torch 2." in text
    assert "seed 0" in text


def test_the_page_shows_every_tasks_threshold(finished_run: Builder) -> None:
    params, paths = finished_run(GOOD)
    write_report(params, paths)
    table = read(paths).text.partition("Task by task")[2]
    assert "Button press topdown real 0.62 98 % 91 % generated unknown 0 %" in table
    assert "Faucet open real 0.34 86 % 91 % generated unknown 0 %" in table


def test_the_same_inputs_give_the_same_bytes(finished_run: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    params, paths = finished_run(GOOD)
    write_report(params, paths)
    first = paths.report.read_bytes(), paths.summary.read_bytes()
    elsewhere = Paths(paths.root.with_name("elsewhere"))
    shutil.copytree(paths.root, elsewhere.root)
    elsewhere.report.unlink()
    monkeypatch.chdir(elsewhere.root)
    write_report(params, Paths(Path()))
    assert (elsewhere.report.read_bytes(), elsewhere.summary.read_bytes()) == first


def test_the_summary_has_exactly_the_promised_keys(finished_run: Builder) -> None:
    params, paths = finished_run(POOR, poor=True)
    write_report(params, paths)
    summary = read_json(paths.summary)
    assert set(summary) == {
        "profile", "seconds", "stage_seconds", "tasks", "robot", "classifier", "replay", "world_model", "episodes"
    }  # fmt: skip
    assert summary["profile"] == "demo"
    assert summary["seconds"] == pytest.approx(sum(summary["stage_seconds"].values()))
    assert set(summary["stage_seconds"]) == {"world_model", "success_classifier", "fidelity"} | {
        f"{stage}@{task}"
        for stage in (
            "demos",
            "demo_store",
            "bc",
            "policy_rollouts",
            "random_rollouts",
            "rollout_store",
            "refined",
            "evaluation",
        )
        for task in (BUTTON, HANDLE)
    }
    low, high = _points(POOR[HANDLE])
    assert summary["tasks"][HANDLE] == {
        "bc": {"successes": 60, "trials": 100},
        "refined": {"successes": 45, "trials": 100},
        "gain_points": -15.0,
        "gain_interval": [low, high],
        "p_value": pytest.approx(0.0167, abs=1e-4),
        "imagined": {"bc": 0.75, "refined": 0.71},
    }
    assert set(summary["classifier"]) == {"precision", "recall", "ece", "generated"}
    assert summary["classifier"]["generated"] == {"precision": None, "recall": 0.0, "ece": 0.046}
    assert summary["replay"] == {
        "expert_success_recall": 0.55, "policy_success_recall": 0.9, "policy_failure_recall": 0.97
    }  # fmt: skip
    assert set(summary["world_model"]["open_loop_mse"]) == set(summary["world_model"]["copy_last_mse"])
    assert summary["episodes"] == {"accepted": 408, "quarantined": 4}
    assert read_summary(paths.summary).model_dump(mode="json") == summary


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("replay", "expert_success_recall"), 90.0),
        (("tasks", BUTTON, "imagined", "bc"), -0.1),
        (("tasks", BUTTON, "gain_points"), 1000),
        (("surplus",), 1),
        (("seconds",), None),
    ],
)
def test_the_summarys_schema_refuses_what_is_not_promised(
    finished_run: Builder, keys: tuple[str, ...], value: object
) -> None:
    params, paths = finished_run({BUTTON: GOOD[BUTTON]})
    write_report(params, paths)
    summary = read_json(paths.summary)
    inner = summary
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    write_json(paths.summary, summary)
    with pytest.raises(DataError, match=re.escape(".".join(keys))):
        read_summary(paths.summary)


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("reports/data/{task}/expert.json", "store-demos --task {task}"),
        ("reports/data/{task}/rollouts.json", "store-rollouts --task {task}"),
        ("reports/data/{task}/collect-policy.json", "collect-policy --task {task}"),
        ("reports/bc/{task}.json", "train-bc --task {task}"),
        ("reports/bc/{task}.csv", "train-bc --task {task}"),
        ("reports/world_model.json", "train-world-model"),
        ("reports/world_model.csv", "train-world-model"),
        ("reports/success_classifier.json", "train-classifier"),
        ("reports/success_classifier.csv", "train-classifier"),
        ("reports/fidelity.json", "evaluate-world-model"),
        (f"reports/fidelity/strip_{BUTTON}_success_combined.png", "evaluate-world-model"),
        ("reports/refined/{task}.json", "refine --task {task}"),
        ("reports/refined/{task}.csv", "refine --task {task}"),
        ("reports/evaluation/{task}.json", "evaluate --task {task}"),
        ("reports/evaluation/{task}/trials.csv", "evaluate"),
    ],
)
def test_a_missing_file_names_the_stage_to_run_and_writes_nothing(finished_run: Builder, name: str, stage: str) -> None:
    params, paths = finished_run({BUTTON: GOOD[BUTTON]})
    file = paths.root / name.format(task=BUTTON)
    file.unlink()
    with pytest.raises(DataError) as caught:
        write_report(params, paths)
    assert caught.value.where == str(file)
    assert f"`world4rl {stage.format(task=BUTTON)}`" in str(caught.value.remedy)
    assert not paths.report.exists()
    assert not paths.summary.exists()


def test_wrong_metrics_name_every_wrong_key(finished_run: Builder) -> None:
    params, paths = finished_run({BUTTON: GOOD[BUTTON]})
    metrics = read_json(paths.fidelity_metrics)
    del metrics["one_step_mse"]
    metrics["replay"]["policy_failure_recall"] = 97
    write_json(paths.fidelity_metrics, metrics)
    with pytest.raises(DataError) as caught:
        write_report(params, paths)
    assert "one_step_mse" in caught.value.problem
    assert "replay.policy_failure_recall" in caught.value.problem


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda metrics: metrics["thresholds"].update({BUTTON: 1.2}), f"thresholds.{BUTTON}"),
        (lambda metrics: metrics.update(thresholds={}), "thresholds"),
        (lambda metrics: metrics["tasks"].clear(), "the same tasks"),
        (lambda metrics: metrics["tasks"][BUTTON].pop("generated"), f"tasks.{BUTTON}.generated"),
    ],
)
def test_wrong_metrics_of_a_tasks_classifier_are_refused(
    finished_run: Builder, change: Callable[[dict], None], reason: str
) -> None:
    params, paths = finished_run({BUTTON: GOOD[BUTTON]})
    metrics = read_json(paths.classifier_metrics)
    change(metrics)
    write_json(paths.classifier_metrics, metrics)
    with pytest.raises(DataError, match=re.escape(reason)) as caught:
        write_report(params, paths)
    assert caught.value.where == str(paths.classifier_metrics)


def test_metrics_that_are_no_json_are_refused(finished_run: Builder) -> None:
    params, paths = finished_run({BUTTON: GOOD[BUTTON]})
    paths.fidelity_metrics.write_text('{"seconds": 1', encoding="utf-8")
    with pytest.raises(DataError, match="not valid JSON"):
        write_report(params, paths)


def test_metrics_that_contradict_the_trials_are_refused(finished_run: Builder) -> None:
    params, paths = finished_run({BUTTON: GOOD[BUTTON]})
    metrics = read_json(paths.evaluation_metrics(BUTTON))
    metrics["refined"]["successes"] += 1
    write_json(paths.evaluation_metrics(BUTTON), metrics)
    with pytest.raises(DataError, match=r"but trials\.csv holds \(100, 51, 75, 36, 12\)"):
        write_report(params, paths)


def test_the_stage_reads_only_its_declared_parameters(finished_run: Builder) -> None:
    params, paths = finished_run({BUTTON: GOOD[BUTTON]})
    write_report(params, paths)
    whole = paths.report.read_bytes()
    write_report(visible_params(params, STAGES["report"]), paths)
    assert paths.report.read_bytes() == whole


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.assign(success=2), "isin"),
        (lambda t: t.assign(policy="other"), "isin"),
        (lambda t: t.drop(columns="steps"), "steps"),
        (lambda t: t.assign(extra=1), "column_in_schema"),
        (lambda t: t.iloc[:-1], "same seeds"),
        (lambda t: pd.concat([t, t.iloc[:1]]), "unique|duplicate"),
        (lambda t: t.assign(steps=5), "steps must be given for a success"),
        (lambda t: t.assign(steps=-1), "greater_than_or_equal_to"),
        (lambda t: t.assign(steps="soon"), "steps"),
    ],
)
def test_wrong_trials_are_refused(
    finished_run: Builder, change: Callable[[pd.DataFrame], pd.DataFrame], reason: str
) -> None:
    _, paths = finished_run({BUTTON: GOOD[BUTTON]})
    file = paths.evaluation(BUTTON) / "trials.csv"
    trials = read_trials(file)
    assert len(trials) == 200
    with pytest.raises(DataError, match=reason):
        check_trials(change(trials), file)


def test_all_failures_of_a_table_come_at_once(finished_run: Builder) -> None:
    _, paths = finished_run({BUTTON: GOOD[BUTTON]})
    file = paths.evaluation(BUTTON) / "trials.csv"
    trials = read_trials(file).assign(seed=lambda t: -t["seed"], success=lambda t: t["success"] * 3)
    with pytest.raises(DataError) as caught:
        check_trials(trials, file)
    assert "seed" in caught.value.problem
    assert "success" in caught.value.problem


@pytest.mark.parametrize(
    ("content", "reason"),
    [("step\n1\n", "no column loss"), ("step,loss\n1,low\n", "no number"), ("step,loss\n2,1\n1,1\n", "ascend")],
)
def test_a_wrong_curve_is_refused(tmp_path: Path, content: str, reason: str) -> None:
    file = tmp_path / "curve.csv"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=reason):
        read_curve(file, ("step", "loss"), "train-classifier")


def test_a_run_without_held_out_curve_strips_or_videos_still_has_its_page(finished_run: Builder) -> None:
    params, paths = finished_run({BUTTON: GOOD[BUTTON]})
    curve = pd.read_csv(paths.bc_curve(BUTTON)).assign(validation_nll=np.nan)
    curve.to_csv(paths.bc_curve(BUTTON), index=False)
    metrics = read_json(paths.fidelity_metrics)
    metrics["strips"] = []
    write_json(paths.fidelity_metrics, metrics)
    for video in paths.evaluation(BUTTON).glob("*.mp4"):
        video.unlink()
    write_report(params, paths)
    text = read(paths).text
    assert "No video was recorded." in text
    assert "held-out" not in text.partition("Cloning the demonstrations")[2].partition("Practising")[0]


def test_rates_and_points_are_worded_for_people() -> None:
    assert [figures.percent(rate) for rate in (0, 0.004, 0.5, 0.999, 1)] == [
        "0\u00a0%", "0.4\u00a0%", "50\u00a0%", "99.9\u00a0%", "100\u00a0%"
    ]  # fmt: skip
    assert [figures.points(value) for value in (12.4, -3.6, 0.2)] == ["+12", "−4", "±0"]
    assert [figures.points(value, 1) for value in (20.5, -10.0, 0.04)] == ["+20.5", "−10", "±0"]
    assert [figures.number(value) for value in (0, 0.0012345, 12.34, 1234.5, 1.5e-7, -2.5, float("nan"))] == [
        "0", "0.0012", "12", "1234", "1.5e-7", "−2.5", "–"
    ]  # fmt: skip
    assert wording.chance(0.0004) == "less than once in a thousand such comparisons"
    assert wording.chance(0.0167).startswith("about once in 60 such")
    assert wording.pretty("button-press-topdown-v3") == "Button press topdown"
    assert wording.video_caption("refined_success_90001") == "Refined policy: success (seed 90001)"
    assert wording.video_caption("overview") == "Overview"


def test_a_missing_outcome_is_said_not_hidden(finished_run: Builder) -> None:
    params, paths = finished_run({BUTTON: GOOD[BUTTON]})
    metrics = read_json(paths.fidelity_metrics)
    metrics["replay"]["expert_success_recall"] = None
    write_json(paths.fidelity_metrics, metrics)
    write_report(params, paths)
    text = read(paths).text
    assert "No held-out expert successes were there to replay inside the model." in text
    assert "no such episode" in text
    assert read_summary(paths.summary).replay.expert_success_recall is None


def test_charts_place_values_where_they_belong() -> None:
    bar = figures.rate_bar(0.4, (0.3, 0.5), "bc", "forty percent", imagined=0.6, bound=0.9)
    assert 'width="40.00%"' in bar
    assert 'x1="30.00%" x2="50.00%"' in bar
    assert '<svg x="60.00%"' in bar
    assert 'x1="90.00%"' in bar
    line = figures.line_chart(
        [figures.Series("a & b", [0, 10], [0.0, 1.0])], x_label="step", y_label="", description='"quoted" <tag>'
    )
    path = re.search(r'd="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)"', line)
    assert path
    x0, y0, x1, y1 = map(float, path.groups())
    assert (x0, x1) == (figures.LEFT, figures.WIDTH - figures.RIGHT)
    assert y0 == figures.HEIGHT - figures.BOTTOM
    assert figures.TOP < y1 < y0
    assert "<tag>" not in line
    # A curve has a gap where a smoothed series has no value, and is thinned to what a panel shows.
    long = figures.Series("long", list(range(5000)), [1.0] * 2500 + [float("nan")] * 100 + [2.0] * 2400, smooth=True)
    drawn = figures.line_chart([long], x_label="", y_label="", description="long")
    faint = re.search(r'faint plain" d="([^"]*)"', drawn)
    assert faint
    assert faint.group(1).count("M") == 2
    assert faint.group(1).count("L") < figures.MOST_POINTS


def test_gates_move_the_bounds(finished_run: Builder) -> None:
    params, paths = finished_run({BUTTON: GOOD[BUTTON]})
    strict = params.model_copy(update={"gates": Gates(classifier_precision=0.99, open_loop_ratio=0.1)})
    write_report(strict, paths)
    text = read(paths).text
    assert "the bound is 99 %" in text
    assert "5 steps ahead the world model predicts no better" not in text
    assert "5 steps ahead the world model's error is 0.43 of that of repeating the last frame" in text


def test_summary_schema_is_closed() -> None:
    schema = json.loads(json.dumps(Summary.model_json_schema()))
    assert schema["additionalProperties"] is False
    assert all(each["additionalProperties"] is False for each in schema["$defs"].values())
