"""Whether a second run of a stage gave what its record says: the same bytes, or figures that are close enough."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Verdict = Literal["bit-equal", "metric-equal", "different"]
TIMES = frozenset({"seconds"})  # figures about the machine's day, not about the result


@dataclass(frozen=True)
class Made:
    """What a run made.

    Attributes:
        files: SHA-256 of its data and models by path; metrics and plots are left out, they hold the seconds it took.
        figures: Numbers and texts of its metrics by name.
    """

    files: Mapping[str, str]
    figures: Mapping[str, Any]


@dataclass(frozen=True)
class FigurePair:
    """A figure as it was and as it came out again; None where there is none."""

    name: str
    recorded: Any
    again: Any


@dataclass(frozen=True)
class Comparison:
    """How a second run compares with the record of the first.

    Attributes:
        verdict: `bit-equal`: every file is the same, and so are the figures within the tolerance. `metric-equal`: some
            file is not, the figures are. `different`: some figure is not, or nothing was measured and a file differs.
        files: Paths of the files that differ, or that only one of the two has; sorted.
        figures: The figures that differ by more than the tolerance, sorted by name.
        compared: How many figures both have.
        tolerance: See `compare`.
    """

    verdict: Verdict
    files: tuple[str, ...]
    figures: tuple[FigurePair, ...]
    compared: int
    tolerance: float


def compare(recorded: Made, again: Made, tolerance: float) -> Comparison:
    """Compares a second run with the first.

    Args:
        recorded: What the record says.
        again: What came out again.
        tolerance: Two numbers a and b agree when |a - b| <= tolerance x max(1, |a|); texts when they are the same.
    """
    paths = recorded.files.keys() | again.files.keys()
    files = tuple(sorted(path for path in paths if recorded.files.get(path) != again.files.get(path)))
    names = sorted((recorded.figures.keys() | again.figures.keys()) - TIMES)
    pairs = [FigurePair(name, recorded.figures.get(name), again.figures.get(name)) for name in names]
    apart = tuple(pair for pair in pairs if not _agree(pair, tolerance))
    # A text that differs because a file does, its digest perhaps, says nothing that the file does not say.
    apart = tuple(pair for pair in apart if not (files and isinstance(pair.recorded, str)))
    measured = [pair for pair in pairs if _is_number(pair.recorded) and _is_number(pair.again)]
    verdict: Verdict = "bit-equal"
    if apart or (files and not measured):
        verdict = "different"
    elif files:
        verdict = "metric-equal"
    return Comparison(verdict, files, apart, len(measured), tolerance)


def _agree(pair: FigurePair, tolerance: float) -> bool:
    if _is_number(pair.recorded) and _is_number(pair.again):
        return bool(abs(pair.recorded - pair.again) <= tolerance * max(1.0, abs(pair.recorded)))
    return bool(pair.recorded == pair.again)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
