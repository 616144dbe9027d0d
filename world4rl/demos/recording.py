"""Writes episodes as a LeRobot v3 dataset: lossless frames, readable by stock LeRobot, the same bytes every time.

LeRobot's own writer sends every frame through a temporary PNG file and builds a `datasets.Dataset` an episode; at
48 pixels that takes as long as simulating, and its `stats.json` comes out in hash order. The format itself is plain
Parquet and JSON, so it is written here directly: one row group an episode, PNG bytes inside the table.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from world4rl.demos.layout import DATA_PATH, EPISODES_PATH, INFO, SIDE_FILE, STATS, TASKS, VERSION
from world4rl.envs.episodes import Episode
from world4rl.files import replacing

QUANTILES = (0.01, 0.10, 0.50, 0.90, 0.99)
FILE_MEGABYTES = 100  # LeRobot's own limit for a data file
FILE_BYTES = FILE_MEGABYTES * 2**20
FILES_PER_CHUNK = 1000


@dataclass(frozen=True)
class Recording:
    """What is the same for all episodes of a dataset.

    Attributes:
        task: The task's name; also the task string of every frame.
        camera: Frames are stored as `observation.images.<camera>`.
        fps: Observations a second.
        state_names: What the numbers of the state are.
        action_names: What the numbers of an action are.
        side: Written into `meta/world4rl.json` beside the list of episodes.
    """

    task: str
    camera: str
    fps: float
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    side: Mapping[str, Any] = field(default_factory=dict)


def write_dataset(
    target: Path, episodes: Iterable[tuple[str, Episode]], recording: Recording, *, image_size: tuple[int, int]
) -> int:
    """Writes a dataset; it appears at `target` whole, when the last episode is in, replacing what was there.

    Args:
        target: The dataset's root folder.
        episodes: (split, episode) pairs; they are consumed one at a time and not kept.
        recording: What all episodes share.
        image_size: Height and width of the frames (a dataset without episodes has them too).

    Returns:
        The number of episodes.
    """
    with replacing(target) as root:
        writer = _Writer(root, recording, image_size)
        for split, episode in episodes:
            writer.add(split, episode)
        writer.finish()
    return len(writer.side_rows)


class _Writer:
    """The files of one dataset while they grow."""

    def __init__(self, root: Path, recording: Recording, image_size: tuple[int, int]) -> None:
        self.root = root
        self.recording = recording
        self.image_key = f"observation.images.{recording.camera}"
        self.features = _features(self.image_key, image_size, recording)
        self.schema = _schema(self.features)
        self.side_rows: list[dict[str, Any]] = []
        self.episode_rows: list[dict[str, Any]] = []
        self.histogram = np.zeros((3, 256), np.int64)
        self.columns: dict[str, list[np.ndarray]] = {
            name: [] for name, feature in self.features.items() if feature["dtype"] != "image"
        }
        self.frames = 0
        self.file = -1
        self.file_bytes = FILE_BYTES
        self.parquet: pq.ParquetWriter | None = None
        (root / "meta").mkdir(parents=True)

    def add(self, split: str, episode: Episode) -> None:
        number, length = len(self.episode_rows), len(episode.frames)
        steps = np.arange(length)
        columns: dict[str, np.ndarray] = {
            "observation.state": episode.states.astype(np.float32),
            "action": episode.actions.astype(np.float32),
            "next.reward": episode.rewards.astype(np.float32),
            "next.success": episode.successes.astype(bool),
            "next.done": steps == length - 1,
            "timestamp": (steps / self.recording.fps).astype(np.float32),
            "frame_index": steps,
            "episode_index": np.full(length, number),
            "index": self.frames + steps,
            "task_index": np.zeros(length, np.int64),
        }
        images = [encode_png(frame) for frame in episode.frames]
        if self.file_bytes >= FILE_BYTES:
            self._next_file()
        assert self.parquet is not None
        self.parquet.write_table(_table(self.schema, self.image_key, images, columns))
        self.file_bytes += sum(map(len, images))

        histogram = np.stack([np.bincount(episode.frames[..., c].ravel(), minlength=256) for c in range(3)])
        statistics = {self.image_key: _image_statistics(histogram, length)}
        for name, values in columns.items():
            statistics[name] = _statistics(values)
            self.columns[name].append(values)
        self.histogram += histogram
        row: dict[str, Any] = {
            "episode_index": number,
            "tasks": [self.recording.task],
            "length": length,
            "data/chunk_index": self.file // FILES_PER_CHUNK,
            "data/file_index": self.file % FILES_PER_CHUNK,
            "dataset_from_index": self.frames,
            "dataset_to_index": self.frames + length,
        }
        for name in self.features:
            row.update({f"stats/{name}/{key}": value for key, value in statistics[name].items()})
        self.episode_rows.append(row | {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0})
        self.side_rows.append(
            {"episode_index": number, "seed": episode.seed, "success": episode.success, "split": split}
        )
        self.frames += length

    def _next_file(self) -> None:
        if self.parquet is not None:
            self.parquet.close()
        self.file += 1
        path = self.root / DATA_PATH.format(
            chunk_index=self.file // FILES_PER_CHUNK, file_index=self.file % FILES_PER_CHUNK
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        self.parquet = pq.ParquetWriter(path, self.schema, compression="snappy", use_dictionary=False)
        self.file_bytes = 0

    def finish(self) -> None:
        if self.parquet is not None:
            self.parquet.close()
            path = self.root / EPISODES_PATH.format(chunk_index=0, file_index=0)
            path.parent.mkdir(parents=True)
            pq.write_table(pa.Table.from_pylist(self.episode_rows), path, compression="snappy")
            # Through pandas: LeRobot looks tasks up by the index, and only pandas writes which column that is.
            index = pd.Index([self.recording.task], name="task")
            pd.DataFrame({"task_index": [0]}, index=index).to_parquet(self.root / TASKS)
            statistics = {name: _statistics(np.concatenate(values)) for name, values in self.columns.items()}
            statistics[self.image_key] = _image_statistics(self.histogram, self.frames)
            _write_json(self.root / STATS, dict(sorted(statistics.items())))
        count = len(self.episode_rows)
        info = {
            "codebase_version": VERSION,
            "fps": int(self.recording.fps) if float(self.recording.fps).is_integer() else self.recording.fps,
            "features": self.features,
            "total_episodes": count,
            "total_frames": self.frames,
            "total_tasks": 1 if count else 0,
            "chunks_size": FILES_PER_CHUNK,
            "data_files_size_in_mb": FILE_MEGABYTES,
            "video_files_size_in_mb": 200,
            "data_path": DATA_PATH,
            "video_path": None,
            "robot_type": None,
            "splits": {"train": f"0:{count}"},
        }
        _write_json(self.root / INFO, info)
        _write_json(self.root / SIDE_FILE, {**self.recording.side, "episodes": self.side_rows})


def encode_png(frame: np.ndarray) -> bytes:
    """A frame uint8 (H, W, 3) as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "png", compress_level=1)  # higher levels save nothing at these sizes
    return buffer.getvalue()


def _features(image_key: str, image_size: tuple[int, int], recording: Recording) -> dict[str, dict[str, Any]]:
    scalars = {
        "next.reward": "float32",
        "next.success": "bool",
        "next.done": "bool",
        "timestamp": "float32",
        "frame_index": "int64",
        "episode_index": "int64",
        "index": "int64",
        "task_index": "int64",
    }
    return {
        image_key: {"dtype": "image", "shape": [*image_size, 3], "names": ["height", "width", "channels"]},
        "observation.state": _vector(recording.state_names),
        "action": _vector(recording.action_names),
        **{name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in scalars.items()},
    }


def _vector(names: tuple[str, ...]) -> dict[str, Any]:
    return {"dtype": "float32", "shape": [len(names)], "names": list(names)}


def _schema(features: Mapping[str, Mapping[str, Any]]) -> pa.Schema:
    """The Arrow schema, with the `datasets` feature types that let stock LeRobot decode the images."""
    fields: list[pa.Field] = []
    hints: dict[str, Any] = {}
    for name, feature in features.items():
        value = {"dtype": feature["dtype"], "_type": "Value"}
        if feature["dtype"] == "image":
            fields.append(pa.field(name, pa.struct({"bytes": pa.binary(), "path": pa.string()})))
            hints[name] = {"_type": "Image"}
        elif name in ("action", "observation.state"):
            size = feature["shape"][0]
            fields.append(pa.field(name, pa.list_(pa.float32(), size)))
            hints[name] = {"feature": value, "length": size, "_type": "List"}
        else:
            fields.append(pa.field(name, pa.bool_() if feature["dtype"] == "bool" else getattr(pa, feature["dtype"])()))
            hints[name] = value
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": hints}})})


def _table(schema: pa.Schema, image_key: str, images: list[bytes], columns: Mapping[str, np.ndarray]) -> pa.Table:
    paths = [f"frame-{step:06d}.png" for step in range(len(images))]
    arrays: list[pa.Array] = []
    for entry in schema:
        if entry.name == image_key:
            arrays.append(
                pa.StructArray.from_arrays([pa.array(images, pa.binary()), pa.array(paths)], names=["bytes", "path"])
            )
        elif pa.types.is_fixed_size_list(entry.type):
            values = columns[entry.name]
            arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1]))
        else:
            arrays.append(pa.array(columns[entry.name], entry.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def _statistics(values: np.ndarray) -> dict[str, list[Any]]:
    """LeRobot's statistics of a column (N,) or (N, D), with exact quantiles."""
    table = values.reshape(len(values), -1).astype(np.float64)
    quantiles = np.quantile(table, QUANTILES, axis=0)
    return {
        "min": table.min(axis=0).tolist(),
        "max": table.max(axis=0).tolist(),
        "mean": table.mean(axis=0).tolist(),
        "std": table.std(axis=0).tolist(),
        "count": [len(table)],
        **{f"q{round(100 * q):02d}": row.tolist() for q, row in zip(QUANTILES, quantiles, strict=True)},
    }


def _image_statistics(histogram: np.ndarray, frames: int) -> dict[str, list[Any]]:
    """The same for uint8 images, a channel at a time and in [0, 1], from the counts (3, 256) of each level."""
    levels = np.arange(256) / 255
    total = histogram.sum(axis=1)
    mean = histogram @ levels / total
    variance = histogram @ levels**2 / total - mean**2
    reached = np.cumsum(histogram, axis=1) / total[:, None]
    present = histogram > 0
    rows = {
        "min": levels[present.argmax(axis=1)],
        "max": levels[255 - present[:, ::-1].argmax(axis=1)],
        "mean": mean,
        "std": np.sqrt(np.maximum(variance, 0)),
    }
    rows |= {f"q{round(100 * q):02d}": levels[(reached >= q).argmax(axis=1)] for q in QUANTILES}
    statistics: dict[str, list[Any]] = {name: [[[float(v)]] for v in row] for name, row in rows.items()}
    return statistics | {"count": [frames]}


def _write_json(path: Path, value: Any) -> None:
    """LeRobot's own indentation; the folder as a whole is what appears atomically."""
    path.write_text(json.dumps(value, indent=4, allow_nan=False) + "\n", encoding="utf-8")
