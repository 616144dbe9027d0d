"""Takes a dataset out of the landing folder: copied, verified, surveyed, and put among the accepted ones.

Every step may be interrupted and done again: the copy is staged under its attempt's name, the accepted folder appears
by one rename, the record after it, and the ledger learns last.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from world4rl import progress
from world4rl.config import Params
from world4rl.errors import DataError, MachineError
from world4rl.files import disk_full, locked, replacing
from world4rl.landing.cutting import cut_accepted
from world4rl.landing.door import CHECKER, WITHDRAWN, Changed, Refused, Taken, door_options, examine, reading
from world4rl.landing.inbox import Inbox
from world4rl.landing.ledger import Entry, Ledger
from world4rl.landing.marker import AGAIN, MARKER, Marker, disagreements, mark, parse_marker
from world4rl.landing.pictures import keep_pictures
from world4rl.landing.staging import staged
from world4rl.landing.watch import read_by
from world4rl.paths import Paths
from world4rl.provenance.manifests import Acceptance, read_acceptances, write_acceptance, write_manifests
from world4rl.provenance.tombstones import Tombstones, read_tombstones


def take(
    name: str,
    run: str,
    *,
    inbox: Inbox,
    ledger: Ledger,
    params: Params,
    paths: Paths,
    clock: Callable[[], float],
) -> Taken | None:
    """Takes a dataset that is ready.

    Args:
        name: Of its folder in the landing folder.
        run: Who takes it; the same run may take it again.
        inbox: The landing folder.
        ledger: The book.
        params: Tasks, and how landed datasets are read.
        paths: Where accepted datasets go.
        clock: Seconds since 1970.

    Returns:
        What became of it; None where another run has it, or nobody has anything to do.

    Raises:
        MachineError: the disk is full, or the landing folder cannot be read.
        DataError: the ledger, an acceptance record or the decisions, which say what was withdrawn, cannot be used.
        OSError: the machine or the network failed in another way. Whatever was raised, the dataset is still there, for
            another attempt.
    """
    stones = read_tombstones(paths)
    with staged(name, paths) as staging:
        entry = ledger.claim(name, run, clock())
        if entry is None:
            return None
        try:
            staging.mkdir()
            taken, digest, quarantined = _take(entry, inbox, staging, ledger, params, paths, stones)
            shown = [found for found in quarantined if found["check"] != WITHDRAWN]  # of those nothing is kept
            keep_pictures(staging, digest, shown, params, paths)
        except Changed:
            ledger.give_back(name, clock(), "it changed while it was read, or something was withdrawn meanwhile")
            return None
        except Exception as error:
            full = disk_full(error)
            with suppress(DataError):  # the first error is the one to tell
                why = "the disk is full" if full else str(error).splitlines()[0] if str(error) else repr(error)
                ledger.give_back(name, clock(), why)
            if full and not isinstance(error, MachineError):
                remedy = "free some space: the dataset waits in the landing folder, and is taken again by itself"
                raise MachineError("the disk is full", where=staging, remedy=remedy) from error
            raise
        finally:
            shutil.rmtree(_cut_copy(staging), ignore_errors=True)
        ledger.settle(
            entry,
            taken.state,
            clock(),
            digest=digest,
            detail=taken.detail,
            needs=taken.detail.get("needs", ()),
            quarantined=quarantined,
            checker=CHECKER,
            read_by=read_by(params),
        )
        return taken


def _take(
    entry: Entry,
    inbox: Inbox,
    staging: Path,
    ledger: Ledger,
    params: Params,
    paths: Paths,
    stones: Tombstones,
) -> tuple[Taken, str | None, Sequence[Mapping[str, Any]]]:
    """What becomes of a dataset, the digest of its content as far as it could be read, and what is kept out."""
    digest: str | None = None
    try:
        found = _fetch(entry, inbox, staging)
        digest = found.digest
        accepted = read_acceptances(paths)
        taken, quarantined = examine(entry, found, accepted, staging, ledger, params, paths, stones)
        if taken.acceptance is not None:
            with locked(paths.landing_lock):
                if read_tombstones(paths) != stones:
                    raise Changed
                now = read_acceptances(paths)
                if now != accepted:  # a twin may have come in meanwhile
                    taken, quarantined = examine(entry, found, now, staging, ledger, params, paths, stones)
                if taken.acceptance is not None:
                    taken, source = _without_withdrawn(taken, taken.acceptance, staging, params)
                    taken = _accept(taken, source, params, paths)
    except Refused as error:
        where = _relative(error.where, staging)
        evidence = "; to do: ".join(words for words in (where, error.remedy) if words)
        taken = Taken(entry.name, "refused", {"why": error.problem, "where": where, "to do": error.remedy})
        quarantined = [{"episode": None, "check": error.check, "reason": error.problem, "evidence": evidence}]
    return taken, digest, quarantined


def _fetch(entry: Entry, inbox: Inbox, staging: Path) -> Marker:
    """Copies a dataset and makes sure that it is what was promised and did not change meanwhile."""
    files = inbox.files(entry.name)
    arrival = inbox.look(entry.name)
    if arrival is None or arrival.fingerprint != entry.fingerprint:
        raise Changed
    try:
        with reading("files"), progress.track(f"copy {entry.name}", len(files), unit="file") as bar:
            for _ in inbox.fetch(entry.name, files, staging):
                bar.advance()
            found = mark(staging)
        with reading("marker"):
            marker = None if arrival.marker is None else inbox.marker(entry.name)
    except FileNotFoundError:
        raise Changed from None
    if inbox.look(entry.name) != arrival or inbox.files(entry.name) != files:
        raise Changed
    if marker is not None:
        with reading("marker"):
            _compare(parse_marker(marker, MARKER), found)
    return found


def _compare(promised: Marker, found: Marker) -> None:
    wrong = disagreements(promised, found)
    if wrong:
        shown = wrong[:5] + ([f"and {len(wrong) - 5} more"] if len(wrong) > 5 else [])
        raise DataError(f"the files are not what the marker says: {'; '.join(shown)}", where=MARKER, remedy=AGAIN)


def _without_withdrawn(taken: Taken, acceptance: Acceptance, staging: Path, params: Params) -> tuple[Taken, Path]:
    """Cuts a staged copy down to what was accepted of it; returns where that is."""
    if not taken.detail.get(WITHDRAWN):
        return taken, staging
    folder = _cut_copy(staging)
    options = door_options(params, acceptance.statement)
    acceptance = cut_accepted(acceptance, staging, folder, acceptance.episodes, options)
    detail = {**taken.detail, "dataset": acceptance.id}
    return replace(taken, acceptance=acceptance, detail=detail), folder


def _cut_copy(staging: Path) -> Path:
    return staging.with_name(f".{staging.name}.cut")  # no dataset has such a name


def _accept(taken: Taken, staging: Path, params: Params, paths: Paths) -> Taken:
    """Puts the copy among the accepted datasets of its tasks. The record comes last: only then it is accepted."""
    acceptance = taken.acceptance
    assert acceptance is not None
    place_copies(acceptance, staging, paths)
    write_acceptance(acceptance, paths)
    return replace(taken, manifests=tuple(write_manifests(params.tasks, paths)))


def place_copies(acceptance: Acceptance, source: Path, paths: Paths) -> None:
    """Puts a dataset into the folders of its tasks and role, unless it is there: hard links where possible."""
    for task in sorted({episode.task for episode in acceptance.episodes}):
        folder = paths.landed(task, acceptance.statement.source) / acceptance.id
        if not folder.is_dir() or mark(folder).digest != acceptance.digest:
            with replacing(folder) as fresh:
                shutil.copytree(source, fresh, copy_function=_link_or_copy)


def _link_or_copy(source: str, target: str) -> None:
    """The staged copy is removed soon: where both lie on one disk, its files need not be copied again."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
            raise
        shutil.copy2(source, target)


def _relative(where: str | None, staging: Path) -> str:
    """A place inside the staged copy as a place inside the dataset."""
    return "" if where is None else where.removeprefix(str(staging)).lstrip("/")
