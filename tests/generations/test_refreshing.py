"""Rollouts of the refined policy, from the simulator through the landing folder into the task's data."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.demos.test_collect import TASK, save_untrained_policy, small_params
from tests.landing.conftest import Site
from world4rl.demos.collect import collect_policy, collect_random
from world4rl.demos.seeds import refresh_seeds
from world4rl.demos.store import EpisodeStore
from world4rl.demos.storing import store_rollouts
from world4rl.errors import ConfigError, DataError
from world4rl.generations.refreshing import refresh, split
from world4rl.landing.verify import verify
from world4rl.paths import Paths
from world4rl.provenance.digests import digest_folder
from world4rl.provenance.manifests import read_manifest, write_manifests


def held_out(paths: Paths) -> dict[str, list[str]]:
    """Digests of what nothing trains on, by store."""
    stores = EpisodeStore.open_all(paths.store(TASK, "policy"))
    return {store.path.name: store.episodes.query("split == 'test'")["digest"].tolist() for store in stores}


def test_they_become_data_of_the_task_and_move_no_split(tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    site.params = small_params()
    paths = site.paths
    save_untrained_policy(paths.bc(TASK))
    save_untrained_policy(paths.refined(TASK))
    write_manifests(site.params.tasks, paths)
    for stage in (verify, collect_policy, collect_random, store_rollouts):
        stage(site.params, paths, TASK)
    before = held_out(paths)

    name = refresh(site.params, paths, site.inbox, TASK, episodes=5)
    with pytest.raises(DataError, match="rollouts for generation 2 have landed"):
        refresh(site.params, paths, site.inbox, TASK, episodes=5)
    with pytest.raises(DataError, match="has no champion"):
        refresh(site.params, paths, Site(tmp_path / "other").inbox, TASK, which="champion")
    with pytest.raises(ConfigError, match="no seeds for 257"):
        refresh(site.params, paths, Site(tmp_path / "more").inbox, TASK, episodes=257)

    (due,) = site.look().due
    taken = site.took(due.name)
    assert (due.name, taken.state) == (name, "accepted")
    (dataset,) = read_manifest(paths.manifest(TASK)).roles["policy"].datasets
    assert dataset.statement.source == "policy"
    assert dataset.statement.session == "generation 2"
    assert dataset.statement.policy == digest_folder(paths.refined(TASK))
    for stage in (verify, store_rollouts):
        stage(site.params, paths, TASK)
    after = held_out(paths)
    assert after.pop("collected") == before["collected"]
    (fresh,) = after
    store = EpisodeStore.open(paths.store(TASK, "policy") / fresh)
    assert store.episodes["seed"].tolist() == refresh_seeds(site.params.seed, TASK, 2, 5)
    assert store.episodes["split"].tolist()[-1] == "test"
    assert len(after[fresh]) == 1


@given(st.integers(1, 256), st.floats(0, 1))
def test_something_is_left_to_learn_from(count: int, share: float) -> None:
    train, test = split(range(count), share)
    assert [*train, *test] == list(range(count))
    assert len(train) >= 1
    assert abs(len(test) - count * share) <= 1
