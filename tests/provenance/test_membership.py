"""Episode sets of stores: every episode, with the statement of the dataset that it came in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from world4rl.demos.store import EpisodeStore
from world4rl.errors import DataError
from world4rl.files import write_json
from world4rl.paths import Paths
from world4rl.provenance.episodes import read_episode_sets, write_episode_set
from world4rl.provenance.manifests import ROLE_MANIFEST, ManifestDataset, RoleManifest
from world4rl.provenance.membership import episode_sets
from world4rl.provenance.statement import Statement

TASK, LANDED = "button-press-topdown-v3", "0123456789abcdef"


@pytest.fixture
def paths(tmp_path: Path, write_store: Callable[..., None]) -> Paths:
    paths = Paths(tmp_path)
    write_json(
        paths.raw(TASK, "expert") / "meta" / "world4rl.json",
        {"source": "expert", "operator": "scripted", "episodes": []},
    )
    dataset = ManifestDataset(
        id=LANDED, digest="a" * 64, statement=Statement(operator="ada", licence="CC0-1.0"), episodes=()
    )
    manifest = RoleManifest(root="b" * 64, datasets=(dataset,))
    write_json(paths.landed(TASK, "expert") / ROLE_MANIFEST, manifest.model_dump(mode="json"))
    write_store(paths.store(TASK, "expert") / "collected")
    write_store(paths.store(TASK, "expert") / LANDED, seed=1, numbers=(4, 7, 9), labels="none")
    return paths


def test_every_episode_of_every_dataset_is_in_a_set(paths: Paths) -> None:
    landed, collected = episode_sets(paths.store(TASK, "expert"), paths)
    assert (landed.dataset, collected.dataset) == (LANDED, "collected")
    assert (landed.statement.operator, collected.statement.operator) == ("ada", "scripted")
    assert [one.episode for one in landed.episodes] == [4, 7, 9]
    assert [one.success for one in collected.episodes] == [True, False, True]
    assert {one.success for one in landed.episodes} == {None}, "nobody said which were a success"
    table = EpisodeStore.open(paths.store(TASK, "expert") / LANDED).episodes
    assert [(one.digest, one.length, one.split, one.task) for one in landed.episodes] == list(
        zip(table["digest"], table["length"], table["split"], table["task"], strict=True)
    )


def test_a_set_is_the_same_again_and_found_by_its_digest(paths: Paths) -> None:
    folder = paths.store(TASK, "expert")
    digests = [write_episode_set(one, paths) for one in episode_sets(folder, paths)]
    assert [write_episode_set(one, paths) for one in episode_sets(folder, paths)] == digests
    assert [one.dataset for one in read_episode_sets(digests, paths).values()] == [LANDED, "collected"]


def test_other_outputs_hold_no_episodes(paths: Paths) -> None:
    for folder in (paths.bc(TASK), paths.raw(TASK, "expert"), paths.store(TASK, "random")):
        assert episode_sets(folder, paths) == []


def test_a_store_that_nothing_is_said_about_is_named(paths: Paths) -> None:
    write_json(
        paths.landed(TASK, "expert") / ROLE_MANIFEST, RoleManifest(root="b" * 64, datasets=()).model_dump(mode="json")
    )
    with pytest.raises(DataError, match="who recorded") as caught:
        episode_sets(paths.store(TASK, "expert"), paths)
    assert LANDED in str(caught.value)


@pytest.mark.parametrize("name", ["episodes.parquet", "store.json"])
def test_a_damaged_store_is_named(paths: Paths, name: str) -> None:
    file = paths.store(TASK, "expert") / "collected" / name
    file.write_bytes(file.read_bytes()[:5])
    with pytest.raises(DataError) as caught:
        episode_sets(paths.store(TASK, "expert"), paths)
    assert name in str(caught.value)
