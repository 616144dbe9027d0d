"""One look at the landing folder: what is new, what is whole by now, what a dead run left behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from world4rl.config import Params
from world4rl.errors import MachineError
from world4rl.files import locked
from world4rl.landing.inbox import Arrival, Inbox
from world4rl.landing.ledger import SETTLED, Entry, Ledger
from world4rl.landing.staging import discard_abandoned
from world4rl.paths import Paths
from world4rl.provenance.digests import digest_json
from world4rl.provenance.manifests import write_manifests

RECHECKED = 200  # settled datasets that a look examines for changes; the next look goes on from there


@dataclass(frozen=True)
class Look:
    """What a look found.

    Attributes:
        due: Datasets that a run should take now.
        waiting: How many are on their way.
        settled: How many are settled.
        cursor: Where the next look goes on with settled ones.
        manifests: Tasks whose manifests were made again: a run died before it came to them.
        unreadable: Why folders could not be looked at, by name; they are looked at again next time.
    """

    due: Sequence[Entry]
    waiting: int
    settled: int
    cursor: str
    unreadable: Mapping[str, str]
    manifests: Sequence[str]


def look(
    inbox: Inbox,
    ledger: Ledger,
    params: Params,
    paths: Paths,
    *,
    now: float,
    cursor: str,
    is_dead: Callable[[str], bool],
) -> Look:
    """Looks at the landing folder and brings the ledger up to date; reads no data.

    Args:
        inbox: The landing folder.
        ledger: The book.
        params: Tasks, and the quiet period.
        paths: Where acceptance records and manifests lie.
        now: Seconds since 1970.
        cursor: That of the look before; empty at first.
        is_dead: Whether a run ended; a dataset that it still holds is given back.

    Raises:
        MachineError: the landing folder has gone, or cannot be read.
        DataError: the ledger cannot be used.
    """
    entries = ledger.entries()
    names = _names(inbox, entries)
    dead = [e for e in entries.values() if e.state == "taking" and e.run is not None and is_dead(e.run)]
    for entry in dead:
        ledger.give_back(entry.name, now, f"run {entry.run} ended without a result")
    discard_abandoned(paths)
    manifests: Sequence[str] = ()
    if dead:  # whether or not what it took still lies there, what it accepted is accepted
        with locked(paths.landing_lock):
            manifests = write_manifests(params.tasks, paths)
    settled = [name for name in names if name in entries and entries[name].state in SETTLED]
    again, cursor = _slice(settled, cursor)
    open_ones = sorted(set(names) - set(settled))
    arrivals, empty, unreadable = _arrivals(inbox, [*open_ones, *again])
    there = set(names) - empty
    gone = [name for name, entry in entries.items() if name not in there and entry.state != "gone"]
    ledger.observe(arrivals, gone, now=now, quiet_seconds=params.landing.quiet_seconds)
    ledger.retry_held(params.task_names, now)
    ledger.retry_refused(read_by(params), now)
    due = [entry for entry in ledger.due(now) if entry.name not in unreadable]
    return Look(due, len(open_ones) - len(due), len(settled), cursor, unreadable, manifests)


def read_by(params: Params) -> str:
    """Digest of the parameters that decide at the door whether a dataset can be read; another one is worth a retry."""
    return digest_json({"reading": params.reading.model_dump(mode="json"), "required": sorted(params.landing.required)})


def _names(inbox: Inbox, entries: Mapping[str, Entry]) -> list[str]:
    """What lies in the landing folder. That it is not mounted must not look as if everything had been removed."""
    names = inbox.names()
    if not names and any(entry.state != "gone" for entry in entries.values()) and not inbox.is_there():
        raise MachineError(
            "the landing folder has gone",
            where=inbox.address,
            remedy="mount it, or make an empty one if everything in it was removed on purpose",
        )
    return names


def _arrivals(inbox: Inbox, names: Sequence[str]) -> tuple[list[Arrival], set[str], dict[str, str]]:
    """Folders as they are; those that are empty; and why others cannot be read: one must not stop the rest."""
    arrivals, empty, unreadable = [], set(), {}
    for name in names:
        try:
            name.encode()
            arrival = inbox.look(name)
        except (MachineError, UnicodeEncodeError) as error:
            unreadable[name] = str(error).splitlines()[0]
            continue
        if arrival is None:
            empty.add(name)
        else:
            arrivals.append(arrival)
    return arrivals, empty, unreadable


def _slice(names: Sequence[str], cursor: str) -> tuple[Sequence[str], str]:
    """The next names after the cursor, and the new cursor; after the last name it begins again."""
    later = [name for name in names if name > cursor][:RECHECKED]
    if not later:
        later = list(names[:RECHECKED])
    return later, later[-1] if later else ""
