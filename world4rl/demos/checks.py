"""Checks that LeRobot does not make: it opens all of what these refuse, and trains on it.

Each check is a small pure function that returns findings. A finding about one episode quarantines that episode; one
about the dataset as a whole (episode None) stops the ingestion. Frames are checked as they will be stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

BLACK_LEVEL = 10  # of 255: a camera in the dark is noisier than this, a dead one is not
FLAT_LEVELS = 4  # of 255: a whole frame within so few levels shows nothing
STILL_LEVELS = 1  # of 255: what a video codec may change in a still picture
FROZEN_SHARE = 0.5  # of the distance that the state covers in its episode
FROZEN_FRAMES = 5
FROZEN_MOTION = 0.05  # of the largest number in the states: less than that may be too little to see
FROZEN_EPISODE = 0.9  # of an episode, where no state tells whether anything moved
SHORTEST = 2  # rows: what the action of a single one led to is not there
# Judgements that a person who saw the episode may overrule. The others mean that something is not there or no number.
OVERRULABLE = frozenset(
    {
        "after_end",
        "black_camera",
        "blank_camera",
        "constant_actions",
        "duplicate",
        "frozen_camera",
        "out_of_bounds",
        "success_label",
    }
)


@dataclass(frozen=True)
class Finding:
    """Something wrong.

    Attributes:
        episode: Index in the dataset; None where the dataset as a whole is wrong.
        check: Name of the check.
        reason: What is wrong, in words.
        evidence: Where to look: rows, values, a file.
    """

    episode: int | None
    check: str
    reason: str
    evidence: str = ""


def quarantine_list(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """One entry a quarantined episode, in episode order, as stores and reports list them."""
    by_episode: dict[int, list[Finding]] = {}
    for finding in findings:
        if finding.episode is not None:
            by_episode.setdefault(finding.episode, []).append(finding)
    return [
        {
            "episode": episode,
            "check": ", ".join(dict.fromkeys(finding.check for finding in group)),
            "reason": "; ".join(dict.fromkeys(finding.reason for finding in group)),
            "evidence": "; ".join(dict.fromkeys(finding.evidence for finding in group if finding.evidence)),
        }
        for episode, group in sorted(by_episode.items())
    ]


def rows_text(rows: np.ndarray, limit: int = 5) -> str:
    """Row numbers for people: `row 3`, `rows 3, 4, 9`, `rows 3, 4, 5, 6, 7 and 12 more`."""
    shown = ", ".join(str(int(row)) for row in rows[:limit])
    more = f" and {len(rows) - limit} more" if len(rows) > limit else ""
    return f"{'row' if len(rows) == 1 else 'rows'} {shown}{more}"


def check_shapes(episode: int, feature: str, wrong: np.ndarray, size: int) -> list[Finding]:
    """Rows (boolean, (T,)) of a vector feature that do not hold `size` numbers."""
    rows = np.flatnonzero(wrong)
    if not len(rows):
        return []
    return [Finding(episode, "wrong_shape", f"{feature} does not always have {size} numbers", rows_text(rows))]


def check_finite(episode: int, feature: str, values: np.ndarray) -> list[Finding]:
    """NaN and infinity in a column (T,) or (T, D)."""
    bad = ~np.isfinite(np.asarray(values, np.float64)).reshape(len(values), -1).all(axis=1)
    rows = np.flatnonzero(bad)
    if not len(rows):
        return []
    return [Finding(episode, "not_finite", f"{feature} has NaN or infinite values", rows_text(rows))]


def check_bounds(episode: int, feature: str, values: np.ndarray, low: float, high: float) -> list[Finding]:
    """Values of a column (T, D) outside [low, high] (NaN is another check's)."""
    outside = (values < low) | (values > high)
    rows = np.flatnonzero(outside.reshape(len(values), -1).any(axis=1))
    if not len(rows):
        return []
    worst = values[outside][np.abs(values[outside]).argmax()]
    return [
        Finding(
            episode, "out_of_bounds", f"{feature} leaves [{low:g}, {high:g}]", f"{rows_text(rows)}, up to {worst:g}"
        )
    ]


def check_row_count(episode: int, length: int, index_range: tuple[int, int], rows: int) -> list[Finding]:
    """Rows in the data files against the length and the range of indices in the episode table."""
    findings = []
    if length != rows:
        reason = f"meta/episodes promises {length} frames, the data files hold {rows}"
        findings.append(Finding(episode, "row_count", reason))
    if index_range[1] - index_range[0] != length:
        reason = f"meta/episodes gives a length of {length}, but the indices {index_range[0]} to {index_range[1]}"
        findings.append(Finding(episode, "row_count", reason))
    return findings


def check_row_range(episode: int, index: np.ndarray, index_range: tuple[int, int]) -> list[Finding]:
    """Row numbers (T,) of the whole dataset that are not those that the episode table gives the episode."""
    rows = np.flatnonzero(index != index_range[0] + np.arange(len(index)))
    if not len(rows):
        return []
    first, last = index_range[0], index_range[1] - 1
    reason = f"index does not count from {first} to {last}, where meta/episodes says that it lies"
    return [Finding(episode, "row_range", reason, f"{rows_text(rows)}; the first is numbered {int(index[rows[0]])}")]


def check_length(episode: int, rows: int) -> list[Finding]:
    """An episode with nothing to learn from: no row follows its first one."""
    if rows >= SHORTEST:
        return []
    return [Finding(episode, "too_short", f"it has {rows} row: nothing follows its first action")]


def check_constant(episode: int, actions: np.ndarray) -> list[Finding]:
    """Actions (T, A) that never change although there was time to: what a broken recorder writes."""
    if len(actions) < FROZEN_FRAMES or not (actions == actions[0]).all():
        return []
    values = ", ".join(f"{value:g}" for value in actions[0][:8])
    return [Finding(episode, "constant_actions", f"all {len(actions)} actions are the same", values)]


def check_end(episode: int, done: np.ndarray) -> list[Finding]:
    """Rows (boolean `next.done`, (T,)) that follow the end of the episode."""
    rows = np.flatnonzero(done[:-1])
    if not len(rows):
        return []
    reason = f"next.done ends it at row {int(rows[0])}, but {len(done)} rows stand there"
    return [Finding(episode, "after_end", reason, rows_text(rows))]


def check_success(episode: int, shown: bool | None, said: bool | None) -> list[Finding]:
    """Whether the success column (`shown`) and the side file (`said`) contradict each other; None: it says nothing."""
    if shown is None or said is None or shown == said:
        return []
    words = ("a failure", "a success")
    reason = f"meta/world4rl.json calls it {words[said]}, the success column {words[shown]}"
    return [Finding(episode, "success_label", reason)]


def check_tasks(
    episode: int, indices: np.ndarray, known: Mapping[int, str], accepted: Sequence[str] | None, *, one: bool = False
) -> list[Finding]:
    """Task numbers (T,) that `meta/tasks.parquet` does not explain, and tasks that are not among the accepted ones.

    Args:
        episode: Index in the dataset.
        indices: int64 (T,).
        known: Task strings by number.
        accepted: The tasks that may occur; None: any.
        one: Whether the rows decide the episode's task, so that all of them must name the same one, and name it.
    """
    findings = []
    named = sorted({known[int(index)] for index in indices if int(index) in known})
    if one and len(named) > 1:
        reason = f"its rows name {len(named)} tasks"
        findings.append(Finding(episode, "several_tasks", reason, ", ".join(map(repr, named))))
    if one and any(not name.strip() for name in named):
        findings.append(Finding(episode, "unknown_task", "its task has no name", "meta/tasks.parquet"))
    unknown = sorted({int(index) for index in indices} - set(known))
    if unknown:
        reason = f"task_index {unknown} is not in meta/tasks.parquet"
        findings.append(Finding(episode, "unknown_task", reason, f"known: {dict(known)}"))
    if accepted is not None:
        names = sorted({known[int(index)] for index in indices if int(index) in known} - set(accepted))
        if names:
            findings.append(
                Finding(
                    episode,
                    "unknown_task",
                    f"task {', '.join(map(repr, names))} is not expected here",
                    f"expected: {', '.join(accepted)}",
                )
            )
    return findings


def check_frame_count(episode: int, camera: str, missing: np.ndarray, evidence: str) -> list[Finding]:
    """Frames (boolean, (T,)) that could not be decoded."""
    rows = np.flatnonzero(missing)
    if not len(rows):
        return []
    return [
        Finding(
            episode,
            "decoded_frames",
            f"camera {camera} gives {len(missing) - len(rows)} of {len(missing)} frames",
            f"{rows_text(rows)} of {evidence}",
        )
    ]


def check_blank(episode: int, camera: str, frames: np.ndarray) -> list[Finding]:
    """Frames uint8 (T, H, W, 3) that are black or of one colour: a dead camera, or a lost frame."""
    flat = frames.reshape(len(frames), -1, 3)
    lowest, highest = flat.min(axis=1), flat.max(axis=1)
    black = (highest <= BLACK_LEVEL).all(axis=1)
    uniform = ~black & (highest.astype(int) - lowest <= FLAT_LEVELS).all(axis=1)
    findings = []
    if black.any():
        rows = np.flatnonzero(black)
        findings.append(
            Finding(episode, "black_camera", f"camera {camera} is black in {len(rows)} frames", rows_text(rows))
        )
    if uniform.any():
        rows = np.flatnonzero(uniform)
        findings.append(
            Finding(episode, "blank_camera", f"camera {camera} is one colour in {len(rows)} frames", rows_text(rows))
        )
    return findings


def check_frozen(episode: int, camera: str, frames: np.ndarray, states: np.ndarray | None) -> list[Finding]:
    """A picture that stands still while the robot moves.

    With states (T, S): at least five frames in a row do not change while the state covers more than half of the
    distance that it covers in the whole episode, and changes by a twentieth of its largest number. Without: nine
    tenths of the episode do not change.

    Args:
        episode: Index in the dataset.
        camera: Name of the camera.
        frames: uint8 (T, H, W, 3).
        states: float32 (T, S), or None.
    """
    if len(frames) < FROZEN_FRAMES:
        return []
    first, last = _longest_still_run(frames)
    if last - first + 1 < FROZEN_FRAMES:
        return []
    if states is not None:
        steps = np.linalg.norm(np.diff(states.astype(np.float64), axis=0), axis=1)
        visible = np.ptp(states[first : last + 1], axis=0).max() > FROZEN_MOTION * np.abs(states).max()
        frozen = bool(visible and steps[first:last].sum() > FROZEN_SHARE * steps.sum())
        moved = f", while the robot made {steps[first:last].sum() / max(steps.sum(), 1e-12):.0%} of its way"
    else:
        frozen = last - first + 1 >= FROZEN_EPISODE * len(frames)
        moved = ""
    if not frozen:
        return []
    return [
        Finding(
            episode,
            "frozen_camera",
            f"camera {camera} stands still for {last - first + 1} of {len(frames)} frames{moved}",
            f"rows {first} to {last}",
        )
    ]


def _longest_still_run(frames: np.ndarray) -> tuple[int, int]:
    """First and last frame of the longest run without a visible change."""
    best = (0, 0)
    start = 0
    for t in range(1, len(frames)):
        # Against the run's first frame, not the last one: a slow drift is motion.
        if np.abs(frames[t].astype(np.int16) - frames[start]).max() > STILL_LEVELS:
            start = t
        if t - start > best[1] - best[0]:
            best = (start, t)
    return best


def check_duplicate(episode: int, digest: str, seen: Mapping[str, str]) -> list[Finding]:
    """An episode whose frames and numbers all equal those of an earlier one (`seen`: digest to its name, in words)."""
    if digest not in seen:
        return []
    return [Finding(episode, "duplicate", f"the same content as {seen[digest]}", f"sha256 {digest[:16]}")]


def check_columns(features: Iterable[str], columns: Iterable[str], file: str) -> list[Finding]:
    """Columns of a data file against the features that `meta/info.json` declares (videos have no column)."""
    declared, there = set(features), set(columns)
    findings = []
    if missing := sorted(declared - there):
        findings.append(Finding(None, "dropped_column", f"column {', '.join(missing)} is missing", file))
    if extra := sorted(there - declared):
        findings.append(
            Finding(None, "extra_column", f"column {', '.join(extra)} is not declared in meta/info.json", file)
        )
    return findings


def check_totals(info: Mapping[str, Any], episodes: int, frames: int) -> list[Finding]:
    """The totals of `meta/info.json` against what is there."""
    findings = []
    for key, found, what in (
        ("total_episodes", episodes, "meta/episodes lists"),
        ("total_frames", frames, "the data files hold"),
    ):
        if info[key] != found:
            findings.append(Finding(None, key, f"meta/info.json says {key} = {info[key]}, but {what} {found}"))
    return findings
