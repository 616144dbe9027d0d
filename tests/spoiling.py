"""Ways to spoil a good dataset, each with the check that must find it and a phrase of the reason.

The good dataset is that of `tests/demos/conftest.py`: five episodes of 12, 15, 9, 12 and 10 rows in one file. What
spoils one episode spoils the fourth, number 3, whose rows are 36 to 47, unless it says otherwise.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from world4rl.demos.recording import encode_png

DATA = "data/chunk-000/file-000.parquet"
META = "meta/episodes/chunk-000/file-000.parquet"
TASKS = "meta/tasks.parquet"
INFO = "meta/info.json"
STATS = "meta/stats.json"
SIDE = "meta/world4rl.json"
CAMERA = "observation.images.corner2"
VIDEO = "videos/observation.images.front/chunk-000/file-000.mp4"
ROWS = slice(36, 48)  # of episode 3
LENGTHS = (12, 15, 9, 12, 10)

Spoil = Callable[[Path], object]


@dataclass(frozen=True)
class Bad:
    """A way to spoil a dataset.

    Attributes:
        check: The check that must find it.
        phrase: Of the reason.
        spoil: Changes a dataset in place.
        episodes: Those that must be kept out; None: the dataset as a whole.
    """

    check: str
    phrase: str
    spoil: Spoil
    episodes: tuple[int, ...] | None = (3,)


def rewrite(path: Path, how: Callable[[pa.Table], pa.Table]) -> None:
    """Changes a Parquet file in place."""
    pq.write_table(how(pq.read_table(path)), path)


def set_column(table: pa.Table, name: str, values: Any, dtype: pa.DataType | None = None) -> pa.Table:
    """A table with other values in a column, of the same type unless told."""
    place = table.schema.get_field_index(name)
    dtype = dtype or table.schema.field(name).type
    return table.set_column(place, pa.field(name, dtype), pa.array(values, dtype))


def edit_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Changes a JSON file in place."""
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


# ---- pieces -------------------------------------------------------------------------------------------------------


def rows(name: str, how: Callable[[list[Any]], None], file: str = DATA, dtype: pa.DataType | None = None) -> Spoil:
    """Changes the values of a column."""

    def spoil(root: Path) -> None:
        def change(table: pa.Table) -> pa.Table:
            values = table[name].to_pylist()
            how(values)
            return set_column(table, name, values, dtype)

        rewrite(root / file, change)

    return spoil


def cell(row: int, value: Any) -> Callable[[list[Any]], None]:
    """Puts a value into one row."""

    def change(values: list[Any]) -> None:
        values[row] = value

    return change


def each(function: Callable[[int, Any], Any], part: slice = ROWS) -> Callable[[list[Any]], None]:
    """Maps (row within the part, value) to a value."""

    def change(values: list[Any]) -> None:
        values[part] = [function(number, value) for number, value in enumerate(values[part])]

    return change


def pictures(where: range, make: Callable[[list[Any], int], bytes | None]) -> Callable[[list[Any]], None]:
    """Puts other pictures into rows."""

    def change(values: list[Any]) -> None:
        fresh = {row: make(values, row) for row in where}
        for row, content in fresh.items():
            values[row] = {"bytes": content, "path": None}

    return change


def table(file: str, how: Callable[[pa.Table], pa.Table]) -> Spoil:
    """Changes a whole table."""
    return lambda root: rewrite(root / file, how)


def info(change: Callable[[dict[str, Any]], Any], file: str = INFO) -> Spoil:
    """Changes a JSON file, `meta/info.json` unless told."""
    return lambda root: edit_json(root / file, change)


def side(**values: Any) -> Spoil:
    """Sets fields of the statement."""
    return info(lambda content: content.update(values), SIDE)


def missing(file: str) -> Spoil:
    """Removes a file."""
    return lambda root: (root / file).unlink()


def cut(file: str, keep: float) -> Spoil:
    """Keeps a share of a file's bytes."""

    def spoil(root: Path) -> None:
        content = (root / file).read_bytes()
        (root / file).write_bytes(content[: int(keep * len(content))])

    return spoil


def add(file: str, content: bytes) -> Spoil:
    """Adds a file."""

    def spoil(root: Path) -> None:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(content)

    return spoil


def both(*spoils: Spoil) -> Spoil:
    """Several, in turn."""

    def spoil(root: Path) -> None:
        for one in spoils:
            one(root)

    return spoil


def repeat_episode(root: Path) -> None:
    """Gives episode 3 the content of episode 0, which has as many rows and, unlike it, is a success."""
    for name in (CAMERA, "observation.state", "action", "next.success"):

        def change(values: list[Any]) -> None:
            values[ROWS] = values[:12]

        rows(name, change)(root)
    edit_json(root / SIDE, lambda content: content["episodes"][3].update(success=True))


def link_out(root: Path) -> None:
    outside = root.parent / f"{root.name}-secret.json"
    (root / STATS).rename(outside)
    (root / STATS).symlink_to(outside)


def one_row(root: Path) -> None:
    """Leaves one row of episode 4, the last, and tells it everywhere."""
    rewrite(root / DATA, lambda whole: whole.slice(0, 49))
    rewrite(root / META, lambda whole: set_column(whole, "length", [12, 15, 9, 12, 1]))
    rewrite(root / META, lambda whole: set_column(whole, "dataset_to_index", [12, 27, 36, 48, 49]))
    edit_json(root / INFO, lambda content: content.update(total_frames=49))
    rows("next.done", cell(48, True))(root)


def no_episodes(root: Path) -> None:
    rewrite(root / DATA, lambda whole: whole.slice(0, 0))
    rewrite(root / META, lambda whole: whole.slice(0, 0))
    edit_json(root / INFO, lambda content: content.update(total_frames=0, total_episodes=0))
    edit_json(root / SIDE, lambda content: content.update(episodes=[]))


def another_task(root: Path) -> None:
    """Names a second task, which the last half of episode 3 is said to be of."""
    known = pq.read_table(root / TASKS)
    names = [column for column in known.column_names if column != "task_index"]
    more = pa.table({"task_index": pa.array([1], known["task_index"].type), **{n: ["reach-v3"] for n in names}})
    pq.write_table(
        pa.concat_tables([known.select(["task_index", *names]).replace_schema_metadata(), more]), root / TASKS
    )
    rows("task_index", each(lambda number, value: int(number >= 6)))(root)


def name_task(name: str) -> Spoil:
    """Gives the only task another name."""

    def change(whole: pa.Table) -> pa.Table:
        column = next(column for column in whole.column_names if column != "task_index")
        return set_column(whole, column, [name] * len(whole))

    return table(TASKS, change)


def rename_feature(old: str, new: str) -> Spoil:
    """Renames a feature in `meta/info.json` and in the data."""

    def declare(content: dict[str, Any]) -> None:
        content["features"][new] = content["features"].pop(old)

    def change(whole: pa.Table) -> pa.Table:
        return whole.rename_columns([new if name == old else name for name in whole.column_names])

    return both(info(declare), table(DATA, change))


def feature(name: str, **values: Any) -> Spoil:
    """Changes how a feature is declared."""
    return info(lambda content: content["features"][name].update(values))


def ragged(values: list[Any]) -> None:
    values[40] = values[40][:3]


NAN, INFINITE = float("nan"), float("inf")
BLACK = encode_png(np.zeros((24, 24, 3), np.uint8))
GREY = encode_png(np.full((24, 24, 3), 90, np.uint8))
OTHER_SIZE = encode_png(np.random.default_rng(0).integers(0, 255, (24, 30, 3)).astype(np.uint8))
LATER = tuple(range(5))

# ---- one bad episode: quarantined, the rest goes on ---------------------------------------------------------------

EPISODES: dict[str, Bad] = {
    "NaN action": Bad("not_finite", "action has NaN", rows("action", cell(40, [0.0, NAN, 0.0, 0.0]))),
    "infinite action": Bad(
        "not_finite, out_of_bounds", "action has NaN or infinite", rows("action", cell(40, [0.0, -INFINITE, 0.0, 0.0]))
    ),
    "infinite state": Bad(
        "not_finite", "observation.state has NaN", rows("observation.state", cell(36, [0.0, 0.0, INFINITE, 0.0]))
    ),
    "empty action": Bad("wrong_shape", "action does not always have 4", rows("action", cell(40, None))),
    "too few numbers in an action": Bad(
        "wrong_shape", "action does not always have 4 numbers", rows("action", ragged, dtype=pa.list_(pa.float32()))
    ),
    "action out of bounds": Bad(
        "out_of_bounds", "action leaves [-1, 1]", rows("action", cell(40, [0.0, 1.5, 0.0, 0.0]))
    ),
    "constant actions": Bad(
        "constant_actions", "all 12 actions are the same", rows("action", each(lambda t, v: [0.1, 0.0, 0.0, -0.2]))
    ),
    "NaN timestamp": Bad("table", "timestamp has empty cells", rows("timestamp", cell(41, NAN))),
    "infinite timestamp": Bad("table", "timestamp does not follow", rows("timestamp", cell(41, INFINITE))),
    "lost frame": Bad("table", "timestamp does not follow frame_index / fps", rows("timestamp", cell(41, 0.5))),
    "timestamps backwards": Bad(
        "table", "timestamp does not follow", rows("timestamp", lambda v: v.__setitem__(ROWS, v[ROWS][::-1]))
    ),
    "timestamps stand still": Bad("table", "timestamp does not follow", rows("timestamp", each(lambda t, v: 0.0))),
    "irregular timestamps": Bad(
        "table", "timestamp does not follow", rows("timestamp", each(lambda t, v: v + (t % 3) / 80))
    ),
    "wrong order": Bad("table", "frame_index does not count", rows("frame_index", cell(41, 3))),
    "frame_index begins again": Bad(
        "table", "frame_index does not count", rows("frame_index", each(lambda t, v: t % 6))
    ),
    "a row twice": Bad(
        "table, row_range",
        "index does not count from 36 to 47",
        table(DATA, lambda whole: whole.take([*range(40), 39, *range(41, 58)])),
    ),
    "rows in another order": Bad(
        "table, row_range",
        "frame_index does not count",
        table(DATA, lambda whole: whole.take([*range(40), 41, 40, *range(42, 58)])),
    ),
    "index with a gap": Bad(
        "row_range", "index does not count from 36 to 47", rows("index", each(lambda t, v: v + 1000 * (t > 5)))
    ),
    "index of another episode": Bad("row_range", "index does not count from 36 to 47", rows("index", cell(40, 5))),
    "overlapping row ranges": Bad(
        "row_range",
        "index does not count from 30 to 41",
        both(
            table(META, lambda whole: set_column(whole, "dataset_from_index", [0, 12, 27, 30, 48])),
            table(META, lambda whole: set_column(whole, "dataset_to_index", [12, 27, 36, 42, 58])),
        ),
    ),
    "gap between row ranges": Bad(
        "row_count, row_range",
        "but the indices 38 to 48",
        table(META, lambda whole: set_column(whole, "dataset_from_index", [0, 12, 27, 38, 48])),
    ),
    "false length": Bad(
        "row_count",
        "promises 13 frames, the data files hold 12",
        table(META, lambda whole: set_column(whole, "length", [12, 15, 9, 13, 10])),
    ),
    "absurd length": Bad(
        "row_count",
        "promises 1000000000000 frames",
        table(META, lambda whole: set_column(whole, "length", [12, 15, 9, 10**12, 10])),
    ),
    "one row only": Bad("too_short", "nothing follows its first action", one_row, episodes=(4,)),
    "rows of two episodes mixed": Bad(
        "row_order",
        "its rows do not stand together",
        table(DATA, lambda whole: whole.take([*range(40), 57, *range(40, 57)])),
        episodes=(3, 4),
    ),
    "unknown task number": Bad("unknown_task", "task_index [4] is not in", rows("task_index", cell(38, 4))),
    "several tasks in an episode": Bad("several_tasks", "its rows name 2 tasks", another_task),
    "damaged picture": Bad(
        "decoded_frames", "gives 10 of 12 frames", rows(CAMERA, pictures(range(40, 42), lambda v, r: b"not a png"))
    ),
    "truncated picture": Bad(
        "decoded_frames",
        "gives 11 of 12 frames",
        rows(CAMERA, pictures(range(40, 41), lambda v, r: v[r]["bytes"][:-30])),
    ),
    "no picture": Bad(
        "decoded_frames", "gives 11 of 12 frames", rows(CAMERA, pictures(range(40, 41), lambda v, r: None))
    ),
    "picture outside the dataset": Bad(
        "decoded_frames",
        "gives 11 of 12 frames",
        both(
            add("../outside.png", GREY),
            rows(CAMERA, lambda v: v.__setitem__(40, {"bytes": None, "path": "../outside.png"})),
        ),
    ),
    "picture of another size": Bad(
        "wrong_shape", "pictures of 24x30", rows(CAMERA, pictures(range(40, 41), lambda v, r: OTHER_SIZE))
    ),
    "black camera": Bad(
        "black_camera", "is black in 2 frames", rows(CAMERA, pictures(range(40, 42), lambda v, r: BLACK))
    ),
    "blank camera": Bad(
        "blank_camera", "is one colour in 2 frames", rows(CAMERA, pictures(range(40, 42), lambda v, r: GREY))
    ),
    "frozen camera": Bad(
        "frozen_camera",
        "stands still for 12 of 12 frames",
        rows(CAMERA, pictures(range(36, 48), lambda v, r: v[36]["bytes"])),
    ),
    "the same episode twice": Bad("duplicate", "the same content as episode 0", repeat_episode),
    "success never comes": Bad(
        "success_label",
        "calls it a success, the success column a failure",
        info(lambda content: content["episodes"][3].update(success=True), SIDE),
    ),
    "success that the side file denies": Bad(
        "success_label", "calls it a failure, the success column a success", rows("next.success", cell(44, True))
    ),
    "empty success label": Bad("not_finite", "next.success has NaN", rows("next.success", cell(44, None))),
    "rows after the end": Bad("after_end", "next.done ends it at row 4", rows("next.done", cell(40, True))),
    "wrong fps": Bad(
        "table", "timestamp does not follow", info(lambda content: content.update(fps=20)), episodes=(0, 1, 2, 3, 4)
    ),
    "every action NaN": Bad(
        "not_finite",
        "action has NaN",
        rows("action", lambda values: values.__setitem__(slice(None), [[NAN] * 4] * 58)),
        episodes=(0, 1, 2, 3, 4),
    ),
    "a task without a name": Bad("unknown_task", "its task has no name", name_task(" "), episodes=(0, 1, 2, 3, 4)),
}

# ---- a bad dataset: refused, nothing of it is taken ---------------------------------------------------------------


def whole(phrase: str, spoil: Spoil, check: str = "dataset") -> Bad:
    """A dataset that is refused as a whole."""
    return Bad(check, phrase, spoil, None)


WHOLE: dict[str, Bad] = {
    "no data file": whole("the file is missing", missing(DATA)),
    "empty data file": whole("cut short or damaged", cut(DATA, 0.0)),
    "truncated data file": whole("cut short or damaged", cut(DATA, 0.6)),
    "no episode table": whole("holds no episode table", missing(META)),
    "empty episode table": whole("cut short or damaged", cut(META, 0.0)),
    "truncated episode table": whole("cut short or damaged", cut(META, 0.6)),
    "no task table": whole("the file is missing", missing(TASKS)),
    "empty task table": whole("cut short or damaged", cut(TASKS, 0.0)),
    "truncated task table": whole("cut short or damaged", cut(TASKS, 0.6)),
    "no info.json": whole("meta/info.json is missing", missing(INFO)),
    "empty info.json": whole("not valid JSON", cut(INFO, 0.0)),
    "truncated info.json": whole("not valid JSON", cut(INFO, 0.6)),
    "no statistics": whole("the file is missing", missing(STATS)),
    "empty statistics": whole("cut short or damaged", cut(STATS, 0.0)),
    "truncated statistics": whole("cut short or damaged", cut(STATS, 0.6)),
    "action of another type": whole(
        "action holds string, meta/info.json says float32",
        table(DATA, lambda t: set_column(t, "action", [["a"] * 4] * 58, pa.list_(pa.string(), 4))),
    ),
    "whole numbers where numbers should be": whole(
        "action holds whole numbers",
        table(DATA, lambda t: set_column(t, "action", [[1] * 4] * 58, pa.list_(pa.int64(), 4))),
    ),
    "actions of another size": whole(
        "action has 4 numbers a frame, meta/info.json says 5", feature("action", shape=[5])
    ),
    "success in words": whole(
        "next.success holds string",
        table(DATA, lambda t: set_column(t, "next.success", ["yes"] * 58, pa.string())),
    ),
    "dropped success label": whole(
        "column next.success is missing", table(DATA, lambda t: t.drop_columns(["next.success"]))
    ),
    "dropped camera": whole(f"column {CAMERA} is missing", table(DATA, lambda t: t.drop_columns([CAMERA]))),
    "extra column": whole(
        "column surprise is not declared", table(DATA, lambda t: t.append_column("surprise", t["next.reward"]))
    ),
    "action renamed in info.json only": whole(
        "there is no action feature", info(lambda c: c["features"].update(moves=c["features"].pop("action")))
    ),
    "action renamed": whole("there is no action feature", rename_feature("action", "moves")),
    "camera that is a depth map": whole("there is no camera", feature(CAMERA, info={"is_depth_map": True})),
    "camera that names a folder": whole("its name is a path", rename_feature(CAMERA, "observation.images/../../x")),
    "false total_frames": whole("total_frames = 60", info(lambda c: c.update(total_frames=60))),
    "absurd total_frames": whole("total_frames = 1000000000000000", info(lambda c: c.update(total_frames=10**15))),
    "false total_episodes": whole("total_episodes = 6", info(lambda c: c.update(total_episodes=6))),
    "absurd size of an action": whole("nothing has the shape", feature("action", shape=[10**12])),
    "absurd size of a picture": whole("nothing has the shape", feature(CAMERA, shape=[10**6, 10**6, 3])),
    "negative size": whole("no size can be -4", feature("action", shape=[-4])),
    "absurd fps": whole("fps must be a positive number", info(lambda c: c.update(fps=1e300))),
    "infinite fps": whole("Infinity is no JSON number", info(lambda c: c.update(fps=INFINITE))),
    "episodes that no table lists": whole("episodes [4] that no table lists", table(META, lambda t: t.slice(0, 4))),
    "an episode listed twice": whole(
        "episode_index has repeated values", table(META, lambda t: set_column(t, "episode_index", [0, 1, 2, 2, 4]))
    ),
    "negative length": whole("length", table(META, lambda t: set_column(t, "length", [12, 15, 9, -1, 10]))),
    "row numbers that are no numbers": whole(
        "column frame_index has no whole numbers",
        table(DATA, lambda t: set_column(t, "frame_index", ["x"] * 58, pa.string())),
    ),
    "empty episode number": whole("column episode_index has empty cells", rows("episode_index", cell(40, None))),
    "no task number": whole("task_index has empty cells", rows("task_index", cell(0, None), TASKS)),
    "no episodes": whole("the dataset has no episodes", no_episodes),
    "old version": whole("LeRobot format v2.1", info(lambda c: c.update(codebase_version="v2.1"))),
    "future version": whole("LeRobot format v4.0", info(lambda c: c.update(codebase_version="v4.0"))),
    "no version": whole("LeRobot format None", info(lambda c: c.pop("codebase_version"))),
    "data path out of the dataset": whole(
        "leads out of the dataset", info(lambda c: c.update(data_path="../../{chunk_index}-{file_index}.parquet"))
    ),
    "absolute video path": whole(
        "leads out of the dataset", info(lambda c: c.update(video_path="/etc/{video_key}-{chunk_index}-{file_index}"))
    ),
    "pickled file": whole("holds a pickled file", add("meta/cache.pkl", b"\x80\x04\x95")),
    "pickled weights": whole("holds a pickled file", add("policy/model.PT", b"PK\x03\x04")),
    "side file that is no JSON": whole("not valid JSON", add(SIDE, b'{"source": "expert"')),
    "side file in another encoding": whole("not valid JSON", add(SIDE, '{"operator": "Jürgen"}'.encode("latin-1"))),
    "side file with NaN": whole("NaN is no JSON number", add(SIDE, b'{"mood": NaN}')),
    "side file that is a list": whole("must be an object", add(SIDE, b"[]")),
    "side file nested without end": whole("not valid JSON", add(SIDE, b"[" * 100_000)),
    "side file of another dataset": whole(
        "speaks of episodes [17]", info(lambda c: c["episodes"].append({"episode_index": 17}), SIDE)
    ),
    "unknown split": whole("unknown split holdout", info(lambda c: c["episodes"][0].update(split="holdout"), SIDE)),
    "absurd seed": whole("seed is a whole number", info(lambda c: c["episodes"][0].update(seed=10**30), SIDE)),
    "success in the side file in words": whole(
        "success true or false", info(lambda c: c["episodes"][0].update(success="yes"), SIDE)
    ),
    "unknown role": whole("source: Input should be 'expert'", side(source="teleoperation"), check="statement"),
    "operator that is a number": whole("operator: Input should be a valid string", side(operator=7), check="statement"),
    "empty licence": whole("licence: String should have at least 1", side(licence=" "), check="statement"),
    "policy that is no digest": whole("policy: String should match", side(policy="my best one"), check="statement"),
    "nobody consented": whole("nothing is said about: licence, consent", side(), check="statement"),
    "link out of the dataset": whole("is a link", link_out, check="files"),
    "link to a folder": whole("is a link", lambda root: (root / "more").symlink_to("/etc"), check="files"),
    "no regular file": whole("is no regular file", lambda root: os.mkfifo(root / "meta" / "pipe"), check="files"),
}

# ---- datasets with videos: three episodes of 20, 15 and 20 frames in one file -------------------------------------


def flip_video(root: Path) -> None:
    """Damages the middle of the video: the second episode."""
    content = bytearray((root / VIDEO).read_bytes())
    place = content.find(b"mdat") + (len(content) - content.find(b"mdat")) // 2
    for i in range(place, place + 3):
        content[i] ^= 0xFF
    (root / VIDEO).write_bytes(bytes(content))


def longer(root: Path) -> None:
    """Moves the last episode's video a second on: there are no frames for its end."""
    column = "videos/observation.images.front/from_timestamp"
    rewrite(root / META, lambda t: set_column(t, column, [*t[column].to_pylist()[:2], 1e6]))


VIDEOS: dict[str, Bad] = {
    "flipped bytes in a video": Bad("decoded_frames", "camera front gives", flip_video, episodes=(1,)),
    "no video": whole("the file is missing", missing(VIDEO)),
    "empty video": whole("cut short or damaged", cut(VIDEO, 0.0)),
    "truncated video": whole("cut short", cut(VIDEO, 0.6)),
    "video shorter than its rows": whole("the video is cut short", longer),
    "video that is none": whole("cut short or damaged", add(VIDEO, b"no video " * 100)),
}
