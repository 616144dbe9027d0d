from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import zarr

from world4rl.config import Store
from world4rl.demos.ingest import IngestOptions, ingest
from world4rl.demos.store import EpisodeStore
from world4rl.errors import DataError
from world4rl.provenance.digests import merkle_root


@pytest.fixture
def store(good_dataset: Path, tmp_path: Path) -> EpisodeStore:
    ingest(good_dataset, tmp_path / "store")
    return EpisodeStore.open(tmp_path / "store")


def test_what_goes_in_comes_out(store: EpisodeStore, good_episodes: Any) -> None:
    assert len(store) == len(good_episodes)
    assert store.cameras == ("corner2",)
    assert (store.image_size, store.action_size, store.state_size, store.fps) == ((24, 24), 4, 4, 40.0)
    for row, (split, episode) in enumerate(good_episodes):
        np.testing.assert_array_equal(store.frames(row), episode.frames)
        np.testing.assert_array_equal(store.frames(row, "corner2"), episode.frames)
        np.testing.assert_array_equal(store.actions(row), episode.actions)
        np.testing.assert_array_equal(store.states(row), episode.states)
        entry = store.episodes.iloc[row]
        assert (entry["split"], entry["seed"], entry["success"]) == (split, episode.seed, episode.success)
        assert (entry["task"], entry["source"]) == ("button-press-topdown-v3", "expert")


def test_success_belongs_to_the_frame_that_shows_it(store: EpisodeStore, good_episodes: Any) -> None:
    """success[t] = next.success[t - 1]: the action of row t - 1 led to what row t shows."""
    for row, (_, episode) in enumerate(good_episodes):
        success = store.success(row)
        assert not success[0]
        np.testing.assert_array_equal(success[1:], episode.successes[:-1])
    last_action_succeeds = good_episodes[1][1].successes
    assert last_action_succeeds.tolist() == [False] * 14 + [True]
    assert not store.success(1).any()  # the frame that would show it was never taken
    assert store.episodes["success"].tolist() == [True, True, False, False, False]


def test_the_same_dataset_gives_the_same_bytes(store: EpisodeStore, good_dataset: Path, tmp_path: Path) -> None:
    report = ingest(good_dataset, tmp_path / "again")
    assert report.digest == store.digest
    files = sorted(path.relative_to(store.path) for path in store.path.rglob("*") if path.is_file())
    again = sorted(p.relative_to(tmp_path / "again") for p in (tmp_path / "again").rglob("*") if p.is_file())
    assert files == again
    for file in files:
        assert (store.path / file).read_bytes() == (tmp_path / "again" / file).read_bytes(), file


def test_chunks_and_compression_do_not_change_the_digest(
    store: EpisodeStore, good_dataset: Path, tmp_path: Path
) -> None:
    settings = Store(chunk_frames=2, shard_frames=6, compression_level=1)
    report = ingest(good_dataset, tmp_path / "small", IngestOptions(settings=settings))
    assert report.digest == store.digest
    small = EpisodeStore.open(tmp_path / "small")
    for row in range(len(store)):
        np.testing.assert_array_equal(small.frames(row), store.frames(row))
        np.testing.assert_array_equal(small.actions(row), store.actions(row))
    array = zarr.open_array(tmp_path / "small" / "frames" / "corner2", mode="r")
    assert array.metadata.zarr_format == 3
    assert (array.chunks, array.shards) == ((2, 24, 24, 3), (6, 24, 24, 3))
    assert array.compressors[0].to_dict() == {"name": "zstd", "configuration": {"level": 1, "checksum": False}}
    assert len(list((tmp_path / "small" / "frames" / "corner2" / "c").iterdir())) == -(-58 // 6)


def test_large_pictures_get_fewer_frames_a_shard(
    good_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("world4rl.demos.store.SHARD_BYTES", 24 * 24 * 3 * 35)
    ingest(good_dataset, tmp_path / "store")
    array = zarr.open_array(tmp_path / "store" / "frames" / "corner2", mode="r")
    assert array.shards is not None
    assert array.shards[0] == 32  # the largest multiple of a chunk within the limit


def test_digests_are_of_the_content(store: EpisodeStore) -> None:
    digests = store.episodes["digest"]
    assert digests.is_unique
    assert store.digest == merkle_root(digests)
    assert store.verify() == []
    array = zarr.open_array(store.path / "actions", mode="r+")
    array[int(store.episodes["start"].iloc[2]), 0] += np.float32(0.25)
    assert EpisodeStore.open(store.path).verify() == [2]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda root: (root / "store.json").unlink(), "no store here"),
        (lambda root: (root / "store.json").write_text("{"), "damaged: JSONDecodeError"),
        (lambda root: (root / "episodes.parquet").write_bytes(b"PAR1"), "damaged: Arrow"),
        (lambda root: (root / "actions" / "zarr.json").unlink(), "damaged: KeyError"),
        (lambda root: zarr.open_array(root / "success", mode="r+").resize((3,)), "success has 3 rows, not 58"),
    ],
)
def test_a_damaged_store_is_named(store: EpisodeStore, damage: Any, words: str) -> None:
    damage(store.path)
    with pytest.raises(DataError, match=words) as error:
        EpisodeStore.open(store.path)
    assert str(store.path) in str(error.value)


def test_an_episode_table_from_elsewhere_is_noticed(store: EpisodeStore) -> None:
    table = pd.read_parquet(store.path / "episodes.parquet")
    table.loc[0, "digest"] = "0" * 64
    table.to_parquet(store.path / "episodes.parquet", index=False)
    with pytest.raises(DataError, match=r"digest in store\.json is not that of"):
        EpisodeStore.open(store.path)


def test_another_format_is_refused(store: EpisodeStore) -> None:
    description = json.loads((store.path / "store.json").read_text())
    (store.path / "store.json").write_text(json.dumps(description | {"format": 99}))
    with pytest.raises(DataError, match="store format 99"):
        EpisodeStore.open(store.path)


def test_unknown_cameras_are_refused(store: EpisodeStore) -> None:
    with pytest.raises(DataError, match=r"no camera 'front'[\s\S]*corner2"):
        store.frames(0, "front")
