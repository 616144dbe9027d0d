"""Reads LeRobot v3 datasets in bulk: tables with pyarrow, videos from front to back, never a frame at a time.

Everything that can be wrong with the dataset as a whole is found here, before a frame is decoded, and stops the
reading with one error: a wrong version, files that are missing or cut short, tables that contradict each other.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from world4rl.demos.checks import Finding, check_columns, check_totals
from world4rl.demos.layout import (
    DATA_PATH,
    EPISODES,
    INDEX_COLUMNS,
    INFO,
    SIDE_FILE,
    STATS,
    TASKS,
    VERSION,
    VIDEO_PATH,
)
from world4rl.demos.tables import EPISODE_TABLE, validate
from world4rl.errors import DataError

COPY_AGAIN = "copy the dataset again from where it was recorded, whole"
VISUAL = ("image", "video")
DAMAGE = (OSError, pa.ArrowException, ValueError, KeyError)  # what pyarrow raises for damaged files
LARGEST_PICTURE = 8192  # pixels a side; what claims more is no camera, and memory is made ready for what is claimed
LARGEST_VECTOR = 100_000  # numbers a row
FASTEST = 10_000  # frames a second
PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".joblib")  # whoever opens one runs what is in it
_KINDS = {"b": "true/false", "i": "whole numbers", "u": "whole numbers", "f": "numbers"}


@dataclass(frozen=True)
class Feature:
    """A column as `meta/info.json` declares it.

    Attributes:
        name: Its full name, e.g. `observation.images.front`.
        dtype: `video`, `image`, `string` or a numpy type.
        shape: Of one frame's value.
        names: What the axes or numbers are called; None where not said.
        depth: Whether it is a depth map.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    names: Any
    depth: bool

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of a camera's frames; the channel axis may stand first or last."""
        first = self.names[0] if isinstance(self.names, list) and self.names else None
        channels_first = first in ("channel", "channels") or (first is None and self.shape[0] in (1, 3))
        return (self.shape[1], self.shape[2]) if channels_first else (self.shape[0], self.shape[1])

    @property
    def size(self) -> int:
        """How many numbers a vector has."""
        return int(np.prod(self.shape))


@dataclass(frozen=True)
class Dataset:
    """A LeRobot v3 dataset whose metadata is sound.

    Attributes:
        root: Its folder.
        info: `meta/info.json`.
        fps: Frames a second.
        features: Columns by name.
        tasks: Task strings by number.
        episodes: A row an episode, LeRobot's columns.
        data_files: The data files in order.
        side: `meta/world4rl.json`; empty where there is none.
    """

    root: Path
    info: Mapping[str, Any]
    fps: float
    features: Mapping[str, Feature]
    tasks: Mapping[int, str]
    episodes: pd.DataFrame
    data_files: tuple[Path, ...]
    side: Mapping[str, Any]

    def video_path(self, camera: str, episode: Mapping[Any, Any]) -> Path:
        """The file that holds a camera feature's video of an episode (a row of `episodes`)."""
        return self.root / str(self.info["video_path"]).format(
            video_key=camera,
            chunk_index=int(episode[f"videos/{camera}/chunk_index"]),
            file_index=int(episode[f"videos/{camera}/file_index"]),
        )


def open_dataset(root: Path) -> Dataset:
    """Reads and checks the metadata of a dataset; decodes nothing.

    Raises:
        DataError: the dataset cannot be used; the error names the file and the remedy.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(
            "no such dataset folder",
            where=root,
            remedy="give the root folder of a LeRobot v3 dataset, which holds meta/",
        )
    _refuse_pickles(root)
    info = _read_info(root)
    features = {name: _feature(root, name, value) for name, value in info["features"].items()}
    fps = float(info["fps"])
    if info["total_episodes"] == 0 and not (root / EPISODES).exists():
        return Dataset(root, info, fps, features, {}, pd.DataFrame(), (), read_side(root))
    _require_statistics(root)
    tasks = _read_tasks(root)
    episodes = _read_episodes(root, [name for name, feature in features.items() if feature.dtype == "video"])
    dataset = Dataset(root, info, fps, features, tasks, episodes, _data_files(root, info, episodes), read_side(root))
    _require_videos(dataset)
    return dataset


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except FileNotFoundError:
        raise DataError("the file is missing", where=path, remedy=COPY_AGAIN) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"not valid JSON ({error})", where=path, remedy=COPY_AGAIN) from None


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _refuse_pickles(root: Path) -> None:
    """No dataset needs one, and where it lies somebody may open it some day."""
    found = sorted(path for path in root.rglob("*") if path.suffix.lower() in PICKLES)
    if found:
        raise DataError(
            "holds a pickled file, which runs code when it is opened", where=found[0], remedy="remove it, or save it "
            "in another format"
        )  # fmt: skip


def _require_statistics(root: Path) -> None:
    """LeRobot writes `meta/stats.json` with every dataset; we do not need it, but a copy without it is not whole."""
    path = root / STATS
    try:
        if not isinstance(json.loads(path.read_text(encoding="utf-8")), dict):
            raise ValueError("no object")
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, error) from None


def _read_info(root: Path) -> dict[str, Any]:
    path = root / INFO
    if not path.exists():
        raise DataError(
            "not a LeRobot dataset, or an incomplete one: meta/info.json is missing",
            where=path,
            remedy="give the dataset's root folder (the one that holds meta/ and data/), or copy the dataset again",
        )
    info = _read_json(path)
    version = str(info.get("codebase_version") if isinstance(info, dict) else None)
    if re.match(r"v?2\.", version):
        raise DataError(
            f"LeRobot format {version}; only {VERSION} is read",
            where=path,
            remedy="convert it: python -m lerobot.scripts.convert_dataset_v21_to_v30 --repo-id=NAME --root=FOLDER "
            "--push-to-hub=false",
        )
    if not re.match(r"v?3\.", version):
        raise DataError(
            f"LeRobot format {version}; only {VERSION} is read",
            where=path,
            remedy="export the dataset with a LeRobot release that writes v3.0",
        )
    missing = [key for key in ("fps", "features", "total_episodes", "total_frames") if key not in info]
    if missing:
        raise DataError(f"lacks {', '.join(missing)}", where=path, remedy=COPY_AGAIN)
    if not isinstance(info["features"], dict):
        raise DataError("features must be an object", where=path, remedy=COPY_AGAIN)
    for key, default in (("data_path", DATA_PATH), ("video_path", VIDEO_PATH)):
        info[key] = info.get(key) or default
        try:
            info[key].format(video_key="camera", chunk_index=0, file_index=0)
        except (KeyError, IndexError, ValueError, AttributeError):
            raise DataError(
                f"{key} {info[key]!r} is no path", where=path, remedy=f"the usual one is {default}"
            ) from None
        if not _stays_inside(root, info[key].format(video_key="camera", chunk_index=0, file_index=0)):
            raise DataError(
                f"{key} {info[key]!r} leads out of the dataset", where=path, remedy=f"the usual one is {default}"
            )
    if not isinstance(info["fps"], int | float) or not 0 < info["fps"] <= FASTEST:
        raise DataError(
            f"fps must be a positive number up to {FASTEST}, not {info['fps']!r}", where=path, remedy="correct fps"
        )
    return info


def _stays_inside(root: Path, path: str) -> bool:
    return (root / path).resolve().is_relative_to(root.resolve())


def _feature(root: Path, name: str, value: Any) -> Feature:
    try:
        shape = tuple(int(size) for size in value["shape"])
        dtype = str(value["dtype"])
        if dtype in VISUAL and len(shape) != 3:
            raise ValueError("a camera needs a shape of three numbers")
        if min(shape, default=1) < 1:
            raise ValueError(f"no size can be {min(shape)}")
        if max(shape, default=1) > LARGEST_PICTURE if dtype in VISUAL else math.prod(shape) > LARGEST_VECTOR:
            raise ValueError(f"nothing has the shape {list(shape)}")
        if "/" in name or "\\" in name or not name.strip("."):
            raise ValueError("its name is a path")
        hints = {**(value.get("video_info") or {}), **(value.get("info") or {})}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"feature {name} is not declared properly ({error})",
            where=root / INFO,
            remedy="correct its name, shape and dtype",
        ) from None
    depth = bool(hints.get("is_depth_map") or hints.get("video.is_depth_map"))
    return Feature(name, dtype, shape, value.get("names"), depth)


def _read_table(path: Path, but: str | None = None) -> pd.DataFrame:
    """A whole table, without the columns whose name begins with `but`."""
    try:
        with pq.ParquetFile(path) as file:
            names = [name for name in file.schema_arrow.names if but is None or not name.startswith(but)]
            return file.read(columns=names).to_pandas(ignore_metadata=True)
    except DAMAGE as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> DataError:
    """The error for a file that is missing, cut short or damaged."""
    if isinstance(error, FileNotFoundError):
        return DataError("the file is missing", where=path, remedy=COPY_AGAIN)
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return DataError(f"the file is cut short or damaged ({first[:160]})", where=path, remedy=COPY_AGAIN)


def _read_tasks(root: Path) -> dict[int, str]:
    path = root / TASKS
    table = _read_table(path)
    names = [column for column in ("task", "__index_level_0__") if column in table]
    if "task_index" not in table or not names:
        raise DataError("has no columns task_index and task", where=path, remedy=COPY_AGAIN)
    if table["task_index"].isna().any():
        raise DataError("task_index has empty cells", where=path, remedy=COPY_AGAIN)
    named = table[names[0]].fillna("")
    return {int(number): str(name) for number, name in zip(table["task_index"], named, strict=True)}


def _read_episodes(root: Path, videos: Sequence[str]) -> pd.DataFrame:
    folder = root / EPISODES
    files = sorted(folder.glob("*/*.parquet"))
    if not files:
        raise DataError("holds no episode table", where=folder, remedy=COPY_AGAIN)
    episodes = pd.concat([_read_table(path, but="stats/") for path in files], ignore_index=True)
    findings = validate(EPISODE_TABLE, episodes)
    needed = [f"videos/{v}/{c}" for v in videos for c in ("chunk_index", "file_index", "from_timestamp")]
    findings += [
        Finding(None, "table", f"column {name} is missing or has empty cells")
        for name in needed
        if name not in episodes or episodes[name].isna().any()
    ]
    refuse(folder, findings)
    return episodes.sort_values("episode_index", ignore_index=True)


def _data_files(root: Path, info: Mapping[str, Any], episodes: pd.DataFrame) -> tuple[Path, ...]:
    template = str(info["data_path"])
    pairs = episodes[["data/chunk_index", "data/file_index"]].drop_duplicates().itertuples(index=False)
    needed = [root / template.format(chunk_index=int(chunk), file_index=int(file)) for chunk, file in pairs]
    _require(needed)
    return tuple(sorted({*needed, *(root / "data").glob("*/*.parquet")}))


def _require_videos(dataset: Dataset) -> None:
    cameras = [name for name, feature in dataset.features.items() if feature.dtype == "video"]
    rows = dataset.episodes.to_dict("records")
    _require([dataset.video_path(camera, row) for camera in cameras for row in rows])


def _require(paths: Sequence[Path]) -> None:
    missing = [path for path in dict.fromkeys(paths) if not path.is_file()]
    if missing:
        others = f" ({len(missing)} files in all: {', '.join(map(str, missing[1:6]))})" if len(missing) > 1 else ""
        raise DataError(f"the file is missing{others}", where=missing[0], remedy=COPY_AGAIN)


def read_side(root: Path) -> dict[str, Any]:
    """The dataset's `meta/world4rl.json`; empty where there is none.

    Raises:
        DataError: it cannot be used.
    """
    path = root / SIDE_FILE
    if not path.exists():
        return {}
    side = _read_json(path)
    rows = side.get("episodes", []) if isinstance(side, dict) else None
    if not isinstance(rows, list) or not all(_is_side_row(row) for row in rows):
        raise DataError(
            "must be an object whose `episodes` are objects with an integer episode_index; seed is a whole number, "
            "success true or false, if any",
            where=path,
            remedy="correct the file",
        )
    wrong = sorted({str(row.get("split", "train")) for row in rows} - {"train", "validation", "test"})
    if wrong:
        raise DataError(
            f"unknown split {', '.join(wrong)}",
            where=path,
            remedy="use train, validation or test as an episode's split",
        )
    return dict(side)


def _is_side_row(row: Any) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("episode_index"), int):
        return False
    seed = row.get("seed", 0)
    return (seed is None or (isinstance(seed, int) and 0 <= seed < 2**63)) and isinstance(
        row.get("success"), bool | None
    )


def refuse(where: Path, findings: Sequence[Finding], remedy: str = COPY_AGAIN) -> None:
    """Raises one error for findings about a whole dataset; does nothing where there are none.

    Raises:
        DataError: lists every finding.
    """
    if not findings:
        return
    lines = [f"{f.reason}{f' ({f.evidence})' if f.evidence else ''}" for f in findings]
    problem = lines[0] if len(lines) == 1 else "\n".join(["the dataset is not sound:", *(f"    {x}" for x in lines)])
    raise DataError(problem, where=where, remedy=remedy)


@dataclass(frozen=True)
class Columns:
    """The columns without pictures, all frames of a dataset.

    Attributes:
        index: A row a frame: LeRobot's five index columns.
        vectors: (N, D) float64 by feature name; rows that do not have D numbers are NaN.
        wrong: (N,) bool by feature name: rows that do not have D numbers.
    """

    index: pd.DataFrame
    vectors: Mapping[str, np.ndarray]
    wrong: Mapping[str, np.ndarray]


def read_columns(dataset: Dataset, features: Sequence[str]) -> Columns:
    """Reads the index columns and the given features of all data files.

    Raises:
        DataError: a file is unreadable, a column is missing or undeclared or of the wrong type, a total is false.
    """
    declared = [name for name, feature in dataset.features.items() if feature.dtype != "video"]
    wanted = [*INDEX_COLUMNS, *features]
    tables = []
    for path in dataset.data_files:
        try:
            with pq.ParquetFile(path) as file:
                findings = check_columns([*declared, *INDEX_COLUMNS], file.schema_arrow.names, path.name)
                refuse(path, findings, "restore the column, or correct the features in meta/info.json")
                tables.append(file.read(columns=wanted))
                if len(tables[-1]) != file.metadata.num_rows:
                    raise ValueError(f"{len(tables[-1])} of {file.metadata.num_rows} rows")
        except DAMAGE as error:
            raise _unreadable(path, error) from None
    _require_whole_numbers(dataset, tables)
    index = pd.concat(
        [table.select(INDEX_COLUMNS).to_pandas(ignore_metadata=True) for table in tables], ignore_index=True
    )
    findings = check_totals(dataset.info, len(dataset.episodes), len(index))
    unlisted = sorted(set(index["episode_index"].dropna().astype(int)) - set(dataset.episodes["episode_index"]))
    if unlisted:
        findings.append(Finding(None, "row_count", f"the data files hold episodes {unlisted[:5]} that no table lists"))
    refuse(
        dataset.root / INFO,
        findings,
        "copy the missing files; if the data files are complete, correct the totals in meta/info.json",
    )
    vectors, wrong, files = {}, {}, dataset.data_files
    for name in features:
        parts = [_matrix(path, table[name], dataset.features[name]) for path, table in zip(files, tables, strict=True)]
        vectors[name] = np.concatenate([values for values, _ in parts])
        wrong[name] = np.concatenate([bad for _, bad in parts])
    return Columns(index, vectors, wrong)


def _require_whole_numbers(dataset: Dataset, tables: Sequence[pa.Table]) -> None:
    for path, table in zip(dataset.data_files, tables, strict=True):
        for name in INDEX_COLUMNS:
            column = table[name]
            if name == "timestamp":
                wrong = "no numbers" if _kind(column.type) not in ("f", "i") else ""
            else:
                wrong = "no whole numbers" if _kind(column.type) != "i" else "empty cells" * bool(column.null_count)
            if wrong:
                raise DataError(f"column {name} has {wrong}", where=path, remedy=COPY_AGAIN)


def _matrix(path: Path, column: pa.ChunkedArray, feature: Feature) -> tuple[np.ndarray, np.ndarray]:
    """A column as float64 (N, D), and which rows do not have D numbers."""
    array = column.combine_chunks()
    value_type = array.type
    while hasattr(value_type, "storage_type"):  # datasets' Array2D and the like
        array, value_type = array.storage, value_type.storage_type
    size = feature.size
    if pa.types.is_list(value_type) or pa.types.is_fixed_size_list(value_type) or pa.types.is_large_list(value_type):
        lengths = array.value_lengths() if not pa.types.is_fixed_size_list(value_type) else None
        counts = (
            np.full(len(array), value_type.list_size)
            if lengths is None
            else lengths.fill_null(-1).to_numpy(zero_copy_only=False)
        )
        wrong = (counts != size) | array.is_null().to_numpy(zero_copy_only=False)
        if lengths is None and wrong.all() and len(array):
            reason = f"{feature.name} has {value_type.list_size} numbers a frame, meta/info.json says {size}"
            raise DataError(reason, where=path, remedy="correct the shape in meta/info.json, or record again")
        flat = array.filter(pa.array(~wrong)).flatten()
    else:
        wrong = np.zeros(len(array), bool)
        flat = array
    kind = _kind(flat.type)
    if kind is None or (kind == "f") != (np.dtype(feature.dtype).kind == "f"):
        raise DataError(
            f"{feature.name} holds {_KINDS.get(str(kind), str(flat.type))}, meta/info.json says {feature.dtype}",
            where=path,
            remedy="correct the dtype in meta/info.json, or map another feature to it",
        )
    values = np.full((len(array), size), np.nan)
    if kind == "b":
        flat = flat.cast(pa.int8())  # where a cell is empty, Arrow has no other number for it
    values[~wrong] = flat.to_numpy(zero_copy_only=False).astype(np.float64).reshape(-1, size)
    return values, wrong


def _kind(value_type: pa.DataType) -> str | None:
    if pa.types.is_floating(value_type):
        return "f"
    if pa.types.is_boolean(value_type):
        return "b"
    return "i" if pa.types.is_integer(value_type) else None


@dataclass(frozen=True)
class Decoded:
    """A camera's frames of one episode.

    Attributes:
        frames: A picture uint8 (H, W, 3) a row; None where it could not be decoded.
        evidence: The file they came from.
        sizes: The (height, width) that pictures had.
    """

    frames: list[np.ndarray | None]
    evidence: str
    sizes: set[tuple[int, int]]


def decode_images(
    dataset: Dataset, cameras: Sequence[str], rows: Sequence[range], shrink: Any
) -> Iterator[dict[str, Decoded]]:
    """Yields the frames of image features, an episode after the other.

    Args:
        dataset: The dataset.
        cameras: Names of features with dtype `image`.
        rows: The rows of each episode, in ascending order.
        shrink: Applied to every PIL image; returns uint8 (H, W, 3).

    Raises:
        DataError: a file is cut short.
    """
    stream = _image_rows(dataset, cameras)
    position = 0
    for wanted in rows:
        found = {camera: Decoded([], "", set()) for camera in cameras}
        for _ in range(wanted.start - position):
            next(stream)
        position = wanted.start
        for _ in wanted:
            path, pictures = next(stream)
            position += 1
            for camera in cameras:
                frame, size = _decode_png(dataset.root, pictures[camera], shrink)
                found[camera].frames.append(frame)
                if size is not None:
                    found[camera].sizes.add(size)
                found[camera] = Decoded(found[camera].frames, path.name, found[camera].sizes)
        yield found


def _image_rows(dataset: Dataset, cameras: Sequence[str]) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in dataset.data_files:
        try:
            with pq.ParquetFile(path) as file:
                rows = 0
                for batch in file.iter_batches(batch_size=64, columns=list(cameras)):
                    for row in batch.to_pylist():
                        yield path, row
                    rows += len(batch)
                if rows != file.metadata.num_rows:
                    raise ValueError(f"{rows} of {file.metadata.num_rows} pictures")
        except DAMAGE as error:
            raise _unreadable(path, error) from None


def _decode_png(root: Path, picture: Any, shrink: Any) -> tuple[np.ndarray | None, tuple[int, int] | None]:
    try:
        content = picture["bytes"]
        if content is None:  # LeRobot embeds the bytes; other writers may leave a path
            if not _stays_inside(root, picture["path"]):
                return None, None
            content = (root / picture["path"]).read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            return shrink(image.convert("RGB")), (image.height, image.width)
    except (OSError, SyntaxError, TypeError, KeyError, ValueError, Image.DecompressionBombError):  # PIL's errors
        return None, None


class VideoCamera:
    """Decodes one camera's videos from front to back.

    Args:
        dataset: The dataset.
        camera: Name of a feature with dtype `video`.
        shrink: Applied to every PIL image; returns uint8 (H, W, 3).
    """

    def __init__(self, dataset: Dataset, camera: str, shrink: Any) -> None:
        self._dataset = dataset
        self._camera = camera
        self._shrink = shrink
        self._file: _VideoFile | None = None

    def decode(self, episode: Mapping[Any, Any], length: int) -> Decoded:
        """The frames of an episode (a row of the episode table) of `length` rows.

        Raises:
            DataError: the video file cannot be opened, or ends before the episode does.
        """
        path = self._dataset.video_path(self._camera, episode)
        start = float(episode[f"videos/{self._camera}/from_timestamp"])
        if self._file is None or self._file.path != path or start < self._file.time:
            self.close()
            self._file = _VideoFile(path)
        fps = self._dataset.fps
        frames: list[np.ndarray | None] = [None] * length
        sizes: set[tuple[int, int]] = set()
        for time, picture in self._file.until(start + (length - 0.5) / fps):
            slot = round((time - start) * fps)
            if 0 <= slot < length and picture is not None:
                frames[slot] = self._shrink(picture.to_image())
                sizes.add((picture.height, picture.width))
        if self._file.ended_before(start + (length - 1.5) / fps):
            raise DataError(
                f"the video is cut short: it ends after {self._file.last:.2f} s, but episode "
                f"{int(episode['episode_index'])} reaches to {start + length / fps:.2f} s",
                where=path,
                remedy=COPY_AGAIN,
            )
        return Decoded(frames, path.name, sizes)

    def close(self) -> None:
        """Closes the file that is open."""
        if self._file is not None:
            self._file.close()
            self._file = None


class _VideoFile:
    """A video that is being read once, in order of time."""

    def __init__(self, path: Path) -> None:
        import av

        self.path = path
        self.time = 0.0  # up to where frames were handed out
        self.last = 0.0  # the latest time stamp of any packet, decodable or not
        self._held: tuple[float, Any] | None = None
        try:
            self._container = av.open(str(path))
            stream = self._container.streams.video[0]
        except (av.FFmpegError, IndexError) as error:
            raise _unreadable(path, error) from None
        stream.codec_context.thread_count = 1  # with several threads, ffmpeg hides some of a damaged file's errors
        self._frames = self._decode(stream)

    def _decode(self, stream: Any) -> Iterator[tuple[float, Any]]:
        import av

        packets = self._container.demux(stream)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, av.FFmpegError):  # a file that is cut short ends early or with an error
                return
            if packet.pts is not None:
                self.last = max(self.last, float(packet.pts * packet.time_base))
            try:
                frames: list[Any] = packet.decode()
            except av.FFmpegError:
                continue  # the frame stays missing, and its episode will be quarantined
            for frame in frames:
                yield float(frame.pts * frame.time_base), (None if frame.is_corrupt else frame)

    def until(self, end: float) -> Iterator[tuple[float, Any]]:
        """Frames with their time, up to but without `end` (seconds)."""
        while True:
            entry = self._held or next(self._frames, None)
            self._held = None
            if entry is None:
                return
            if entry[0] >= end:
                self._held = entry
                self.time = end
                return
            self.time = entry[0]
            yield entry

    def ended_before(self, time: float) -> bool:
        """Whether the file has no packet at or after `time` (seconds)."""
        return self._held is None and self.last < time

    def close(self) -> None:
        self._container.close()
