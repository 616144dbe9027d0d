"""Zarr v3 stores: what training reads. Frames decoded once, episodes one after the other, the same bytes every time.

A store is a folder:

    frames/<camera>    uint8 (N, H, W, 3), sharded, zstd
    actions            float32 (N, A): the action taken in the state that the row shows
    states             float32 (N, S): the proprioceptive state; absent where the dataset has none
    success            bool (N,): the state that the row shows solves the task (LeRobot's next.success, one row later)
    episodes.parquet   a row an episode: offsets, task, source, split, success, seed, digest of the content
    store.json         cameras, sizes, feature map, counts, quarantined episodes, digest of the whole
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from zarr.codecs import ZstdCodec

from world4rl.config import Store as StoreSettings
from world4rl.demos.layout import SIDE_FILE, UNLABELLED
from world4rl.demos.tables import STORE_EPISODES, validate
from world4rl.errors import DataError
from world4rl.files import write_json
from world4rl.paths import SOURCES, Paths, Source
from world4rl.provenance.digests import digest_arrays, merkle_root

FORMAT = 1
SHARD_BYTES = 256 * 2**20  # a shard is built in memory, so large pictures get fewer frames a shard
AGAIN = "make the store again from its dataset (world4rl ingest, or the stage that writes it)"

_EPISODES = pa.schema(
    {
        "episode": pa.int64(),
        "start": pa.int64(),
        "length": pa.int64(),
        "task": pa.string(),
        "source": pa.string(),
        "split": pa.string(),
        "success": pa.bool_(),
        "seed": pa.int64(),
        "digest": pa.string(),
        "source_dataset": pa.string(),
    }
)


@dataclass(frozen=True)
class StoredEpisode:
    """One episode of T rows, as a store holds it.

    Attributes:
        frames: uint8 (T, H, W, 3) by camera.
        actions: float32 (T, A).
        states: float32 (T, S); None where there is none.
        success: bool (T,), of the state that each row shows.
        task: The task's name.
        source: `expert`, `policy`, `random`, or what the dataset says.
        split: `train`, `validation` or `test`.
        succeeded: Whether the episode as a whole is a success.
        seed: Of the simulator; None where unknown.
        episode: Index in the dataset that it came from.
    """

    frames: Mapping[str, np.ndarray]
    actions: np.ndarray
    states: np.ndarray | None
    success: np.ndarray
    task: str
    source: str
    split: str
    succeeded: bool
    seed: int | None
    episode: int

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything that training can see of the episode."""
        return content_digest(self.frames, self.actions, self.states, self.success, self.task)


def content_digest(
    frames: Mapping[str, np.ndarray], actions: np.ndarray, states: np.ndarray | None, success: np.ndarray, task: str
) -> str:
    """SHA-256 of an episode's frames, actions, states, success and task; where it is stored does not matter."""
    arrays = {f"frames/{camera}": values for camera, values in frames.items()}
    arrays |= {"actions": actions, "success": success} | ({} if states is None else {"states": states})
    return digest_arrays(arrays, header={"task": task})


class StoreWriter:
    """Writes a store, whole shards at a time. Use it on a fresh folder inside `files.replacing`.

    Args:
        root: The folder to create.
        cameras: Names of the cameras.
        image_size: Height and width of all frames.
        action_size: A.
        state_size: S; 0 where there is no state.
        settings: Chunks, shards and compression.
    """

    def __init__(
        self,
        root: Path,
        *,
        cameras: Sequence[str],
        image_size: tuple[int, int],
        action_size: int,
        state_size: int,
        settings: StoreSettings,
    ) -> None:
        self._root = root
        self._rows: list[dict[str, Any]] = []
        self._frames = 0
        group = zarr.create_group(root, zarr_format=3)
        picture = (*image_size, 3)
        self._columns = {f"frames/{c}": _Column(group, f"frames/{c}", picture, "uint8", settings) for c in cameras}
        self._columns["actions"] = _Column(group, "actions", (action_size,), "float32", settings)
        self._columns["success"] = _Column(group, "success", (), "bool", settings)
        if state_size:
            self._columns["states"] = _Column(group, "states", (state_size,), "float32", settings)

    @property
    def episodes(self) -> int:
        """How many episodes are in."""
        return len(self._rows)

    @property
    def frames(self) -> int:
        """How many rows are in."""
        return self._frames

    def add(self, episode: StoredEpisode, source_dataset: str) -> None:
        """Appends an episode."""
        for camera, values in episode.frames.items():
            self._columns[f"frames/{camera}"].append(values)
        self._columns["actions"].append(episode.actions)
        self._columns["success"].append(episode.success)
        if episode.states is not None:
            self._columns["states"].append(episode.states)
        length = len(episode.actions)
        self._rows.append(
            {
                "episode": episode.episode,
                "start": self._frames,
                "length": length,
                "task": episode.task,
                "source": episode.source,
                "split": episode.split,
                "success": episode.succeeded,
                "seed": episode.seed,
                "digest": episode.digest,
                "source_dataset": source_dataset,
            }
        )
        self._frames += length

    def finish(self, description: Mapping[str, Any]) -> str:
        """Writes the last shards, the episode table and `store.json`.

        Args:
            description: What `store.json` holds beside counts and digest.

        Returns:
            The store's digest: the Merkle root of its episodes' digests.
        """
        for column in self._columns.values():
            column.finish()
        pq.write_table(pa.Table.from_pylist(self._rows, schema=_EPISODES), self._root / "episodes.parquet")
        digest = merkle_root(row["digest"] for row in self._rows)
        counts = {"format": FORMAT, "episodes": len(self._rows), "frames": self._frames, "digest": digest}
        write_json(self._root / "store.json", {**description, **counts})
        return digest


class _Column:
    """An array that grows by whole shards."""

    def __init__(self, group: zarr.Group, name: str, row: tuple[int, ...], dtype: str, settings: StoreSettings) -> None:
        self._row = row
        row_bytes = int(np.prod(row)) * np.dtype(dtype).itemsize
        chunk = settings.chunk_frames
        self._shard = min(settings.shard_frames, max(chunk, SHARD_BYTES // max(row_bytes, 1) // chunk * chunk))
        # A window needs few frames but is small in numbers: numbers come a shard at a time.
        chunk_rows = chunk if name.startswith("frames/") else self._shard
        self._array = group.create_array(
            name,
            shape=(0, *row),
            chunks=(chunk_rows, *row),
            shards=(self._shard, *row),
            dtype=dtype,
            compressors=ZstdCodec(level=settings.compression_level),
        )
        self._dtype = dtype
        self._held: list[np.ndarray] = []
        self._count = 0

    def append(self, values: np.ndarray) -> None:
        if values.shape[1:] != self._row or values.dtype != self._dtype:
            raise ValueError(f"{self._array.name}: rows {values.dtype}{values.shape[1:]} into {self._dtype}{self._row}")
        self._held.append(values)
        self._count += len(values)
        if self._count >= self._shard:
            self._write(self._count // self._shard * self._shard)

    def finish(self) -> None:
        if self._count:
            self._write(self._count)

    def _write(self, count: int) -> None:
        held = np.concatenate(self._held)
        start = self._array.shape[0]
        self._array.resize((start + count, *self._row))
        self._array[start : start + count] = held[:count]
        self._held, self._count = [held[count:]], len(held) - count


def open_stores(paths: Paths, tasks: Iterable[str], sources: Sequence[Source] = SOURCES) -> list[EpisodeStore]:
    """Every store of the tasks and sources: what was collected in simulation, and each dataset that landed.

    Raises:
        DataError: a task has no store of a source, or one is damaged.
    """
    folders = [paths.store(task, source) for task in tasks for source in sources]
    return [store for folder in folders for store in EpisodeStore.open_all(folder)]


@dataclass(frozen=True)
class EpisodeStore:
    """A store to read from. Open one with `EpisodeStore.open`.

    Attributes:
        path: Its folder.
        episodes: Its episode table, a row an episode; methods take the row's number.
        description: `store.json`.
    """

    path: Path
    episodes: pd.DataFrame
    description: Mapping[str, Any]
    _arrays: Mapping[str, Any] = field(repr=False)

    @classmethod
    def open(cls, path: Path) -> EpisodeStore:
        """Opens a store and checks that its parts belong together; reads no frames.

        Raises:
            DataError: there is no store, or it is damaged.
        """
        path = Path(path)
        if not (path / "store.json").is_file():
            raise DataError("there is no store here", where=path, remedy=AGAIN)
        try:
            description = json.loads((path / "store.json").read_text(encoding="utf-8"))
            episodes = pq.read_table(path / "episodes.parquet", schema=_EPISODES).to_pandas()
            names = ["actions", "success", *(f"frames/{camera}" for camera in description["cameras"])]
            names += ["states"] if description["state_size"] else []
            group = zarr.open_group(path, mode="r", zarr_format=3)
            arrays: dict[str, Any] = {name: group[name] for name in names}
        except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
            raise DataError(f"the store is damaged: {type(error).__name__} {error}", where=path, remedy=AGAIN) from None
        if description.get("format") != FORMAT:
            raise DataError(
                f"store format {description.get('format')}; this release reads {FORMAT}", where=path, remedy=AGAIN
            )
        episodes["seed"] = episodes["seed"].astype("Int64")
        problems = [finding.reason for finding in validate(STORE_EPISODES, episodes)]
        rows = int(episodes["length"].sum())
        problems += [f"{name} has {a.shape[0]} rows, not {rows}" for name, a in arrays.items() if a.shape[0] != rows]
        if merkle_root(episodes["digest"]) != description["digest"]:
            problems.append("the digest in store.json is not that of episodes.parquet")
        if problems:
            raise DataError(f"the store is damaged: {'; '.join(problems)}", where=path, remedy=AGAIN)
        return cls(path, episodes, description, arrays)

    def __len__(self) -> int:
        """How many episodes there are."""
        return len(self.episodes)

    @classmethod
    def open_all(cls, folder: Path) -> list[EpisodeStore]:
        """Opens every store in a folder, sorted by name.

        Raises:
            DataError: there is none, or one is damaged.
        """
        parts = sorted(path for path in Path(folder).glob("*") if path.is_dir() and not path.name.startswith("."))
        if not parts:
            raise DataError("there is no store here", where=folder, remedy=AGAIN)
        return [cls.open(path) for path in parts]

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras."""
        return tuple(self.description["cameras"])

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the frames."""
        height, width = self.description["image_size"]
        return int(height), int(width)

    @property
    def action_size(self) -> int:
        """Numbers in an action."""
        return int(self.description["action_size"])

    @property
    def state_size(self) -> int:
        """Numbers in a state; 0 where there is none."""
        return int(self.description["state_size"])

    @property
    def fps(self) -> float:
        """Frames a second."""
        return float(self.description["fps"])

    @property
    def digest(self) -> str:
        """Merkle root of the episodes' digests."""
        return str(self.description["digest"])

    def array(self, name: str) -> Any:
        """The Zarr array `actions`, `states`, `success` or `frames/<camera>` over all rows."""
        if name not in self._arrays:
            raise DataError(f"the store has no {name}", where=self.path, remedy=f"it has {', '.join(self._arrays)}")
        return self._arrays[name]

    def camera(self, name: str | None) -> str:
        """The camera of that name; the only camera where no name is given.

        Raises:
            DataError: there is no such camera, or several and none was named.
        """
        if name is None and len(self.cameras) == 1:
            return self.cameras[0]
        if name not in self.cameras:
            asked = "no camera was named" if name is None else f"no camera {name!r}"
            raise DataError(asked, where=self.path, remedy=f"choose one of {', '.join(self.cameras)}")
        return name

    def frames(self, episode: int, camera: str | None = None) -> np.ndarray:
        """Frames uint8 (T, H, W, 3) of an episode."""
        return self._read(f"frames/{self.camera(camera)}", episode)

    def actions(self, episode: int) -> np.ndarray:
        """Actions float32 (T, A) of an episode."""
        return self._read("actions", episode)

    def states(self, episode: int) -> np.ndarray:
        """States float32 (T, S) of an episode; S is 0 where the store has none."""
        if not self.state_size:
            return np.zeros((int(self.episodes["length"].iloc[episode]), 0), np.float32)
        return self._read("states", episode)

    def success(self, episode: int) -> np.ndarray:
        """bool (T,): whether the state that each row of an episode shows is a success; false where nobody knows."""
        return self._read("success", episode)

    def labelled(self, episode: int) -> bool:
        """Whether anybody knows which rows of an episode show a success.

        Nobody does where the dataset says nothing about success, or only that the episode as a whole is one.
        """
        labels = self.description["labels"]
        return labels != UNLABELLED and not (labels == SIDE_FILE and self.episodes["success"].iloc[episode])

    def _read(self, name: str, episode: int) -> np.ndarray:
        row = self.episodes.iloc[episode]
        return np.asarray(self.array(name)[int(row["start"]) : int(row["start"]) + int(row["length"])])

    def verify(self) -> list[int]:
        """Reads everything and returns the rows of `episodes` whose content is not what their digests say."""
        wrong = []
        for row, (digest, task) in enumerate(zip(self.episodes["digest"], self.episodes["task"], strict=True)):
            frames = {camera: self.frames(row, camera) for camera in self.cameras}
            states = self.states(row) if self.state_size else None
            if content_digest(frames, self.actions(row), states, self.success(row), task) != digest:
                wrong.append(row)
        return wrong
