"""Trials on a robot: those that landed and say which policy acted and how it ended, and no others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.landing.conftest import make_episode
from tests.promotion.conftest import TASK, Site
from world4rl.demos.recording import Recording, write_dataset
from world4rl.demos.survey import survey
from world4rl.errors import DataError
from world4rl.landing.door import door_options
from world4rl.promotion.landed import robot_trials
from world4rl.provenance.decisions import Promotion
from world4rl.provenance.digests import digest_bytes, digest_folder
from world4rl.provenance.manifests import Acceptance, LandedEpisode, write_acceptance, write_manifests
from world4rl.provenance.statement import Statement


@pytest.fixture
def lab(site: Site) -> Site:
    """The task has no simulator."""
    site.rule(robot_tasks=(TASK,))
    write_manifests(site.params.tasks, site.paths)
    return site


def land(site: Site, policy: str | None, outcomes: list[bool | None], role: str = "evaluation") -> str:
    """As if a dataset with these outcomes had been accepted; returns its id."""
    digest = digest_bytes(f"{policy} {outcomes} {role}".encode())
    episodes = tuple(
        LandedEpisode(
            episode=number, task=TASK, length=9, success=outcome, digest=digest_bytes(f"{digest} {number}".encode())
        )
        for number, outcome in enumerate(outcomes)
    )
    statement = Statement.model_validate({"source": role, "policy": policy})
    acceptance = Acceptance(id=digest[:16], name="trials", digest=digest, statement=statement, episodes=episodes)
    write_acceptance(acceptance, site.paths)
    write_manifests(site.params.tasks, site.paths)
    return digest[:16]


def test_without_enough_trials_it_says_which_are_missing_and_decides_nothing(lab: Site) -> None:
    challenger, clone = lab.refine("good", 0.9), digest_folder(lab.paths.bc(TASK))
    land(lab, challenger, [True] * 20)
    land(lab, clone, [True] * 5 + [None] * 30)
    land(lab, None, [True] * 20)
    land(lab, clone, [True] * 20, role="policy")
    outcome = lab.challenge()
    assert (outcome.verdict, outcome.decided, outcome.record) == ("waiting", False, None)
    assert f"5 of 20 of opponent {clone[:16]} (and 30 that do not say how they ended)" in outcome.why
    assert f"world4rl land DATASET --task {TASK} --role evaluation --policy DIGEST" in outcome.why
    assert lab.decisions == []
    assert lab.tried == [], "there is no simulator"


def test_enough_landed_trials_decide_by_an_exact_test_that_the_evidence_names(lab: Site) -> None:
    challenger, clone = lab.refine("good", 0.9), digest_folder(lab.paths.bc(TASK))
    ids = [land(lab, challenger, [True] * 9), land(lab, challenger, [True] * 10 + [False])]
    land(lab, clone, [True] * 8 + [False] * 14)
    outcome = lab.challenge()
    assert (outcome.verdict, outcome.champion) == ("promoted", challenger)
    (promotion,) = lab.decisions
    assert isinstance(promotion, Promotion)
    assert "Boschloo" in promotion.evidence["test"]
    assert promotion.evidence["rule"]["trials_on"] == "robot"
    assert promotion.evidence["challenger"] == {"successes": 19, "trials": 20, "datasets": sorted(ids)}
    assert promotion.evidence["effect_points"] == pytest.approx(100 * (19 / 20 - 8 / 22))


def test_more_trials_later_do_not_ask_again(lab: Site) -> None:
    challenger, clone = lab.refine("good", 0.9), digest_folder(lab.paths.bc(TASK))
    land(lab, challenger, [True] * 12 + [False] * 8)
    land(lab, clone, [True] * 10 + [False] * 10)
    assert lab.challenge().verdict == "kept"
    land(lab, challenger, [True] * 100)
    assert not lab.challenge().decided
    lab.rule(robot_trials=22)  # a person asks for more: another rule, and the record says that it is the second look
    assert lab.challenge().verdict == "waiting"
    lab.rule(robot_trials=19)
    assert lab.challenge().evidence["earlier_decisions"] == 1


def test_a_certain_gain_that_is_too_small_is_called_that(lab: Site) -> None:
    challenger, clone = lab.refine("good", 0.9), digest_folder(lab.paths.bc(TASK))
    land(lab, challenger, [True] * 16 + [False] * 4)
    land(lab, clone, [True] * 9 + [False] * 11)
    lab.rule(minimum_effect=40.0)
    assert lab.challenge().why.startswith("it is better, but by less than 40 points: +35.0 points")


def test_a_missing_manifest_is_one_clear_error(lab: Site) -> None:
    lab.refine("good", 0.9)
    lab.paths.manifest(TASK).unlink()
    with pytest.raises(DataError, match="missing"):
        lab.challenge()


def test_what_lands_without_outcomes_is_unknown_and_no_failure(site: Site, tmp_path: Path) -> None:
    side: dict[str, Any] = {"source": "evaluation"}
    recording = Recording(TASK, "corner2", 16, ("x", "y", "z", "grip"), ("dx", "dy", "dz", "grip"), side)
    dataset = tmp_path / "dataset"
    write_dataset(dataset, [("train", make_episode(seed)) for seed in (1, 2)], recording, image_size=(24, 24))
    options = door_options(site.params, Statement(source="evaluation"))
    assert [one.success for one in survey(dataset, options, {}).episodes] == [True, True]
    shutil.copytree(dataset, tmp_path / "bare")
    strip(tmp_path / "bare")
    assert [one.success for one in survey(tmp_path / "bare", options, {}).episodes] == [None, None]


def strip(dataset: Path) -> None:
    """Removes every word about success."""
    import pandas as pd

    info = dataset / "meta" / "info.json"
    values = json.loads(info.read_text())
    del values["features"]["next.success"]
    info.write_text(json.dumps(values))
    for file in dataset.glob("data/**/*.parquet"):
        pd.read_parquet(file).drop(columns="next.success").to_parquet(file)
    side = dataset / "meta" / "world4rl.json"
    values = json.loads(side.read_text())
    for episode in values["episodes"]:
        del episode["success"]
    side.write_text(json.dumps(values))


def test_counts(lab: Site) -> None:
    land(lab, "a" * 64, [True, False, None])
    found = robot_trials(lab.paths, TASK, "a" * 64)
    assert (found.successes, found.trials, found.unknown, len(found.datasets)) == (1, 2, 1, 1)
    assert robot_trials(lab.paths, TASK, "b" * 64).trials == 0
