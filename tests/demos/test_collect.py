from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from world4rl.config import BehaviourCloning, Params, load_profile, parse_params
from world4rl.demos.collect import ValidationShare, alternating, collect_demos, collect_policy, collect_random
from world4rl.demos.seeds import episode_seeds
from world4rl.demos.store import EpisodeStore
from world4rl.demos.storing import store_demos, store_rollouts
from world4rl.demos.windows import WindowSampler
from world4rl.errors import DataError
from world4rl.landing.verify import verify
from world4rl.paths import SOURCES, Paths
from world4rl.provenance.manifests import write_manifests

TASK = "button-press-topdown-v3"


def small_params(**simulation: Any) -> Params:
    values = load_profile("ci").model_dump(mode="json")
    values["tasks"] = [TASK]
    values["task_parameters"] = {TASK: {"demonstrations": 2, "expert_noise": 0.1}}
    values["demonstrations"] = {"held_out": 1}
    values["rollouts"] = {"policy": 3, "random": 3, "validation": 0.34, "held_out": 2}
    values["simulation"] |= {"image_size": 48, "episode_steps": 30, "action_repeat": 3, "workers": 2, **simulation}
    values["refinement"]["horizon"] = 10
    return parse_params(values, where="test")


def save_untrained_policy(folder: Path) -> None:
    from world4rl.models.policy import GaussianPolicy
    from world4rl.policies.folder import save_policy

    torch.manual_seed(0)
    save_policy(GaussianPolicy(BehaviourCloning(width=8), image_size=(48, 48), action_size=4, state_size=0), folder)


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """Everything collected and stored, with two simulator workers."""
    paths = Paths(tmp_path_factory.mktemp("run"))
    save_untrained_policy(paths.bc(TASK))
    params = small_params()
    write_manifests(params.tasks, paths)
    for stage in (verify, collect_demos, collect_policy, collect_random, store_demos, store_rollouts):
        stage(params, paths, TASK)
    return paths


def test_demonstrations_are_the_experts(collected: Paths) -> None:
    store = EpisodeStore.open(collected.store(TASK, "expert") / "collected")
    assert store.episodes["split"].tolist() == ["train", "train", "test"]
    assert store.episodes["seed"].tolist() == [
        *episode_seeds(0, TASK, "expert", "train", 2),
        *episode_seeds(0, TASK, "expert", "test", 1),
    ]
    assert store.episodes["success"].all()
    assert store.fps == pytest.approx(80 / 3)
    assert store.description["quarantined"] == []
    for row in range(3):
        assert store.frames(row).shape == (30, 48, 48, 3)
        success = store.success(row)
        assert not success[0]
        assert success[-1]
        # The state that ends the task is far from the one that began it: labels and frames belong together.
        shown = np.flatnonzero(success)[0]
        assert np.linalg.norm(store.states(row)[shown, :3] - store.states(row)[0, :3]) > 0.05


def test_what_was_simulated_is_recorded(collected: Paths) -> None:
    side = json.loads((collected.raw(TASK, "expert") / "meta" / "world4rl.json").read_text())
    assert side["source"] == "expert"
    assert side["simulation"]["camera"] == "corner2"
    assert side["simulation"]["action_repeat"] == 3
    assert set(side["simulation"]["versions"]) == {"mujoco", "metaworld"}
    policy = json.loads((collected.raw(TASK, "policy") / "meta" / "world4rl.json").read_text())
    assert len(policy["policy"]) == 64
    assert [row["split"] for row in policy["episodes"]] == ["train", "validation", "train", "test", "test"]
    random = json.loads((collected.raw(TASK, "random") / "meta" / "world4rl.json").read_text())
    assert [row["split"] for row in random["episodes"]] == ["train", "validation", "train"]
    assert random["policy"] is None


def test_no_seed_is_used_twice(collected: Paths) -> None:
    seeds = [
        row["seed"]
        for source in SOURCES
        for row in json.loads((collected.raw(TASK, source) / "meta" / "world4rl.json").read_text())["episodes"]
    ]
    assert len(set(seeds)) == len(seeds) == 11


def test_a_sampler_over_all_sources(collected: Paths) -> None:
    stores = [EpisodeStore.open(collected.store(TASK, source) / "collected") for source in SOURCES]
    sampler = WindowSampler(stores, length=5, history=4)
    windows = sampler.sample(16, np.random.default_rng(0))
    assert windows.frames.shape == (16, 5, 3, 48, 48)
    assert sampler.tasks == (TASK,)
    assert len(sampler) == (2 + 2 + 2) * (30 - 5 + 4)


def test_collecting_again_gives_the_same_bytes(collected: Paths, tmp_path: Path) -> None:
    """With one simulator worker instead of two: an episode depends on its seed alone."""
    again = Paths(tmp_path)
    save_untrained_policy(again.bc(TASK))
    params = small_params(workers=1)
    write_manifests(params.tasks, again)
    for stage in (verify, collect_demos, collect_policy, store_demos):
        stage(params, again, TASK)
    for folder in (again.raw(TASK, "expert"), again.raw(TASK, "policy"), again.store(TASK, "expert")):
        first = collected.root / folder.relative_to(tmp_path)
        files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
        assert files == sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
        for file in files:
            assert (folder / file).read_bytes() == (first / file).read_bytes(), file


def test_only_rollouts_to_learn_from_are_disturbed(collected: Paths, tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    save_untrained_policy(paths.bc(TASK))
    params = small_params()
    disturbed = params.rollouts.model_copy(update={"disturbance": 0.5})
    write_manifests(params.tasks, paths)
    for stage in (verify, collect_policy, collect_random, store_rollouts):
        stage(params.model_copy(update={"rollouts": disturbed}), paths, TASK)
    stores = [EpisodeStore.open(p.store(TASK, "policy") / "collected") for p in (collected, paths)]
    assert stores[0].episodes["split"].tolist() == ["train", "validation", "train", "test", "test"]
    same = [np.array_equal(*(store.actions(episode) for store in stores)) for episode in range(5)]
    assert same == [False, False, False, True, True]


@given(outcomes=st.lists(st.booleans(), max_size=60), share=st.floats(0, 1))
def test_successes_and_failures_have_the_same_share_in_validation(outcomes: list[bool], share: float) -> None:
    held = ValidationShare(share)
    chosen = [held.takes(outcome) for outcome in outcomes]
    for kind in (True, False):
        own = [taken for taken, outcome in zip(chosen, outcomes, strict=True) if outcome == kind]
        assert sum(own) == int(len(own) * share + 0.5)


def test_validation_comes_from_all_over_the_collection() -> None:
    held = ValidationShare(0.2)
    assert [i for i in range(20) if held.takes(False)] == [2, 7, 12, 17]


def test_without_a_policy_there_are_no_rollouts(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        collect_policy(small_params(), Paths(tmp_path), TASK)
    assert not Paths(tmp_path).raw(TASK, "policy").exists()


def test_every_other_episode_explores() -> None:
    def constant(value: float) -> Any:
        return lambda frames, states, expert, episodes, steps: np.full((len(episodes), 4), value, np.float32)

    act = alternating(constant(0.25), constant(-0.5))
    zeros = np.zeros((3, 4), np.float32)
    actions = act(np.zeros((3, 2, 2, 3), np.uint8), zeros, zeros, np.array([4, 7, 8]), np.zeros(3, int))
    assert actions[:, 0].tolist() == [0.25, -0.5, 0.25]
