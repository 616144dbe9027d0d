"""Any LeRobot v3 dataset into a Zarr store: mapped, checked, decoded once; bad episodes quarantined with a reason."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from world4rl import progress
from world4rl.config import Store as StoreSettings
from world4rl.demos import checks
from world4rl.demos.checks import Finding, quarantine_list
from world4rl.demos.layout import INFO, SIDE_FILE
from world4rl.demos.reading import (
    VISUAL,
    Columns,
    Dataset,
    Decoded,
    Feature,
    VideoCamera,
    decode_images,
    open_dataset,
    read_columns,
    refuse,
)
from world4rl.demos.store import UNLABELLED, StoredEpisode, StoreWriter
from world4rl.demos.tables import FRAME_TABLE, derive, validate
from world4rl.errors import ConfigError, DataError
from world4rl.files import replacing

NONE = "none"
DONE = "next.done"
EXPERT = "expert"
ROLES = {"action": "action", "state": "observation.state", "success": "next.success"}
Fit = Literal["stretch", "crop", "pad"]


@dataclass(frozen=True)
class IngestOptions:
    """How a dataset becomes a store.

    Attributes:
        mapping: Feature by name. `action`, `state` and `success` are ours; any other name is a camera's. The feature
            `none` leaves a part out. Where no camera is named, all of them are taken under their own names.
        size: Height and width of the stored frames; None: that of the smallest camera.
        fit: How a picture of another shape gets there: `stretch` it, `crop` its middle, or `pad` it with black.
        tasks: The tasks that may occur; None: any.
        task: What every episode's task is, whatever the dataset calls it; None: as the dataset says.
        source: What every episode's source is; None: as the dataset says.
        action_range: Bounds of all action values; None: unbounded.
        settings: Chunks, shards and compression.
        allow_empty: Whether a dataset without episodes makes a store without episodes.
        waived: Findings that a person has overruled: the checks' names by episode.
        only: The episodes to take; None: all. The others are not looked at.
        shares: Shares (test, validation) of the episodes whose split the dataset does not give. An episode's content
            decides where it goes, so that what lands later moves none.
    """

    mapping: Mapping[str, str] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    fit: Fit = "stretch"
    tasks: tuple[str, ...] | None = None
    task: str | None = None
    source: str | None = None
    action_range: tuple[float, float] | None = None
    settings: StoreSettings = field(default_factory=StoreSettings)
    allow_empty: bool = False
    waived: Mapping[int, frozenset[str]] = field(default_factory=dict)
    only: frozenset[int] | None = None
    shares: tuple[float, float] = (0.0, 0.0)

    def holds(self, finding: Finding) -> bool:
        """Whether nobody has overruled a finding, or nobody can."""
        waived = finding.episode is not None and finding.check in self.waived.get(finding.episode, ())
        return not (waived and finding.check in checks.OVERRULABLE)


@dataclass(frozen=True)
class IngestReport:
    """What became of a dataset.

    Attributes:
        dataset: Where it lay.
        accepted: How many episodes the store holds.
        frames: How many rows it holds.
        successes: How many of the episodes are successes; None where nothing says so.
        mapped: Feature by our name.
        ignored: Features that were not taken, with the reason.
        resized: The choice that was made for each camera, in words.
        quarantined: An entry {episode, check, reason, evidence} a refused episode.
        digest: The store's digest.
        seconds: Wall time.
    """

    dataset: Path
    accepted: int
    frames: int
    successes: int | None
    mapped: Mapping[str, str]
    ignored: Mapping[str, str]
    resized: Mapping[str, str]
    quarantined: Sequence[Mapping[str, Any]]
    digest: str
    seconds: float

    def lines(self) -> list[str]:
        """The report for people."""
        outcome = "no success labels" if self.successes is None else f"{self.successes} successful"
        lines = [f"accepted {self.accepted} episodes, {self.frames} frames, {outcome}, digest {self.digest[:16]}"]
        lines += [f"mapped   {name} <- {feature}" for name, feature in self.mapped.items()]
        lines += [f"resized  {camera}: {choice}" for camera, choice in self.resized.items()]
        lines += [f"ignored  {feature}: {reason}" for feature, reason in self.ignored.items()]
        for entry in self.quarantined:
            evidence = f" ({entry['evidence']})" if entry["evidence"] else ""
            lines.append(f"refused  episode {entry['episode']} [{entry['check']}]: {entry['reason']}{evidence}")
        return lines


@dataclass(frozen=True)
class Plan:
    """Which feature plays which part, and what frames will look like."""

    action: Feature
    state: Feature | None
    success: Feature | None
    done: Feature | None
    cameras: Mapping[str, Feature]
    size: tuple[int, int]
    ignored: Mapping[str, str]

    @property
    def vectors(self) -> list[str]:
        """The features that hold numbers."""
        parts = (self.action, self.state, self.success, self.done)
        return list(dict.fromkeys(feature.name for feature in parts if feature is not None))

    @property
    def mapped(self) -> dict[str, str]:
        """Feature by our name."""
        parts = {"action": self.action, "state": self.state, "success": self.success, **self.cameras}
        return {name: feature.name for name, feature in parts.items() if feature is not None}


def plan_ingest(dataset: Dataset, options: IngestOptions) -> Plan:
    """Decides which feature plays which part.

    Raises:
        DataError: there is no action or no camera, or the mapping does not fit the features.
        ConfigError: a camera is given an impossible name.
    """
    where = dataset.root / INFO
    known = ", ".join(dataset.features)
    for name, feature in options.mapping.items():
        if feature != NONE and feature not in dataset.features:
            raise DataError(
                f"there is no feature {feature!r} to map to {name}", where=where, remedy=f"choose among: {known}"
            )
    numbers: dict[str, Feature | None] = {}
    for role, default in ROLES.items():
        name = options.mapping.get(role, default)
        found = dataset.features.get(name)
        if found is not None and not _is_number(found.dtype):
            raise DataError(
                f"{role} is mapped to {name}, which holds {found.dtype}", where=where, remedy="map it to numbers"
            )
        numbers[role] = found
    action = numbers["action"]
    if action is None:
        raise DataError(
            "there is no action feature", where=where, remedy=f"say which one: --map action=FEATURE, among: {known}"
        )
    cameras, ignored = _cameras(dataset, options.mapping)
    if not cameras:
        raise DataError(
            "there is no camera", where=where, remedy=f"name one: --map NAME=FEATURE with an image or video of: {known}"
        )
    sizes = [feature.image_size for feature in cameras.values()]
    size = options.size or (min(height for height, _ in sizes), min(width for _, width in sizes))
    used = {feature.name for feature in (*numbers.values(), *cameras.values()) if feature is not None}
    skip = {"timestamp", "frame_index", "episode_index", "index", "task_index"} | used | set(ignored)
    ignored |= {name: "plays no part in training" for name in dataset.features if name not in skip}
    done = dataset.features.get(DONE)
    if done is not None and not _is_number(done.dtype):
        done = None
    return Plan(action, numbers["state"], numbers["success"], done, cameras, size, ignored)


def _is_number(dtype: str) -> bool:
    try:
        return np.dtype(dtype).kind in "biuf"
    except TypeError:
        return False


def _cameras(dataset: Dataset, mapping: Mapping[str, str]) -> tuple[dict[str, Feature], dict[str, str]]:
    """The cameras by name, and why others are left out."""
    visual = {name: feature for name, feature in dataset.features.items() if feature.dtype in VISUAL}
    named = {name: feature for name, feature in mapping.items() if name not in ROLES and feature != NONE}
    for name, feature in named.items():
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise ConfigError(f"{name!r} cannot be a camera's name", where="--map", remedy="use letters, digits, _ . -")
        if feature not in visual or visual[feature].depth:
            raise DataError(
                f"camera {name} is mapped to {feature}, which is no colour image or video",
                where=dataset.root / INFO,
                remedy=f"choose among: {', '.join(visual) or 'none, this dataset has no camera'}",
            )
    if named:
        left = {feature: "not among the mapped cameras" for feature in visual if feature not in named.values()}
        return {name: visual[feature] for name, feature in named.items()}, left
    names = {name: name.removeprefix("observation.images.").removeprefix("observation.") for name in visual}
    if len(set(names.values())) < len(names):
        names = {name: name for name in visual}
    for name in names.values():
        if not re.fullmatch(r"\w[\w .-]*", name):
            raise DataError(
                f"{name!r} cannot be a camera's name",
                where=dataset.root / INFO,
                remedy="give it another one: --map NAME=FEATURE",
            )
    left = {name: "a depth map" for name, camera in visual.items() if camera.depth}
    return {names[name]: camera for name, camera in visual.items() if not camera.depth}, left


def shrinker(size: tuple[int, int], fit: Fit) -> Callable[[Image.Image], np.ndarray]:
    """A function from PIL images of any size to uint8 (H, W, 3); pictures of the right size are not touched."""
    height, width = size

    def shrink(image: Image.Image) -> np.ndarray:
        if image.size == (width, height):
            return np.asarray(image)
        if fit == "stretch":
            return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=None))
        pick = max if fit == "crop" else min
        scale = pick(width / image.width, height / image.height)
        near = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        scaled = image.resize(near, Image.Resampling.BILINEAR)
        left, top = (near[0] - width) // 2, (near[1] - height) // 2  # negative where black is added
        return np.asarray(scaled.crop((left, top, left + width, top + height)))

    return shrink


def ingest(
    dataset: Path, out: Path, options: IngestOptions | None = None, *, origin: str | None = None
) -> IngestReport:
    """Makes a store of a dataset. The store appears whole or not at all.

    Args:
        dataset: Root folder of a LeRobot v3 dataset.
        out: The store to create; a store that was there is replaced.
        options: Mapping, size, bounds.
        origin: What the store is to keep about how it was made, for whoever wonders whether to make it again.

    Raises:
        DataError: the dataset as a whole cannot be used, or none of its episodes can.
        ConfigError: a camera is given an impossible name.
        MachineError: the disk is full.
    """
    began = time.perf_counter()
    options = options or IngestOptions()
    source = open_dataset(dataset)
    _require_replaceable(Path(out))
    plan = plan_ingest(source, options)
    if source.episodes.empty and not options.allow_empty:
        raise DataError("the dataset has no episodes", where=source.root, remedy="record some, then ingest again")
    findings: list[Finding] = []
    successes = 0
    with replacing(Path(out)) as fresh:
        writer = StoreWriter(
            fresh,
            cameras=list(plan.cameras),
            image_size=plan.size,
            action_size=plan.action.size,
            state_size=plan.state.size if plan.state else 0,
            settings=options.settings,
        )
        name = "/".join(source.root.resolve().parts[-2:])  # no machine's own paths inside a store
        for episode in distinct(sound_episodes(source, plan, options, findings), {}, options, findings):
            successes += episode.succeeded
            writer.add(episode, name)
        quarantined = quarantine_list(findings)
        if not writer.episodes and not source.episodes.empty:
            raise _nothing_left(source, quarantined)
        description = _description(source, plan, options, name, quarantined)
        digest = writer.finish(description if origin is None else {**description, "origin": origin})
    return IngestReport(
        dataset=source.root,
        accepted=writer.episodes,
        frames=writer.frames,
        successes=successes if description["labels"] != UNLABELLED else None,
        mapped=plan.mapped,
        ignored=plan.ignored,
        resized={c: entry["choice"] for c, entry in description["resize"].items() if entry["from"] != entry["to"]},
        quarantined=quarantined,
        digest=digest,
        seconds=time.perf_counter() - began,
    )


def _require_replaceable(out: Path) -> None:
    if out.exists() and not (out / "store.json").is_file() and (not out.is_dir() or any(out.iterdir())):
        raise DataError("is in the way, and is not a store", where=out, remedy="choose another --out, or remove it")


def _nothing_left(dataset: Dataset, quarantined: Sequence[Mapping[str, Any]]) -> DataError:
    shown = [f"    episode {e['episode']} [{e['check']}]: {e['reason']} {e['evidence']}".rstrip() for e in quarantined]
    more = [f"    and {len(shown) - 10} more"] if len(shown) > 10 else []
    return DataError(
        "\n".join([f"none of the {len(dataset.episodes)} episodes can be used:", *shown[:10], *more]),
        where=dataset.root,
        remedy="correct the dataset, or record these episodes again",
    )


def _description(
    dataset: Dataset, plan: Plan, options: IngestOptions, name: str, quarantined: list[dict[str, Any]]
) -> dict[str, Any]:
    resize = {}
    for camera, feature in plan.cameras.items():
        before, after = list(feature.image_size), list(plan.size)
        how = f"{before[0]}x{before[1]} to {after[0]}x{after[1]}, {options.fit}, bilinear with antialiasing"
        resize[camera] = {"from": before, "to": after, "choice": "none" if before == after else how}
    return {
        "cameras": list(plan.cameras),
        "image_size": list(plan.size),
        "fit": options.fit,
        "resize": resize,
        "action_size": plan.action.size,
        "state_size": plan.state.size if plan.state else 0,
        "action_names": _names(plan.action),
        "state_names": _names(plan.state),
        "fps": dataset.fps,
        "features": plan.mapped,
        "ignored": dict(plan.ignored),
        "labels": labels_of(dataset, plan),
        "source_dataset": name,
        "side": {key: value for key, value in dataset.side.items() if key != "episodes"},
        "quarantined": quarantined,
    }


def labels_of(dataset: Dataset, plan: Plan) -> str:
    """Which feature or file says where an episode succeeds; `UNLABELLED` where none does."""
    if plan.success is not None:
        return plan.success.name
    return SIDE_FILE if any("success" in row for row in dataset.side.get("episodes", [])) else UNLABELLED


def _names(feature: Feature | None) -> list[str] | None:
    names = feature.names if feature is not None else None
    if isinstance(names, dict):  # some recorders nest them: {"motors": [...]}
        names = next((value for value in names.values() if isinstance(value, list)), None)
    return [str(name) for name in names] if isinstance(names, list) else None


def sound_episodes(
    dataset: Dataset, plan: Plan, options: IngestOptions, findings: list[Finding]
) -> Iterator[StoredEpisode]:
    """Yields the sound episodes in the order of their rows; appends what is wrong with the others to `findings`."""
    if dataset.episodes.empty:
        return
    columns = read_columns(dataset, plan.vectors)
    owner = columns.index["episode_index"].to_numpy(np.int64)
    table = validate(FRAME_TABLE, derive(columns.index, dataset.fps), owner)
    refuse(dataset.root / "data", [finding for finding in table if finding.episode is None])
    side = _side_rows(dataset)
    rows = _row_ranges(dataset, owner, findings)
    if options.only is not None:
        rows = {episode: found for episode, found in rows.items() if episode in options.only}
    order = sorted(rows, key=lambda episode: rows[episode].start)
    shrink = shrinker(plan.size, options.fit)
    images = [feature.name for feature in plan.cameras.values() if feature.dtype == "image"]
    videos = {f.name: VideoCamera(dataset, f.name, shrink) for f in plan.cameras.values() if f.dtype == "video"}
    pictures = decode_images(dataset, images, [rows[episode] for episode in order], shrink) if images else None
    meta = {int(row["episode_index"]): row for row in dataset.episodes.to_dict("records")}
    with ExitStack() as open_files, progress.track("check and store", len(order), unit="episode") as bar:
        for camera in videos.values():
            open_files.callback(camera.close)
        for episode in order:
            decoded = dict(next(pictures)) if pictures is not None else {}
            entry = meta[episode]
            for name, camera in videos.items():
                decoded[name] = camera.decode(entry, len(rows[episode]))
            found = [finding for finding in table if finding.episode == episode]
            found += _check_numbers(dataset, plan, options, columns, entry, rows[episode])
            found += _check_story(dataset, plan, columns, entry, rows[episode], side.get(episode, {}))
            frames = {
                name: _check_frames(episode, name, feature, decoded[feature.name], found)
                for name, feature in plan.cameras.items()
            }
            found = list(filter(options.holds, found))
            if not found:
                states = _float32(columns, plan.state, rows[episode])
                for name, stack in frames.items():
                    found += checks.check_blank(episode, name, stack)
                    found += checks.check_frozen(episode, name, stack, states)
            found = list(filter(options.holds, found))
            findings += found
            if not found:
                yield _assemble(dataset, plan, options, columns, frames, entry, rows[episode], side.get(episode, {}))
            bar.advance()


def distinct(
    episodes: Iterable[StoredEpisode], seen: Mapping[str, str], options: IngestOptions, findings: list[Finding]
) -> Iterator[StoredEpisode]:
    """Passes on the episodes whose content did not come before; appends what is wrong with the others to `findings`.

    Args:
        episodes: In their order.
        seen: Names of earlier episodes, in words, by digest.
        options: May have overruled the finding.
        findings: Takes one for each episode that is left out.
    """
    names = dict(seen)
    for episode in episodes:
        twins = list(filter(options.holds, checks.check_duplicate(episode.episode, episode.digest, names)))
        findings += twins
        if not twins:
            names.setdefault(episode.digest, f"episode {episode.episode}")
            yield episode


def _row_ranges(dataset: Dataset, owner: np.ndarray, findings: list[Finding]) -> dict[int, range]:
    """The rows of each episode; episodes without rows, or with rows in several places, are findings."""
    starts = np.flatnonzero(np.diff(owner, prepend=owner[0] - 1 if len(owner) else 0))
    ends = np.append(starts[1:], len(owner))
    ranges: dict[int, range] = {}
    scattered = set()
    for start, end in zip(starts, ends, strict=True):
        episode = int(owner[start])
        if episode in ranges:
            scattered.add(episode)
        ranges[episode] = range(int(start), int(end))
    for episode in sorted(scattered):
        findings.append(Finding(episode, "row_order", "its rows do not stand together in the data files"))
        del ranges[episode]
    for episode in sorted(set(map(int, dataset.episodes["episode_index"])) - set(map(int, owner))):
        findings.append(Finding(episode, "row_count", "meta/episodes lists it, but the data files hold no rows of it"))
    return ranges


def _check_numbers(
    dataset: Dataset, plan: Plan, options: IngestOptions, columns: Columns, entry: Mapping[Any, Any], rows: range
) -> list[Finding]:
    episode, part = int(entry["episode_index"]), slice(rows.start, rows.stop)
    index_range = (int(entry["dataset_from_index"]), int(entry["dataset_to_index"]))
    found = checks.check_row_count(episode, int(entry["length"]), index_range, len(rows))
    found += checks.check_row_range(episode, columns.index["index"].to_numpy()[part], index_range)
    found += checks.check_length(episode, len(rows))
    tasks = columns.index["task_index"].to_numpy()[part]
    accepted = None if options.task else options.tasks
    found += checks.check_tasks(episode, tasks, dataset.tasks, accepted, one=options.task is None)
    for name in plan.vectors:
        wrong, values = columns.wrong[name][part], columns.vectors[name][part]
        found += checks.check_shapes(episode, name, wrong, dataset.features[name].size)
        found += checks.check_finite(episode, name, np.where(wrong[:, None], 0.0, values))
    if options.action_range is not None:
        actions = columns.vectors[plan.action.name][part]
        found += checks.check_bounds(episode, plan.action.name, actions, *options.action_range)
    return found


def _check_story(
    dataset: Dataset,
    plan: Plan,
    columns: Columns,
    entry: Mapping[Any, Any],
    rows: range,
    side: Mapping[str, Any],
) -> list[Finding]:
    """What the numbers say happened, where each of them is sound."""
    episode, part = int(entry["episode_index"]), slice(rows.start, rows.stop)
    found = []
    if dataset.side.get("source", EXPERT) == EXPERT:  # a policy may get stuck; who demonstrates does not
        found += checks.check_constant(episode, columns.vectors[plan.action.name][part])
    if plan.done is not None:
        done: np.ndarray = np.any(columns.vectors[plan.done.name][part] > 0.5, axis=1)
        found += checks.check_end(episode, done)
    shown = None if plan.success is None else bool((columns.vectors[plan.success.name][part] > 0.5).any())
    return found + checks.check_success(episode, shown, side.get("success"))


def _check_frames(episode: int, camera: str, feature: Feature, decoded: Decoded, found: list[Finding]) -> np.ndarray:
    """The frames as one array; what is missing or of another size is a finding, and black in the array."""
    missing = np.array([frame is None for frame in decoded.frames], bool)
    found += checks.check_frame_count(episode, camera, missing, decoded.evidence)
    strange = decoded.sizes - {feature.image_size}
    if strange:
        sizes = ", ".join(f"{height}x{width}" for height, width in sorted(strange))
        declared = "x".join(map(str, feature.image_size))
        reason = f"camera {camera} gives pictures of {sizes}, meta/info.json says {declared}"
        found.append(Finding(episode, "wrong_shape", reason, decoded.evidence))
    good = next((frame for frame in decoded.frames if frame is not None), np.zeros((1, 1, 3), np.uint8))
    return np.stack([np.zeros_like(good) if frame is None else frame for frame in decoded.frames])


def _float32(columns: Columns, feature: Feature | None, rows: range) -> np.ndarray | None:
    if feature is None:
        return None
    return columns.vectors[feature.name][rows.start : rows.stop].astype(np.float32)


def _assemble(
    dataset: Dataset,
    plan: Plan,
    options: IngestOptions,
    columns: Columns,
    frames: Mapping[str, np.ndarray],
    entry: Mapping[Any, Any],
    rows: range,
    side: Mapping[str, Any],
) -> StoredEpisode:
    success = np.zeros(len(rows), bool)
    if plan.success is not None:
        # `next.success` says what the action led to; a store says what the frame shows: one row later.
        led_to: np.ndarray = np.any(columns.vectors[plan.success.name][rows.start : rows.stop] > 0.5, axis=1)
        success[1:] = led_to[:-1]
        succeeded = bool(led_to.any())
    else:
        succeeded = bool(side.get("success", False))
    actions = _float32(columns, plan.action, rows)
    assert actions is not None
    seed = side.get("seed")
    episode = StoredEpisode(
        frames=frames,
        actions=actions,
        states=_float32(columns, plan.state, rows),
        success=success,
        task=options.task or dataset.tasks[int(columns.index["task_index"].iloc[rows.start])],
        source=options.source or str(dataset.side.get("source", "external")),
        split=str(side.get("split", "train")),
        succeeded=succeeded,
        seed=None if seed is None else int(seed),
        episode=int(entry["episode_index"]),
    )
    return episode if "split" in side else replace(episode, split=split_of(episode.digest, *options.shares))


def split_of(digest: str, test: float, validation: float) -> str:
    """The split that an episode's content puts it in: shares of all possible digests."""
    place = int(digest[:16], 16) / 16**16
    return "test" if place < test else "validation" if place < test + validation else "train"


def _side_rows(dataset: Dataset) -> dict[int, Mapping[str, Any]]:
    rows = {int(row["episode_index"]): row for row in dataset.side.get("episodes", [])}
    unknown = sorted(set(rows) - set(map(int, dataset.episodes["episode_index"])))
    if unknown:
        raise DataError(
            f"speaks of episodes {unknown[:5]}, which the dataset does not have",
            where=dataset.root / SIDE_FILE,
            remedy="the file belongs to another dataset: restore the right one",
        )
    return rows


def ingest_command(dataset: Path, out: Path, mapping: Mapping[str, str], size: int | None, fit: Fit) -> None:
    """`world4rl ingest`: makes a store and prints what was accepted, mapped, resized and refused.

    Args:
        dataset: Root folder of a LeRobot v3 dataset.
        out: The store to create.
        mapping: Feature by name, see `IngestOptions`.
        size: Height and width of the stored frames in pixels; None: those of the smallest camera.
        fit: How a picture of another shape gets there, see `IngestOptions`.

    Raises:
        DataError: nothing of the dataset can be used; nothing was written.
    """
    options = IngestOptions(mapping=mapping, size=None if size is None else (size, size), fit=fit)
    for line in ingest(dataset, out, options).lines():
        print(line)
