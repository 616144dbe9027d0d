"""Rollouts of the refined policy, from the simulator through the landing folder into the task's data."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.demos.test_collect import TASK, save_untrained_policy, small_params
from tests.landing.conftest import Site
from world4rl.commands.generations import refresh as command
from world4rl.config import dump_params
from world4rl.demos.collect import collect_policy, collect_random
from world4rl.demos.seeds import refresh_seeds
from world4rl.demos.store import EpisodeStore
from world4rl.demos.storing import store_rollouts
from world4rl.errors import ConfigError, DataError
from world4rl.generations.refreshing import refresh, split
from world4rl.landing.verify import verify
from world4rl.paths import Paths
from world4rl.promotion.champions import keep, subjects_of
from world4rl.provenance import keys, signatures
from world4rl.provenance.decisions import Decisions, Promotion, Withdrawal
from world4rl.provenance.digests import digest_folder
from world4rl.provenance.manifests import read_manifest, write_manifests
from world4rl.provenance.records import subject


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


def test_a_champion_acts_only_if_it_is_whole_and_nobody_withdrew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD4RL_SIGNING_KEY", str(tmp_path / "key.pem"))
    site, said = Site(tmp_path / "site"), {"at": "2026-01-01T00:00:00Z", "by": "ada", "because": "a test"}
    paths, private = site.paths, keys.ensure_key(site.paths)
    save_untrained_policy(paths.refined(TASK))
    policy = digest_folder(paths.refined(TASK))
    kept = keep(paths.refined(TASK), policy, paths, TASK)
    promoted = Promotion(task=TASK, policy=policy, replaces=None, evidence={}, **said)
    Decisions(paths).add(subjects_of(paths, kept), promoted, private)
    shutil.rmtree(paths.refined(TASK))
    (kept / "config.json").unlink()
    with pytest.raises(DataError, match="not those that were promoted"):
        refresh(small_params(), paths, site.inbox, TASK, which="champion")
    affected = (subject("models", policy),)
    withdrawn = Withdrawal(episodes=("e" * 64,), datasets=(), affected=affected, deployments=(), **said)
    Decisions(paths).add((), withdrawn, private)
    with pytest.raises(DataError, match="withdrawn"):
        refresh(small_params(), paths, site.inbox, TASK, which="champion")


def test_the_command_loads_no_model_that_the_parameters_do_not_allow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signatures, "_policy", "when-present")  # the command sets it, for its process
    paths, params = Paths(tmp_path), small_params().model_copy(update={"signatures": "require"})
    paths.params.write_text(dump_params(params))
    save_untrained_policy(paths.refined(TASK))
    with pytest.raises(DataError, match="nobody has signed this model"):
        command(TASK, root=tmp_path)


@given(st.integers(1, 256), st.floats(0, 1))
def test_something_is_left_to_learn_from(count: int, share: float) -> None:
    train, test = split(range(count), share)
    assert [*train, *test] == list(range(count))
    assert len(train) >= 1
    assert abs(len(test) - count * share) <= 1
