"""Takes episodes out of a LeRobot v3 dataset without touching what the others contain.

LeRobot's own `delete_episodes` encodes videos again, so that the remaining frames change and their digests with them;
it also drops our side file. Here rows are filtered as they are, and videos are cut between their packets: every
episode of a v3 video begins with a key frame, so nothing is decoded or encoded.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from world4rl.demos.ingest import IngestOptions
from world4rl.demos.layout import EPISODES, INFO, SIDE_FILE, STATS, TASKS
from world4rl.demos.reading import Dataset, open_dataset
from world4rl.demos.survey import survey
from world4rl.errors import DataError
from world4rl.files import replacing, write_json
from world4rl.landing.marker import mark
from world4rl.provenance.manifests import ID_DIGITS, Acceptance, LandedEpisode

WHOLE = "withdraw the whole dataset with --dataset, and land its other episodes again"


def cut_accepted(
    acceptance: Acceptance, source: Path, target: Path, keep: Sequence[LandedEpisode], options: IngestOptions
) -> Acceptance:
    """Cuts an accepted dataset down to some of its accepted episodes, and makes sure that they are still the same.

    Args:
        acceptance: The dataset's record.
        source: Its folder.
        target: Folder of the new dataset.
        keep: Those of its accepted episodes to keep, at least one.
        options: How the dataset was read when it was accepted.

    Returns:
        The record of the new dataset. What it holds decides its id, so that the same cut has the same one.

    Raises:
        DataError: an episode cannot be cut out without changing another one.
    """
    ordered = sorted(keep, key=lambda one: one.episode)
    cut(source, target, [one.episode for one in ordered])
    episodes = tuple(one.model_copy(update={"episode": number}) for number, one in enumerate(ordered))
    waived = {one.episode: frozenset(one.waived) for one in episodes}
    found = {one.episode: one.digest for one in survey(target, replace(options, waived=waived), {}).episodes}
    if found != {one.episode: one.digest for one in episodes}:
        raise DataError("the episodes that stay would not stay the same", where=source, remedy=WHOLE)
    digest = mark(target).digest
    return acceptance.model_copy(
        update={
            "id": digest[:ID_DIGITS],
            "digest": digest,
            "episodes": episodes,
            "derived_from": acceptance.derived_from or acceptance.digest,
        }
    )


def cut(source: Path, target: Path, keep: Sequence[int]) -> None:
    """Writes a dataset that holds only some of another one's episodes, numbered anew in their order.

    Of the metadata it keeps what it knows: info, tasks, episode table, side file; statistics are taken anew from those
    of the episodes. Other files of the folder are left behind: nobody knows whose pictures they hold. The same source
    gives the same bytes.

    Args:
        source: Root folder of a dataset.
        target: Root folder of the new one; one that is there is replaced.
        keep: Indices of the episodes to keep, at least one.

    Raises:
        DataError: the dataset cannot be read, or an episode cannot be cut out of a video without encoding it again.
    """
    dataset = open_dataset(source)
    kept = sorted(keep)
    numbers = {old: new for new, old in enumerate(kept)}
    with replacing(target) as root:
        starts = _cut_rows(dataset, numbers, root)
        moved = _cut_videos(dataset, set(kept), root)
        table = _episode_table(dataset, numbers, starts, moved)
        _write_meta(dataset, numbers, table, root)


def _cut_rows(dataset: Dataset, numbers: Mapping[int, int], root: Path) -> dict[int, int]:
    """Writes the data files; returns the first row of each kept episode in the new dataset, by its old index."""
    starts: dict[int, int] = {}
    rows = 0
    for path in dataset.data_files:
        table = pq.read_table(path)
        owners = table["episode_index"].to_pylist()
        places = [place for place, owner in enumerate(owners) if owner in numbers]
        if not places:
            continue
        table = _embedded(dataset, table.take(places))
        mine = [owners[place] for place in places]
        for place, owner in enumerate(mine):
            starts.setdefault(owner, rows + place)
        table = _replaced(table, "episode_index", [numbers[owner] for owner in mine])
        table = _replaced(table, "index", list(range(rows, rows + len(table))))
        rows += len(table)
        out = root / path.relative_to(dataset.root)
        out.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(out, table.schema, compression="snappy", use_dictionary=False) as writer:
            for first, last in pairwise([*_changes(mine), len(mine)]):
                writer.write_table(table.slice(first, last - first))  # a row group an episode
    return starts


def _changes(values: Sequence[int]) -> Iterator[int]:
    """Places at which a run of equal values begins."""
    for place, value in enumerate(values):
        if not place or value != values[place - 1]:
            yield place


def _replaced(table: pa.Table, name: str, values: Sequence[int]) -> pa.Table:
    place = table.schema.get_field_index(name)
    field = table.schema.field(place)
    return table.set_column(place, field, pa.array(values, field.type))


def _embedded(dataset: Dataset, table: pa.Table) -> pa.Table:
    """The table with every picture's bytes inside: a path would lead to a file that is left behind."""
    for name, feature in dataset.features.items():
        if feature.dtype != "image":
            continue
        pictures = table[name].to_pylist()
        for picture in pictures:
            if picture is not None and picture["bytes"] is None and picture["path"] is not None:
                picture["bytes"] = (dataset.root / picture["path"]).read_bytes()
        place = table.schema.get_field_index(name)
        field = table.schema.field(place)
        table = table.set_column(place, field, pa.array(pictures, field.type))
    return table


def _cut_videos(dataset: Dataset, kept: set[int], root: Path) -> dict[int, dict[str, float]]:
    """Writes the video files; returns changed columns of the episode table by old index."""
    changed: dict[int, dict[str, float]] = {episode: {} for episode in kept}
    for camera in (name for name, feature in dataset.features.items() if feature.dtype == "video"):
        files: dict[Path, list[Mapping[Any, Any]]] = {}
        for entry in dataset.episodes.to_dict("records"):
            files.setdefault(dataset.video_path(camera, entry), []).append(entry)
        for path, rows in files.items():
            mine = [row for row in rows if int(row["episode_index"]) in kept]
            if not mine:
                continue
            out = root / path.relative_to(dataset.root)
            out.parent.mkdir(parents=True, exist_ok=True)
            if len(mine) == len(rows):
                shutil.copyfile(path, out)
                continue
            spans = [_span(dataset, camera, row) for row in mine]
            for row, shift in zip(mine, _cut_video(path, out, spans), strict=True):
                columns = changed[int(row["episode_index"])]
                for column in (f"videos/{camera}/from_timestamp", f"videos/{camera}/to_timestamp"):
                    if column in row:
                        columns[column] = float(row[column]) - shift
    return changed


def _span(dataset: Dataset, camera: str, row: Mapping[Any, Any]) -> tuple[float, float, int]:
    """Where an episode lies in its video: from and to in seconds, half a frame early, and its number of frames."""
    start, length = float(row[f"videos/{camera}/from_timestamp"]), int(row["length"])
    half = 0.5 / dataset.fps
    return start - half, start + length / dataset.fps - half, length


def _cut_video(source: Path, target: Path, spans: Sequence[tuple[float, float, int]]) -> list[float]:
    """Copies the packets of some spans of a video, one after the other; returns by how many seconds each moved."""
    import av

    shifts = []
    end = 0  # of what was written, in the stream's own ticks
    try:
        with av.open(str(source)) as reading, av.open(str(target), "w") as writing:
            stream = reading.streams.video[0]
            packets: list[Any] = [packet for packet in reading.demux(stream) if packet.pts is not None]
            out = writing.add_stream_from_template(stream)
            for start, stop, length in spans:
                mine = [p for p in packets if start <= float(p.pts * p.time_base) < stop]
                if len(mine) != length or not mine[0].is_keyframe or mine[0].pts != min(p.pts for p in mine):
                    raise DataError(
                        "an episode cannot be cut out of this video without encoding the others again",
                        where=source,
                        remedy=WHOLE,
                    )
                tick = round((stop - start) / length / mine[0].time_base)
                shift = mine[0].pts - end
                end = max(p.pts for p in mine) + tick - shift
                shifts.append(float(shift * mine[0].time_base))
                for packet in mine:
                    packet.pts -= shift
                    packet.dts -= shift
                    packet.stream = out
                    writing.mux(packet)
    except av.FFmpegError as error:
        raise DataError(f"the video cannot be cut: {error}", where=source, remedy=WHOLE) from None
    return shifts


def _episode_table(
    dataset: Dataset, numbers: Mapping[int, int], starts: Mapping[int, int], moved: Mapping[int, Mapping[str, float]]
) -> pa.Table:
    """The rows of the episode table that are kept, with the statistics that the reader leaves out."""
    files = sorted((dataset.root / EPISODES).glob("*/*.parquet"))
    table = pa.concat_tables([pq.read_table(path) for path in files], promote_options="default")
    rows = {row["episode_index"]: row for row in table.to_pylist()}
    kept = []
    for old, new in numbers.items():
        row = {**rows[old], **moved[old], "episode_index": new}
        row["dataset_from_index"], row["dataset_to_index"] = starts[old], starts[old] + row["length"]
        row |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
        if "stats/episode_index/min" in row:
            row |= _renumbered(row, "episode_index", new - old) | _renumbered(row, "index", starts[old] - _first(row))
        kept.append(row)
    return pa.Table.from_pylist(kept, schema=table.schema)


def _first(row: Mapping[str, Any]) -> int:
    return int(row["stats/index/min"][0])


def _renumbered(row: Mapping[str, Any], name: str, by: int) -> dict[str, Any]:
    """The statistics of a column of which every value has been moved."""
    moved = {}
    for key, value in row.items():
        statistic = key.removeprefix(f"stats/{name}/")
        if key.startswith(f"stats/{name}/") and statistic not in ("std", "count") and value is not None:
            moved[key] = [one + by for one in value]
    return moved


def _write_meta(dataset: Dataset, numbers: Mapping[int, int], table: pa.Table, root: Path) -> None:
    path = root / EPISODES / "chunk-000" / "file-000.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(table, path, compression="snappy")
    shutil.copyfile(dataset.root / TASKS, root / TASKS)
    count, frames = len(table), int(sum(table["length"].to_pylist()))
    info = json.loads((dataset.root / INFO).read_text(encoding="utf-8"))
    write_json(
        root / INFO,
        {**info, "total_episodes": count, "total_frames": frames, "splits": {"train": f"0:{count}"}},
    )
    statistics = _statistics(table)
    if statistics:
        write_json(root / STATS, statistics)
    if (dataset.root / SIDE_FILE).exists():
        rows = [
            {**row, "episode_index": numbers[row["episode_index"]]}
            for row in dataset.side.get("episodes", [])
            if row["episode_index"] in numbers
        ]
        write_json(root / SIDE_FILE, {**dataset.side, **({"episodes": rows} if "episodes" in dataset.side else {})})


def _statistics(table: pa.Table) -> dict[str, Any]:
    """The statistics of all episodes from those of each, as LeRobot sums them up; empty where there are none."""
    from lerobot.datasets.compute_stats import aggregate_stats

    episodes: list[dict[str, dict[str, Any]]] = []
    for row in table.to_pylist():
        found: dict[str, dict[str, Any]] = {}
        for key, value in row.items():
            if key.startswith("stats/") and value is not None:
                name, _, statistic = key.removeprefix("stats/").rpartition("/")
                found.setdefault(name, {})[statistic] = np.array(value)
        episodes.append(found)
    if not episodes[0]:
        return {}
    summed = aggregate_stats(episodes)
    return {
        name: {statistic: np.asarray(value).tolist() for statistic, value in sorted(values.items())}
        for name, values in sorted(summed.items())
    }
