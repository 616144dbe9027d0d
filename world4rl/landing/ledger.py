"""The book of what arrived and what became of it: an SQLite database beside the pipeline's own state.

A dataset in the landing folder goes through these states; each line is one transaction, so that a process may be
killed between any two and the next one goes on:

    waiting ─▶ ready ─▶ taking ─▶ accepted | known | held | refused
                 ▲         │
                 └─────────┘ the run that took it died: again, later

`waiting` ends when a new marker is there or nothing has changed for the quiet period, by this machine's clock: what the
files' own times say does not matter. A dataset whose fingerprint changes waits again; a marker under which files change
does not count any more. A held dataset is ready again once the parameters know its task, a refused one once those that
it was read by change. Every change of state is also an event, and events are never changed or removed.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from world4rl.errors import DataError
from world4rl.files import disk_full
from world4rl.landing.inbox import Arrival

State = Literal["waiting", "ready", "taking", "accepted", "known", "held", "refused", "gone"]
SETTLED: tuple[State, ...] = ("accepted", "known", "held", "refused")
BACK_OFF = (10.0, 60.0, 300.0, 1800.0)  # seconds until the next attempt; the last one from then on

_SCHEMA = """
CREATE TABLE IF NOT EXISTS arrivals (
    name TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    since REAL NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    not_before REAL NOT NULL DEFAULT 0,
    run TEXT,
    digest TEXT,
    needs TEXT NOT NULL DEFAULT '[]',
    asked INTEGER,
    read_by TEXT
);
CREATE TABLE IF NOT EXISTS events (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    time REAL NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    digest TEXT,
    detail TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS events_digest ON events (digest);
CREATE INDEX IF NOT EXISTS events_name ON events (name);
CREATE TRIGGER IF NOT EXISTS events_stay BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'events are never changed'); END;
CREATE TRIGGER IF NOT EXISTS events_remain BEFORE DELETE ON events
BEGIN SELECT RAISE(ABORT, 'events are never removed'); END;
CREATE TABLE IF NOT EXISTS quarantine (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    time REAL NOT NULL,
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    episode INTEGER,
    checks TEXT NOT NULL,
    reason TEXT NOT NULL,
    evidence TEXT NOT NULL,
    checker TEXT NOT NULL,
    released REAL,
    released_by TEXT,
    released_because TEXT
);
CREATE UNIQUE INDEX IF NOT EXISTS quarantine_once ON quarantine (digest, ifnull(episode, -1), checks);
"""
# When the refused content was accepted after all, read in another way; or when another one was accepted under its name,
# unless the entry's own still lies in the landing folder. Content that was accepted once is not found sound later.
_QUARANTINED = """
SELECT *, coalesce((
    SELECT MIN(time) FROM events WHERE digest = entry.digest AND state IN ('accepted', 'known')
    GROUP BY digest HAVING MIN(time) > entry.time
), (
    SELECT MIN(time) FROM events
    WHERE name = entry.name AND state IN ('accepted', 'known') AND digest != entry.digest AND time > entry.time
    AND entry.digest NOT IN (SELECT digest FROM arrivals WHERE state != 'gone' AND digest IS NOT NULL)
)) AS replaced
FROM quarantine AS entry ORDER BY number
"""


@dataclass(frozen=True)
class Entry:
    """A dataset in the landing folder, as the book has it.

    Attributes:
        name: Of its folder.
        fingerprint: That the folder had when it was last looked at.
        since: When this fingerprint was first seen, in seconds since 1970.
        state: See the module.
        attempts: Runs that died with it.
        not_before: When the next attempt may begin, in seconds since 1970.
        run: The run that took it last.
        digest: Of its content, once it was read.
        needs: Tasks that the parameters would have to name, where it is held for that.
        asked: Number of the event that last made it ready.
        read_by: Digest of the parameters that the door read when it was settled; None: not known.
    """

    name: str
    fingerprint: str
    since: float
    state: State
    attempts: int
    not_before: float
    run: str | None
    digest: str | None
    needs: tuple[str, ...]
    asked: int | None
    read_by: str | None

    @property
    def key(self) -> str:
        """Names this readiness, which no other has: a run with this key is asked for once."""
        return f"{self.name}:{self.asked}"


@dataclass(frozen=True)
class Event:
    """A change of state. `time` is in seconds since 1970; `detail` says why, for people and machines."""

    number: int
    time: float
    name: str
    state: str
    digest: str | None
    detail: Mapping[str, Any]


@dataclass(frozen=True)
class Quarantined:
    """An episode that is kept out, or a whole dataset (episode None), with what was found and by which checker.

    `replaced` says when a version of the dataset that made this one a thing of the past was accepted; None: not yet.
    """

    number: int
    time: float
    name: str
    digest: str
    episode: int | None
    checks: str
    reason: str
    evidence: str
    checker: str
    released: float | None
    released_by: str | None
    released_because: str | None
    replaced: float | None

    @property
    def kept_out(self) -> bool:
        """Whether it still stands: nobody released it, and no version that was accepted replaced it."""
        return self.released is None and self.replaced is None


class Ledger:
    """The book. Several processes may have it open.

    Args:
        path: The database; created when missing.

    Raises:
        DataError: the file is no such database.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=30.0, isolation_level=None)
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(_SCHEMA)
            self._complete()
        except (sqlite3.DatabaseError, OSError) as error:
            raise self._broken(error) from error

    def _complete(self) -> None:
        """Adds the column that a book lacks which was begun before there was one; another process may do so, too."""
        if self._lacks_read_by():
            with self._transaction():
                if self._lacks_read_by():
                    self._db.execute("ALTER TABLE arrivals ADD COLUMN read_by TEXT")

    def _lacks_read_by(self) -> bool:
        return "read_by" not in {row["name"] for row in self._db.execute("PRAGMA table_info(arrivals)")}

    def close(self) -> None:
        """Closes the database."""
        self._db.close()

    def entries(self) -> dict[str, Entry]:
        """Every dataset by name."""
        return {row["name"]: _entry(row) for row in self._select("SELECT * FROM arrivals ORDER BY name")}

    def observe(self, arrivals: Iterable[Arrival], gone: Iterable[str], *, now: float, quiet_seconds: float) -> None:
        """Notes what the landing folder holds.

        Args:
            arrivals: What was looked at.
            gone: Names that are no longer there.
            now: Seconds since 1970.
            quiet_seconds: How long nothing may change in a dataset without a marker.
        """
        with self._transaction():
            for arrival in arrivals:
                self._observe(arrival, self._entry(arrival.name), now, quiet_seconds)
            for name in gone:
                entry = self._entry(name)
                # What a run is just taking is its own to settle.
                if entry is not None and entry.state not in ("gone", "taking"):
                    self._set(name, "gone", now, {"why": "it is no longer in the landing folder"})

    def _entry(self, name: str) -> Entry | None:
        rows = self._select("SELECT * FROM arrivals WHERE name = ?", (name,))
        return _entry(rows[0]) if rows else None

    def _observe(self, arrival: Arrival, entry: Entry | None, now: float, quiet_seconds: float) -> None:
        fresh = entry is None or entry.state == "gone" or entry.fingerprint != arrival.fingerprint
        if fresh:
            if entry is not None and entry.state == "taking":
                return  # whoever has it will find that it changed, and give it back
            self._db.execute(
                "INSERT INTO arrivals (name, fingerprint, since, state) VALUES (?, ?, ?, 'waiting') "
                "ON CONFLICT (name) DO UPDATE SET fingerprint = excluded.fingerprint, since = excluded.since, "
                "attempts = 0, not_before = 0, run = NULL, digest = NULL, needs = '[]'",
                (arrival.name, arrival.fingerprint, now),
            )
            if entry is None or entry.state not in ("waiting",):
                why = (
                    "it arrived" if entry is None or entry.state == "gone" else f"it changed after it was {entry.state}"
                )
                self._set(arrival.name, "waiting", now, {"why": why})
        elif entry is not None and entry.since > now:  # the clock was set back: count the quiet period from here
            self._db.execute("UPDATE arrivals SET since = ? WHERE name = ?", (now, arrival.name))
        since = now if fresh or entry is None else min(entry.since, now)
        waiting = fresh or (entry is not None and entry.state == "waiting")
        # Where the marker came first, or is an old one, what it names is still on its way.
        old_marker = entry is not None and entry.state != "gone" and arrival.has_marker_of(entry.fingerprint)
        marked = arrival.marker is not None and not old_marker
        if waiting and not arrival.uploading and (marked or now - since >= quiet_seconds):
            why = "its marker is there" if marked else f"nothing changed in it for {quiet_seconds:g} s"
            self._set(arrival.name, "ready", now, {"why": why})

    def retry_held(self, tasks: Collection[str], now: float) -> None:
        """Makes datasets ready whose tasks are by now among those that the parameters know by some name."""
        with self._transaction():
            for entry in map(_entry, self._select("SELECT * FROM arrivals WHERE state = 'held' ORDER BY name")):
                if set(entry.needs) <= set(tasks):
                    self._set(entry.name, "ready", now, {"why": f"{', '.join(entry.needs)} is in the parameters now"})

    def retry_refused(self, read_by: str, now: float) -> None:
        """Makes refused datasets ready that were read under other parameters than these.

        Args:
            read_by: See `Entry`. A dataset of which it is not known counts as refused under these.
            now: Seconds since 1970.
        """
        with self._transaction():
            rows = self._db.execute(
                # Without a digest nobody came to read it: no parameter would help.
                "SELECT name, read_by FROM arrivals "
                "WHERE state = 'refused' AND digest IS NOT NULL AND read_by IS NOT ? ORDER BY name",
                (read_by,),
            ).fetchall()
            for name, before in rows:
                self._db.execute(
                    "UPDATE arrivals SET read_by = ?, attempts = 0, not_before = 0 WHERE name = ?", (read_by, name)
                )
                if before is not None:
                    why = "`reading` or `landing.required` in the parameters changed after it was refused"
                    self._set(name, "ready", now, {"why": why})

    def due(self, now: float) -> list[Entry]:
        """Datasets that a run should take now, the longest waiting first."""
        rows = self._select(
            # Later than any back-off: the clock was set back since.
            "SELECT * FROM arrivals WHERE state = 'ready' AND (not_before <= ? OR not_before > ?) ORDER BY since, name",
            (now, now + BACK_OFF[-1]),
        )
        return [_entry(row) for row in rows]

    def claim(self, name: str, run: str, now: float) -> Entry | None:
        """Gives a dataset to a run; None where it is not ready: somebody else has it, or it is settled."""
        with self._transaction():
            row = self._db.execute("SELECT * FROM arrivals WHERE name = ?", (name,)).fetchone()
            if row is None or (row["state"] != "ready" and not (row["state"] == "taking" and row["run"] == run)):
                return None
            self._db.execute("UPDATE arrivals SET run = ? WHERE name = ?", (run, name))
            self._set(name, "taking", now, {"run": run})
        return _entry(row)

    def settle(
        self,
        entry: Entry,
        state: State,
        now: float,
        *,
        digest: str | None,
        detail: Mapping[str, Any],
        needs: Sequence[str] = (),
        quarantined: Sequence[Mapping[str, Any]] = (),
        checker: str = "",
        read_by: str | None = None,
    ) -> None:
        """Writes what became of a dataset, with the episodes of it that are kept out, in one transaction.

        Args:
            entry: What `claim` gave.
            state: A settled state.
            now: Seconds since 1970.
            digest: Of its content; None where it could not be read.
            detail: Why, and figures.
            needs: Tasks that it is held for.
            quarantined: Entries {episode or None, check, reason, evidence}.
            checker: The version of the checks.
            read_by: See `Entry`.
        """
        with self._transaction():
            self._db.execute(
                "UPDATE arrivals SET digest = ?, needs = ?, read_by = ? WHERE name = ?",
                (digest, json.dumps(list(needs)), read_by, entry.name),
            )
            for found in quarantined:
                self._db.execute(
                    "INSERT INTO quarantine (time, name, digest, episode, checks, reason, evidence, checker) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
                    # Found again: as it is now, unless somebody answered for it as it was.
                    "ON CONFLICT DO UPDATE SET time = max(time, excluded.time), reason = excluded.reason, "
                    "evidence = excluded.evidence, checker = excluded.checker WHERE released IS NULL",
                    (
                        now,
                        entry.name,
                        digest or entry.fingerprint,
                        found["episode"],
                        found["check"],
                        found["reason"],
                        found["evidence"],
                        checker,
                    ),
                )
            self._set(entry.name, state, now, detail)

    def give_back(self, name: str, now: float, why: str, state: State = "taking") -> None:
        """The run that took a dataset, or was to take it, died: another one may, after a while that grows.

        Args:
            name: The dataset; nothing happens unless it is in the given state.
            now: Seconds since 1970.
            why: In words.
            state: `taking`, or `ready` where the run died before it took the dataset.
        """
        with self._transaction():
            row = self._db.execute("SELECT * FROM arrivals WHERE name = ?", (name,)).fetchone()
            if row is None or row["state"] != state:
                return
            wait = BACK_OFF[min(row["attempts"], len(BACK_OFF) - 1)]
            self._db.execute(
                "UPDATE arrivals SET attempts = attempts + 1, not_before = ? WHERE name = ?", (now + wait, name)
            )
            self._set(name, "ready", now, {"why": why, "attempt": row["attempts"] + 2, "after_seconds": wait})

    def events(self, name: str | None = None) -> list[Event]:
        """What happened, in order; of one dataset where it is named."""
        rows = self._select("SELECT * FROM events WHERE ? IS NULL OR name = ? ORDER BY number", (name, name))
        return [Event(**{**dict(row), "detail": json.loads(row["detail"])}) for row in rows]

    def accepted_at(self, digests: Iterable[str]) -> dict[str, tuple[float, float]]:
        """When datasets were accepted for the first and for the last time, in seconds since 1970, by digest."""
        rows = self._select("SELECT digest, MIN(time), MAX(time) FROM events WHERE state = 'accepted' GROUP BY digest")
        wanted = set(digests)
        return {row[0]: (row[1], row[2]) for row in rows if row[0] in wanted}

    def has_accepted(self, digest: str) -> bool:
        """Whether a dataset with this digest was ever settled as accepted, its quarantined episodes with it."""
        query = "SELECT 1 FROM events WHERE digest = ? AND state = 'accepted' LIMIT 1"
        return bool(self._select(query, (digest,)))

    def quarantined(self) -> list[Quarantined]:
        """Everything that is or was kept out, in order."""
        return [Quarantined(**dict(row)) for row in self._select(_QUARANTINED)]

    def release(self, number: int, *, by: str, because: str, now: float) -> list[str]:
        """Lets a quarantined episode in, on somebody's word.

        Returns:
            The folders with this content that are ready to be taken again; none where it does not lie in the landing
            folder any more. Whenever it lands again, the word still counts.

        Raises:
            DataError: there is no such entry, it is released already, or a run is just taking the dataset.
        """
        with self._transaction():
            row = self._db.execute("SELECT * FROM quarantine WHERE number = ?", (number,)).fetchone()
            if row is None or row["released"] is not None:
                problem = "there is no such entry in the quarantine" if row is None else "it is released already"
                raise DataError(problem, where=f"entry {number}", remedy="`world4rl quarantine list` shows the entries")
            same = self._db.execute(
                "SELECT name, state FROM arrivals WHERE digest = ? OR (name = ? AND state = 'taking') ORDER BY name",
                (row["digest"], row["name"]),
            ).fetchall()
            if any(other["state"] == "taking" for other in same):
                raise DataError(
                    "a run is just taking this dataset",
                    where=f"entry {number}",
                    remedy="release it when the run has ended",
                )
            self._db.execute(
                "UPDATE quarantine SET released = ?, released_by = ?, released_because = ? WHERE number = ?",
                (now, by, because, number),
            )
            again = [other["name"] for other in same if other["state"] in SETTLED]
            for name in again:
                self._db.execute("UPDATE arrivals SET attempts = 0, not_before = 0 WHERE name = ?", (name,))
                self._set(name, "ready", now, {"why": f"entry {number} was released by {by}: {because}"})
        return again

    def _set(self, name: str, state: State, now: float, detail: Mapping[str, Any]) -> None:
        self._db.execute("UPDATE arrivals SET state = ? WHERE name = ?", (state, name))
        digest = self._db.execute("SELECT digest FROM arrivals WHERE name = ?", (name,)).fetchone()
        event = self._db.execute(
            "INSERT INTO events (time, name, state, digest, detail) VALUES (?, ?, ?, ?, ?)",
            (now, name, state, digest["digest"] if digest else None, json.dumps(detail, sort_keys=True)),
        )
        if state == "ready":
            self._db.execute("UPDATE arrivals SET asked = ? WHERE name = ?", (event.lastrowid, name))

    def _select(self, query: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise self._broken(error) from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # a full disk has ended it already
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.DatabaseError as error:
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> DataError:
        remedies = {
            "locked": "end the program that holds it",
            "readonly": "make the file and its folder writable",
            "unable to open": "make the file and its folder writable",
            "full": "free some space",
        }
        remedy = next((remedy for words, remedy in remedies.items() if words in str(error)), None)
        if disk_full(error):
            remedy = remedies["full"]
        return DataError(
            f"the ledger cannot be used: {error}",
            where=self.path,
            remedy=remedy or "restore it from a backup, or remove it: what is accepted is then found to be known",
        )


def _entry(row: sqlite3.Row) -> Entry:
    values = dict(row)  # a look reads ten thousand of them: most need nothing, and JSON is slow
    values["needs"] = () if row["needs"] == "[]" else tuple(json.loads(row["needs"]))
    return Entry(**values)
