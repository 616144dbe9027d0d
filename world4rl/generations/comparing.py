"""Generations of the world model compared on the same held-out episodes, each against the one before it.

What the stage `fidelity` found out about each episode is kept by the digest of the model and of the episode. Two
generations are compared on the episodes that both were measured on: whatever landed in between plays no part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from world4rl.errors import DataError
from world4rl.files import read_json
from world4rl.generations.history import Generation, generations
from world4rl.paths import Paths

RESAMPLES = 4_000
DRAWN = 1_000_000  # at once: 8 MB
SEED = 20_260_101  # of the resampling: the same figures every time
KINDS = (("expert", True), ("policy", True), ("policy", False))  # source and outcome of what replays must foretell


@dataclass(frozen=True)
class Change:
    """A figure of a generation, and that of the one before it on the same episodes.

    Attributes:
        episodes: How many they share that the figure can be taken over.
        before: Mean of the earlier generation.
        now: Mean of this one.
        difference: Now minus before.
        interval: Paired bootstrap interval of the difference; None with fewer than two episodes.
    """

    episodes: int
    before: float
    now: float
    difference: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Measured:
    """A generation and what was measured.

    Attributes:
        generation: Which.
        episodes: Held-out episodes that it was measured on; None where it was not, or nothing of it was kept.
        shared: How many of them the generation before was measured on too.
        changes: By figure: `open_loop_mse H` (lower is better), and recalls of replays such as
            `expert_success_recall` (higher is better). Empty for the first.
    """

    generation: Generation
    episodes: int | None
    shared: int
    changes: Mapping[str, Change]


def compare_generations(paths: Paths, confidence: float) -> list[Measured]:
    """Every generation against the one before it.

    Args:
        paths: Where run records and measurements lie.
        confidence: Of the intervals, two-sided.

    Raises:
        DataError: a record or a measurement is damaged.
    """
    found: list[Measured] = []
    before: Mapping[str, Any] | None = None
    for generation in generations(paths):
        now = _read(paths, generation.digest)
        shared = sorted(set(before or {}) & set(now or {}))
        changes = _changes(before, now, shared, confidence) if before is not None and now is not None else {}
        found.append(Measured(generation, None if now is None else len(now), len(shared), changes))
        before = now
    return found


def _read(paths: Paths, digest: str) -> Mapping[str, Any] | None:
    path = paths.generation(digest)
    if not path.exists():
        return None
    try:
        return dict(read_json(path)["episodes"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"the measurements of a world model cannot be read: {error!r}",
            where=path,
            remedy="remove the file; where that model is the current one, `dvc repro -f -s fidelity` writes it again",
        ) from None


def _changes(
    before: Mapping[str, Any], now: Mapping[str, Any], shared: Sequence[str], confidence: float
) -> dict[str, Change]:
    figures: dict[str, tuple[list[float], list[float]]] = {}
    for digest in shared:
        one, other = before[digest], now[digest]
        for horizon in sorted(set(one["open_loop_mse"]) & set(other["open_loop_mse"]), key=int):
            pair = one["open_loop_mse"][horizon], other["open_loop_mse"][horizon]
            if None not in pair:
                _add(figures, f"open_loop_mse {horizon}", pair)
        if (other["source"], other["success"]) in KINDS:
            kind = f"{other['source']}_{'success' if other['success'] else 'failure'}_recall"
            _add(figures, kind, (one["foretold"], other["foretold"]))
    return {name: _change(np.array(first), np.array(second), confidence) for name, (first, second) in figures.items()}


def _add(figures: dict[str, tuple[list[float], list[float]]], name: str, pair: tuple[Any, Any]) -> None:
    first, second = figures.setdefault(name, ([], []))
    first.append(float(pair[0]))
    second.append(float(pair[1]))


def _change(before: np.ndarray, now: np.ndarray, confidence: float) -> Change:
    differences = now - before
    return Change(
        len(differences),
        float(before.mean()),
        float(now.mean()),
        float(differences.mean()),
        paired_bootstrap(differences, confidence) if len(differences) > 1 else None,
    )


def paired_bootstrap(differences: np.ndarray, confidence: float) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of paired differences (N,), N at least 2.

    The episode is the unit. The interval speaks of these two models on other episodes of the same kind, not of
    training them again.
    """
    rng = np.random.default_rng(SEED)
    count = len(differences)
    rows = max(1, DRAWN // count)  # resamples at a time
    means = np.concatenate(
        [
            differences[rng.integers(0, count, (min(rows, RESAMPLES - done), count))].mean(axis=1)
            for done in range(0, RESAMPLES, rows)
        ]
    )
    low, high = np.quantile(means, ((1 - confidence) / 2, (1 + confidence) / 2))
    return float(low), float(high)


def lines(found: Sequence[Measured]) -> list[str]:
    """The comparison for people."""
    text = []
    for one in found:
        which = one.generation
        held = ", ".join(f"{count} {source}" for source, count in which.episodes.items()) or "unknown"
        text.append(f"generation {which.number}  {which.digest[:16]}  {which.made or 'unknown when'}")
        text.append(f"  from episodes: {held}; rollouts of {len(which.policies)} policies")
        if one.episodes is None:
            text.append("  not measured, or nothing of it was kept")
        elif one.changes:
            text.append(
                f"  measured on {one.episodes} held-out episodes, {one.shared} of them as the generation before"
            )
            text += [f"  {name:26}{_line(change)}" for name, change in one.changes.items()]
        else:
            text.append(f"  measured on {one.episodes} held-out episodes; nothing before it to compare them with")
    return text or ["no world model is on record yet"]


def _line(change: Change) -> str:
    interval = "" if change.interval is None else f" ({change.interval[0]:+.4g} to {change.interval[1]:+.4g})"
    return f"{change.before:.4g} -> {change.now:.4g}, {change.difference:+.4g}{interval}, {change.episodes} episodes"


def as_json(found: Sequence[Measured]) -> list[dict[str, Any]]:
    """The comparison for machines."""
    return [
        {
            **asdict(one.generation),
            "measured_on": one.episodes,
            "shared_with_previous": one.shared,
            "changes": {name: asdict(change) for name, change in one.changes.items()},
        }
        for one in found
    ]
