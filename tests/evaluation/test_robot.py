"""A task that no simulator has: its landed trials judge, and the report says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from assets.evaluation import _show_evaluation
from world4rl.config import Gates, Params, TaskParameters, load_profile
from world4rl.evaluation.gates import _not_worse
from world4rl.evaluation.metrics import RobotEvaluation, read_metrics, read_summary
from world4rl.evaluation.report import write_report
from world4rl.evaluation.statistics import compare_unpaired
from world4rl.evaluation.trials import evaluate
from world4rl.files import read_json, write_json
from world4rl.landing.verify import verify
from world4rl.paths import Paths
from world4rl.provenance.digests import digest_folder, digest_json
from world4rl.provenance.manifests import Acceptance, LandedEpisode, write_acceptance, write_manifests
from world4rl.provenance.statement import Statement

from .conftest import BUTTON, GOOD

TASK = "fold-towel"


def robot_params() -> Params:
    values = load_profile("ci").model_dump()
    values["tasks"] = [TASK]
    values["task_parameters"] = {TASK: {"simulated": False}}
    return Params.model_validate(values)


@pytest.fixture
def lab(tmp_path: Path) -> Paths:
    """Two policies, and no trial yet."""
    paths = Paths(tmp_path)
    for name, folder in (("bc", paths.bc(TASK)), ("refined", paths.refined(TASK))):
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_text(name)
    write_manifests([TASK], paths)
    verify(robot_params(), paths, TASK)
    return paths


def land_trials(paths: Paths, name: str, outcomes: list[bool], policy: str | None) -> None:
    """Accepts a dataset of trials, without its files: the stage reads the manifest alone."""
    episodes = tuple(
        LandedEpisode(episode=n, task=TASK, length=20 + n, success=s, digest=digest_json([name, n]))
        for n, s in enumerate(outcomes)
    )
    digest = digest_json(name)
    said = Statement(source="evaluation", policy=policy)
    write_acceptance(Acceptance(id=name, name=name, digest=digest, statement=said, episodes=episodes), paths)
    write_manifests([TASK], paths)
    manifest = read_json(paths.manifest(TASK))["roles"]["evaluation"]
    write_json(paths.landed(TASK, "evaluation") / "manifest.json", manifest)


def test_without_trials_there_is_nothing_to_say(lab: Paths) -> None:
    evaluate(robot_params(), lab, TASK)
    found = read_metrics(lab.evaluation_metrics(TASK), RobotEvaluation, "evaluate")
    assert (found.bc.trials, found.refined.trials, found.gain_points) == (0, 0, None)
    verdict = _not_worse(lab, Gates(), TASK)
    assert verdict.passed
    assert "0 of the bc policy and 0 of the refined policy" in verdict.reason
    assert "unknown until both" in str(_show_evaluation(lab, TASK)["gain"])


def test_trials_count_for_the_policy_that_they_name(lab: Paths) -> None:
    land_trials(lab, "first", [True, False, False, False, True], digest_folder(lab.bc(TASK)))
    land_trials(lab, "second", [True] * 4 + [False], digest_folder(lab.refined(TASK)))
    land_trials(lab, "third", [True], digest_folder(lab.refined(TASK)))
    land_trials(lab, "older", [False] * 3, "e" * 64)
    land_trials(lab, "anonymous", [False], None)
    evaluate(robot_params(), lab, TASK)
    found = read_metrics(lab.evaluation_metrics(TASK), RobotEvaluation, "evaluate")
    assert (found.bc.successes, found.bc.trials) == (2, 5)
    assert (found.refined.successes, found.refined.trials) == (5, 6)
    assert found.others == 4
    assert found.gain_points == pytest.approx(100 * (5 / 6 - 2 / 5))
    trials = pd.read_csv(lab.evaluation(TASK) / "trials.csv")
    assert trials.groupby("policy")["success"].sum().to_dict() == {"bc": 2, "refined": 5}
    assert _not_worse(lab, Gates(), TASK).passed
    assert "+43.3 points" in str(_show_evaluation(lab, TASK)["gain"])


def test_a_worse_policy_does_not_pass(lab: Paths) -> None:
    land_trials(lab, "first", [True] * 5, digest_folder(lab.bc(TASK)))
    land_trials(lab, "second", [False] * 5, digest_folder(lab.refined(TASK)))
    evaluate(robot_params(), lab, TASK)
    assert not _not_worse(lab, Gates(), TASK).passed


def test_newcombes_published_interval_of_independent_proportions() -> None:
    """Newcombe 1998, table II, method 10: 56/70 - 48/80: 0.0524 to 0.3339; 0/10 - 0/20: -0.1611 to 0.2775."""
    found = compare_unpaired((48, 80), (56, 70))
    assert found.gain_points == pytest.approx(20.0)
    assert found.gain_interval == pytest.approx((5.24, 33.39), abs=0.01)
    assert compare_unpaired((0, 20), (0, 10)).gain_interval == pytest.approx((-16.11, 27.75), abs=0.01)
    assert compare_unpaired((3, 10), (3, 10)).p_value == 1.0


@pytest.mark.parametrize("simulated", [True, False])
def test_the_report_says_what_the_robot_says(
    simulated: bool, lab: Paths, finished_run: Callable[..., tuple[Params, Paths]]
) -> None:
    outcomes = ({BUTTON: GOOD[BUTTON]} if simulated else {}) | {TASK: GOOD[BUTTON]}
    params, paths = build(finished_run, outcomes)
    land_trials(lab, "first", [True, False], digest_folder(lab.bc(TASK)))
    evaluate(robot_params(), lab, TASK)
    write_json(paths.evaluation_metrics(TASK), read_json(lab.evaluation_metrics(TASK)))
    write_report(params, paths)
    page = paths.report.read_text()
    assert "On the robot" in page
    assert "1 of 2" in page
    assert "not tried yet" in page
    assert ("Only the robot can tell." in page) == (not simulated)
    summary = read_summary(paths.summary)
    assert (set(summary.tasks), set(summary.robot)) == ({BUTTON} if simulated else set(), {TASK})
    assert summary.robot[TASK].gain_points is None


def build(finished_run: Callable[..., tuple[Params, Paths]], outcomes: dict[str, Any]) -> tuple[Params, Paths]:
    params, paths = finished_run(outcomes)
    own = {task: TaskParameters(demonstrations=1, simulated=task != TASK) for task in outcomes}
    return params.model_copy(update={"task_parameters": own}), paths
