"""Episodes taken out of a dataset: the others keep every byte that training sees, whatever the cameras' format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.demos.conftest import stock_dataset
from world4rl.demos.ingest import IngestOptions
from world4rl.demos.layout import SIDE_FILE
from world4rl.demos.survey import Surveyed, survey
from world4rl.landing.cutting import cut
from world4rl.landing.marker import mark


def episodes(dataset: Path) -> list[Surveyed]:
    found = survey(dataset, IngestOptions(), {})
    assert not found.quarantined
    return list(found.episodes)


def pictures(dataset: Path) -> dict[bytes, int]:
    """The episode of every picture, by its bytes."""
    found: dict[bytes, int] = {}
    for path in (dataset / "data").rglob("*.parquet"):
        table = pq.read_table(path)
        camera = next(name for name in table.schema.names if "images" in name)
        found |= {row[camera]["bytes"]: row["episode_index"] for row in table.to_pylist()}
    return found


@pytest.mark.parametrize("keep", [(0, 2), (1,), (2, 3)])
def test_what_is_kept_is_the_same_to_the_bit(
    record: Callable[..., Path], tmp_path: Path, keep: tuple[int, ...]
) -> None:
    source = record(tmp_path / "source", (1, 2, 3, 4))
    before = episodes(source)
    cut(source, tmp_path / "cut", keep)
    after = episodes(tmp_path / "cut")
    assert [one.episode for one in after] == list(range(len(keep)))
    assert [(one.digest, one.length, one.success) for one in after] == [
        (before[old].digest, before[old].length, before[old].success) for old in keep
    ]
    rows = json.loads((tmp_path / "cut" / SIDE_FILE).read_text())["episodes"]
    assert [(row["episode_index"], row["seed"]) for row in rows] == [(new, old + 1) for new, old in enumerate(keep)]


def test_nothing_of_what_was_taken_out_remains(record: Callable[..., Path], tmp_path: Path) -> None:
    source = record(tmp_path / "source", (1, 2, 3))
    (source / "notes.png").write_bytes(b"who knows whose picture")
    cut(source, tmp_path / "cut", (0, 2))
    before = pictures(source)
    assert sorted(before.values()) == [0] * 10 + [1] * 10 + [2] * 10
    assert pictures(tmp_path / "cut") == {picture: one // 2 for picture, one in before.items() if one != 1}
    assert not (tmp_path / "cut" / "notes.png").exists()


def test_the_same_cut_gives_the_same_bytes(record: Callable[..., Path], tmp_path: Path) -> None:
    source = record(tmp_path / "source", (1, 2, 3))
    cut(source, tmp_path / "one", (0, 2))
    cut(source, tmp_path / "other", (0, 2))
    assert mark(tmp_path / "one").digest == mark(tmp_path / "other").digest


@pytest.mark.parametrize("dtype", ["video", "image"])
def test_datasets_of_lerobots_own_writer_are_cut_between_their_packets(tmp_path: Path, dtype: str) -> None:
    source = tmp_path / "source"
    stock_dataset(source, cameras={"front": (48, 64)}, dtype=dtype, lengths=(20, 15, 20, 12))
    before = episodes(source)
    for keep in ((0, 2, 3), (1, 3), (0,)):
        cut(source, tmp_path / "cut", keep)
        assert [one.digest for one in episodes(tmp_path / "cut")] == [before[old].digest for old in keep]
    cut(source, tmp_path / "cut", (1, 2))
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    stock = LeRobotDataset("local/cut", root=tmp_path / "cut", video_backend="pyav")
    assert (stock.num_episodes, len(stock)) == (2, 35)
    assert int(stock[20]["episode_index"]) == 1
    statistics = json.loads((tmp_path / "cut" / "meta" / "stats.json").read_text())
    assert statistics["index"]["max"] == [34]
    assert statistics["episode_index"]["max"] == [1]
