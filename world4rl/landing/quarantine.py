"""`world4rl quarantine`: what is kept out of training, why, and the way in on somebody's word."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from world4rl.demos.checks import OVERRULABLE
from world4rl.errors import DataError
from world4rl.landing.ledger import Ledger, Quarantined
from world4rl.paths import Paths


def listed(root: Path, *, everything: bool) -> list[dict[str, Any]]:
    """The entries for machines; times are ISO 8601, UTC."""
    return [_json(entry) for entry in _ledger(root).quarantined() if everything or entry.kept_out]


def lines(root: Path, *, everything: bool) -> list[str]:
    """An entry a line; one line where there is none."""
    entries = [entry for entry in _ledger(root).quarantined() if everything or entry.kept_out]
    return [_line(entry) for entry in entries] or ["nothing is quarantined"]


def entry_of(root: Path, number: int) -> dict[str, Any]:
    """An entry for machines.

    Raises:
        DataError: there is no such entry.
    """
    return _json(_find(_ledger(root), number))


def show(root: Path, number: int) -> str:
    """All about an entry.

    Raises:
        DataError: there is no such entry.
    """
    entry = _find(_ledger(root), number)
    rows = {
        "dataset": f"{entry.name} ({entry.digest[:16]})",
        "episode": "the whole dataset" if entry.episode is None else str(entry.episode),
        "check": entry.checks,
        "reason": entry.reason,
        "evidence": entry.evidence or "-",
        "found": f"{when(entry.time)} by {entry.checker}",
    }
    if entry.released is not None:
        rows["released"] = f"{when(entry.released)} by {entry.released_by}: {entry.released_because}"
    if entry.replaced is not None:
        rows["replaced"] = f"by a version that was accepted {when(entry.replaced)}"
    return "\n".join(f"{key:9}{value}" for key, value in rows.items())


def release(root: Path, number: int, *, by: str, because: str) -> str:
    """Lets an episode in; returns what happens next, in words.

    Raises:
        DataError: there is no such entry, it is released already, or what is wrong cannot be overruled.
    """
    ledger = _ledger(root)
    entry = _find(ledger, number)
    hard = sorted(set(entry.checks.split(", ")) - OVERRULABLE)
    if entry.episode is None or hard:
        raise DataError(
            f"{entry.checks if entry.episode is None else ', '.join(hard)} is no matter of judgement: "
            "there is nothing in it that training could use",
            where=f"entry {number}",
            remedy="correct the dataset, or record the episode again, and land it",
        )
    again = ledger.release(number, by=by, because=because, now=time.time())
    if not again:
        return f"entry {number} is released: its dataset has gone, and is let in when it lands again"
    return f"entry {number} is released: {', '.join(again)} is taken again at the next look at the landing folder"


def _ledger(root: Path) -> Ledger:
    return Ledger(Paths(root).ledger)


def _find(ledger: Ledger, number: int) -> Quarantined:
    for entry in ledger.quarantined():
        if entry.number == number:
            return entry
    raise DataError(
        "there is no such entry in the quarantine", where=f"entry {number}", remedy="`world4rl quarantine list`"
    )


def _json(entry: Quarantined) -> dict[str, Any]:
    released = None if entry.released is None else when(entry.released)
    replaced = None if entry.replaced is None else when(entry.replaced)
    return {**asdict(entry), "time": when(entry.time), "released": released, "replaced": replaced}


def _line(entry: Quarantined) -> str:
    what = "whole dataset" if entry.episode is None else f"episode {entry.episode}"
    released = "" if entry.released is None else f" (released by {entry.released_by})"
    replaced = "" if entry.replaced is None else " (replaced by a version that was accepted)"
    found = f"{entry.number:5}  {when(entry.time)}  {entry.name} {what} [{entry.checks}]: {entry.reason}"
    text = f"{found}{released}{replaced}"
    return "".join(each if each.isprintable() else " " for each in text)  # a name may hold anything, also line ends


def when(time_: float) -> str:
    """Seconds since 1970 for people: date and time, UTC."""
    return datetime.fromtimestamp(time_, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
