"""One look at the landing folder: what is new, what is whole by now, what a dead run left behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from world4rl.config import Params
from world4rl.landing.inbox import Inbox
from world4rl.landing.ledger import SETTLED, Entry, Ledger

RECHECKED = 200  # settled datasets that a look examines for changes; the next look goes on from there


@dataclass(frozen=True)
class Look:
    """What a look found.

    Attributes:
        due: Datasets that a run should take now.
        waiting: How many are on their way.
        settled: How many are settled.
        cursor: Where the next look goes on with settled ones.
    """

    due: Sequence[Entry]
    waiting: int
    settled: int
    cursor: str


def look(
    inbox: Inbox, ledger: Ledger, params: Params, *, now: float, cursor: str, is_dead: Callable[[str], bool]
) -> Look:
    """Looks at the landing folder and brings the ledger up to date; reads no data.

    Args:
        inbox: The landing folder.
        ledger: The book.
        params: Tasks, and the quiet period.
        now: Seconds since 1970.
        cursor: That of the look before; empty at first.
        is_dead: Whether a run ended; a dataset that it still holds is given back.

    Raises:
        DataError: the landing folder or the ledger cannot be used.
    """
    names = inbox.names()
    present = set(names)
    entries = ledger.entries()
    for entry in entries.values():
        if entry.state == "taking" and entry.run is not None and is_dead(entry.run):
            ledger.give_back(entry.name, now, f"run {entry.run} ended without a result")
    settled = [name for name in names if name in entries and entries[name].state in SETTLED]
    again, cursor = _slice(settled, cursor)
    open_ones = sorted(present - set(settled))
    arrivals = [arrival for name in [*open_ones, *again] if (arrival := inbox.look(name)) is not None]
    gone = [name for name in entries if name not in present]
    ledger.observe(arrivals, gone, now=now, quiet_seconds=params.landing.quiet_seconds)
    ledger.retry_held(params.tasks, now)
    due = ledger.due(now)
    return Look(due, len(open_ones) - len(due), len(settled), cursor)


def _slice(names: Sequence[str], cursor: str) -> tuple[Sequence[str], str]:
    """The next names after the cursor, and the new cursor; after the last name it begins again."""
    later = [name for name in names if name > cursor][:RECHECKED]
    if not later:
        later = list(names[:RECHECKED])
    return later, later[-1] if later else ""
