"""A robot with no simulator: what lands feeds every branch of the lineage, and what would simulate does nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.demos.conftest import stock_dataset
from tests.landing.conftest import Site
from tests.spoiling import SIDE, rows
from world4rl.config import Gates, Params
from world4rl.demos.collect import collect_demos, collect_policy, collect_random
from world4rl.demos.store import open_stores
from world4rl.demos.storing import store_demos, store_rollouts
from world4rl.demos.windows import WindowSampler
from world4rl.envs.imagination import StartStates
from world4rl.evaluation.gates import _demos_valid, _rollouts_valid
from world4rl.files import read_json, write_json
from world4rl.landing import verify as verifying
from world4rl.landing.marker import Marker
from world4rl.landing.verify import verify
from world4rl.paths import SOURCES
from world4rl.provenance.manifests import read_manifest
from world4rl.training.denoiser import DenoiserTrainer

TASK = "fold-towel"
CALLED = "Fold the towel."
ROLES = {"expert": (12, 12, 12), "policy": (10, 10, 10, 10, 10, 10), "random": (8, 8, 8), "evaluation": (9, 9)}


def robot(params: Params) -> Params:
    """Only the robot's task; seven joints, any range."""
    values = params.model_dump()
    values["tasks"] = [TASK]
    values["task_parameters"] = {TASK: {"simulated": False, "called": [CALLED]}}
    values["reading"] |= {"action_range": None, "held_out": 0.3, "validation": 0.3}
    return Params.model_validate(values)


@pytest.fixture
def lab(site: Site) -> Site:
    """A lab whose robot has recorded a dataset a role, under the words that people use; nothing was simulated."""
    site.params = robot(site.params)
    first = 0
    for role, lengths in ROLES.items():
        record(site.folder / role, role, lengths, first)
        first += 10
    return site


def record(folder: Path, role: str, lengths: tuple[int, ...], first: int) -> None:
    stock_dataset(
        folder,
        cameras={"front": (36, 48)},
        action=7,
        state=9,
        tasks=(CALLED,),
        lengths=lengths,
        success=True,
    )
    # Where lengths agree, so does all else: other actions make other episodes.
    rows("action", lambda values: values.__setitem__(slice(None), [[x + first for x in v] for v in values]))(folder)
    write_json(folder / SIDE, {"source": role, "operator": "op-1", "robot_id": "arm-1"})


def test_nobody_waits_while_accepted_datasets_are_read(lab: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """With many gigabytes that takes long, and a dataset that lands meanwhile is accepted all the same."""
    lab.settle()
    record(lab.folder / "late", "expert", (14,), 50)
    marked, late = verifying.mark, []

    def mark(folder: Path) -> Marker:
        if not late:
            late.append(lab.settle()["late"].state)
        return marked(folder)

    monkeypatch.setattr(verifying, "mark", mark)
    verify(lab.params, lab.paths, TASK)
    assert late == ["accepted"]
    assert read_json(lab.paths.landed_report(TASK))["expert"] == {
        "datasets": 2,
        "episodes": 4,
        "root": read_manifest(lab.paths.manifest(TASK)).roles["expert"].root,
    }


@pytest.fixture
def stored(lab: Site) -> Site:
    """The same after everything was taken, verified and stored."""
    assert {name: taken.state for name, taken in lab.settle().items()} == dict.fromkeys(ROLES, "accepted")
    verify(lab.params, lab.paths, TASK)
    for collect in (collect_demos, collect_policy, collect_random):
        collect(lab.params, lab.paths, TASK)
    store_demos(lab.params, lab.paths, TASK)
    store_rollouts(lab.params, lab.paths, TASK)
    return lab


def test_the_collecting_stages_record_nothing_and_need_no_policy(lab: Site) -> None:
    for source, collect in zip(SOURCES, (collect_demos, collect_policy, collect_random), strict=True):
        collect(lab.params, lab.paths, TASK)
        assert read_json(lab.paths.raw(TASK, source) / SIDE)["episodes"] == []
        assert read_json(lab.paths.collect_metrics(TASK, source))["episodes"] == 0


def test_every_role_lands_in_its_branch(stored: Site) -> None:
    manifest = read_manifest(stored.paths.manifest(TASK))
    assert {role: len(each.episodes) for role, each in manifest.roles.items()} == {r: len(n) for r, n in ROLES.items()}
    for source in SOURCES:
        (store,) = [store for store in open_stores(stored.paths, [TASK], [source]) if len(store)]
        assert len(store) == len(ROLES[source])
        assert set(store.episodes["task"]) == {TASK}
        assert set(store.episodes["source"]) == {source}
        assert (store.action_size, store.state_size) == (7, 9)
    assert _demos_valid(stored.paths, Gates(), TASK).passed
    assert _rollouts_valid(stored.paths, Gates(), TASK).passed


def test_what_trains_takes_the_robots_sizes_and_skips_what_was_not_collected(stored: Site) -> None:
    stores = open_stores(stored.paths, [TASK])
    assert sum(not len(store) for store in stores) == 3
    splits = ("train", "validation", "test")
    sampler = WindowSampler(stores, length=5, history=4, splits=splits)
    windows = sampler.sample(4, np.random.default_rng(0))
    assert windows.actions.shape == (4, 5, 7)
    settings = stored.params.world_model.model_copy(update={"training_steps": 1, "channels": (32, 32)})
    trainer = DenoiserTrainer(settings, sampler, stores, seed=0, device=windows.frames.device)
    assert trainer.model is not None
    assert StartStates(stores, history=4, tasks=(TASK,), splits=splits).episodes == 12


def test_demonstrations_alone_are_enough_to_begin_with(site: Site) -> None:
    site.params = robot(site.params)
    record(site.folder / "expert", "expert", ROLES["expert"], 0)
    site.settle()
    verify(site.params, site.paths, TASK)
    collect: Callable[..., None]
    for collect in (collect_demos, collect_policy, collect_random):
        collect(site.params, site.paths, TASK)
    store_demos(site.params, site.paths, TASK)
    store_rollouts(site.params, site.paths, TASK)
    verdict = _rollouts_valid(site.paths, Gates(), TASK)
    assert verdict.passed
    assert "no rollouts have landed yet" in verdict.reason
