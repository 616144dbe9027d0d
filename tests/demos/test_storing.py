"""The store stages: what was collected and what landed, a store a dataset."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from world4rl.config import Params, load_profile
from world4rl.demos.ingest import split_of
from world4rl.demos.recording import write_dataset
from world4rl.demos.store import EpisodeStore, open_stores
from world4rl.demos.storing import store_demos, store_rollouts
from world4rl.demos.survey import survey
from world4rl.errors import DataError
from world4rl.landing.door import door_options
from world4rl.landing.marker import mark
from world4rl.landing.verify import verify
from world4rl.paths import Paths, Role
from world4rl.provenance.digests import digest_folder, merkle_root
from world4rl.provenance.manifests import Acceptance, LandedEpisode, write_acceptance, write_manifests
from world4rl.provenance.statement import Statement

TASK = "button-press-topdown-v3"


@pytest.fixture
def params() -> Params:
    return load_profile("ci")


@pytest.fixture
def accept(tmp_path: Path, params: Params, make_episode: Any, make_recording: Any) -> Callable[..., Acceptance]:
    """Puts a dataset of one episode a seed among the accepted ones, as `take` does."""

    def put(paths: Paths, seeds: tuple[int, ...], role: Role = "expert") -> Acceptance:
        folder = tmp_path / f"landed-{role}-{'-'.join(map(str, seeds))}"
        episodes = [("train", make_episode(seed)) for seed in seeds]
        write_dataset(folder, episodes, make_recording(side={"source": role}), image_size=(24, 24))
        digest = mark(folder).digest
        found = survey(folder, door_options(params, Statement(source=role)), {})
        acceptance = Acceptance(
            id=digest[:16],
            name=folder.name,
            digest=digest,
            statement=Statement(source=role),
            episodes=tuple(
                LandedEpisode(episode=e.episode, task=TASK, length=e.length, success=e.success, digest=e.digest)
                for e in found.episodes
            ),
        )
        target = paths.landed(TASK, role) / acceptance.id
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(target)
        write_acceptance(acceptance, paths)
        write_manifests([TASK], paths)
        return acceptance

    return put


@pytest.fixture
def paths(tmp_path: Path, params: Params, make_episode: Any, make_recording: Any) -> Paths:
    """What a simulator recorded, and nothing landed yet."""
    paths = Paths(tmp_path / "run")
    wild = make_episode(3)
    collected = {
        "expert": [("train", make_episode(1, success_from=4)), ("test", make_episode(2))],
        "policy": [("train", replace(wild, actions=wild.actions * 2)), ("validation", make_episode(4))],
        "random": [],
    }
    for source, episodes in collected.items():
        recording = make_recording(side={"source": source})
        write_dataset(paths.raw(TASK, source), episodes, recording, image_size=(24, 24))
    write_manifests([TASK], paths)
    verify(params, paths, TASK)
    return paths


def report(paths: Paths, stage: Any) -> Any:
    return json.loads(paths.store_report(TASK, stage).read_text())


def test_the_stages_report_what_they_stored(paths: Paths, params: Params) -> None:
    store_demos(params, paths, TASK)
    figures = report(paths, "expert")
    assert (figures["accepted"], figures["frames"], figures["successes"]) == (2, 24, 1)
    assert figures["quarantined"] == []
    (store,) = EpisodeStore.open_all(paths.store(TASK, "expert"))
    assert figures["digest"] == merkle_root([store.digest])
    assert figures["seconds"] > 0

    store_rollouts(params, paths, TASK)
    figures = report(paths, "rollouts")
    assert (figures["accepted"], figures["frames"]) == (1, 12)
    (entry,) = figures["quarantined"]
    assert (entry["episode"], entry["check"], entry["source"]) == (0, "out_of_bounds", "policy")
    assert figures["sources"]["random"]["accepted"] == 0
    assert [len(store) for store in EpisodeStore.open_all(paths.store(TASK, "random"))] == [0]
    with pytest.raises(DataError, match="no such folder"):
        store_demos(params, paths, "handle-press-v3")


def test_what_landed_becomes_one_more_store_and_the_others_stay(
    paths: Paths, params: Params, accept: Callable[..., Acceptance]
) -> None:
    store_demos(params, paths, TASK)
    collected = paths.store(TASK, "expert") / "collected" / "store.json"
    made = collected.stat().st_mtime_ns
    first = accept(paths, (11, 12))
    second = accept(paths, (13,))
    verify(params, paths, TASK)
    store_demos(params, paths, TASK)
    stores = open_stores(paths, [TASK], ["expert"])
    assert {store.path.name for store in stores} == {"collected", first.id, second.id}
    assert sum(map(len, stores)) == 5
    assert report(paths, "expert")["accepted"] == 5
    assert collected.stat().st_mtime_ns == made, "it was not made again"
    size = params.simulation.image_size
    assert all(store.image_size == (size, size) for store in stores if store.path.name != "collected")
    assert {str(task) for store in stores for task in store.episodes["task"]} == {TASK}


def test_the_folder_is_the_same_whether_datasets_came_one_by_one_or_together(
    paths: Paths, params: Params, accept: Callable[..., Acceptance], tmp_path: Path
) -> None:
    accept(paths, (11, 12))
    verify(params, paths, TASK)
    store_demos(params, paths, TASK)
    accept(paths, (13,))
    verify(params, paths, TASK)
    store_demos(params, paths, TASK)
    one_by_one = digest_folder(paths.store(TASK, "expert"))
    for store in paths.store(TASK, "expert").iterdir():
        store.rename(tmp_path / f"away-{store.name}")
    store_demos(params, paths, TASK)
    assert digest_folder(paths.store(TASK, "expert")) == one_by_one


def test_a_role_feeds_its_own_stage_only(paths: Paths, params: Params, accept: Callable[..., Acceptance]) -> None:
    before = digest_folder(paths.landed(TASK, "expert"))
    landed = accept(paths, (21,), "policy")
    accept(paths, (22,), "evaluation")
    verify(params, paths, TASK)
    assert digest_folder(paths.landed(TASK, "expert")) == before
    store_demos(params, paths, TASK)
    store_rollouts(params, paths, TASK)
    names = {s: {path.name for path in paths.store(TASK, s).iterdir()} for s in ("expert", "policy", "random")}
    assert names == {"expert": {"collected"}, "policy": {"collected", landed.id}, "random": {"collected"}}


def test_a_withdrawn_dataset_leaves_no_store_behind(
    paths: Paths, params: Params, accept: Callable[..., Acceptance]
) -> None:
    gone = accept(paths, (11,))
    verify(params, paths, TASK)
    store_demos(params, paths, TASK)
    (paths.accepted / f"{gone.id}.json").unlink()
    write_manifests([TASK], paths)
    verify(params, paths, TASK)
    store_demos(params, paths, TASK)
    assert [path.name for path in paths.store(TASK, "expert").iterdir()] == ["collected"]
    assert [path.name for path in paths.landed(TASK, "expert").iterdir()] == ["manifest.json"]


@pytest.mark.parametrize("harm", ["missing", "flipped"])
def test_an_accepted_dataset_that_is_not_as_accepted_stops_the_stage(
    paths: Paths, params: Params, accept: Callable[..., Acceptance], harm: str
) -> None:
    landed = accept(paths, (11,))
    folder = paths.landed(TASK, "expert") / landed.id
    if harm == "missing":
        folder.rename(folder.parent.parent / "elsewhere")
    else:
        file = folder / "data" / "chunk-000" / "file-000.parquet"
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(bytes(content))
    with pytest.raises(DataError, match="dataset is missing" if harm == "missing" else "not those that were accepted"):
        verify(params, paths, TASK)


def test_an_episodes_content_decides_its_split() -> None:
    digests = [f"{number * 2**60:016x}".rjust(16, "0") + "0" * 48 for number in range(16)]
    splits = [split_of(digest, 0.25, 0.125) for digest in digests]
    assert splits == ["test"] * 4 + ["validation"] * 2 + ["train"] * 10
    assert {split_of(digest, 0.0, 0.0) for digest in digests} == {"train"}
