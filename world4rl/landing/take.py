"""Takes a dataset out of the landing folder: copied, verified, surveyed, and put among the accepted ones.

Every step may be interrupted and done again: the copy is staged under its attempt's name, the accepted folder appears
by one rename, the record after it, and the ledger learns last.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from world4rl import progress
from world4rl.config import Params
from world4rl.demos.ingest import IngestOptions
from world4rl.demos.layout import SIDE_FILE
from world4rl.demos.reading import read_side
from world4rl.demos.storing import landed_options
from world4rl.demos.survey import Survey, Surveyed, survey
from world4rl.errors import DataError
from world4rl.files import locked, replacing
from world4rl.landing.cutting import cut_accepted
from world4rl.landing.inbox import Inbox
from world4rl.landing.ledger import Entry, Ledger, State
from world4rl.landing.marker import MARKER, Marker, disagreements, mark, parse_marker
from world4rl.paths import Paths
from world4rl.provenance.manifests import (
    ID_DIGITS,
    Acceptance,
    LandedEpisode,
    read_acceptances,
    write_acceptance,
    write_manifests,
)
from world4rl.provenance.statement import Statement, read_statement
from world4rl.provenance.tombstones import Tombstones, read_tombstones

CHECKER = "world4rl checks 1"  # raise it with every change of the checks: quarantine entries name it
WITHDRAWN = "withdrawn"  # the check that keeps out what was withdrawn; nobody can overrule it


@dataclass(frozen=True)
class Taken:
    """What became of a dataset.

    Attributes:
        name: Of its folder in the landing folder.
        state: How the ledger settled it.
        detail: Why, and figures, for people.
        acceptance: Its record where it was accepted.
        manifests: Tasks whose manifests changed.
    """

    name: str
    state: State
    detail: Mapping[str, Any]
    acceptance: Acceptance | None = None
    manifests: Sequence[str] = ()


class _Changed(Exception):
    """The dataset changed while it was read."""


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
        MachineError: the disk is full. The dataset is still there, for another attempt.
        DataError: the decisions, which say what was withdrawn, cannot be trusted.
    """
    stones = read_tombstones(paths)
    entry = ledger.claim(name, run, clock())
    if entry is None:
        return None
    staging = paths.ledger.parent / "taking" / name
    digest: str | None = None
    try:
        shutil.rmtree(staging, ignore_errors=True)
        found = _fetch(entry, inbox, staging)
        digest = found.digest
        taken, quarantined = _examine(entry, found, staging, ledger, params, paths, stones)
        if taken.acceptance is not None:
            source = staging
            if taken.detail.get(WITHDRAWN):
                taken, source = _without_withdrawn(taken, taken.acceptance, staging, params)
            with locked(paths.landing_lock):
                if read_tombstones(paths) != stones:
                    raise _Changed  # something was withdrawn meanwhile: look again
                taken = _accept(taken, source, params, paths)
    except _Changed:
        ledger.give_back(name, clock(), "it changed while it was read, or something was withdrawn meanwhile")
        return None
    except DataError as error:
        where = _relative(error.where, staging)
        taken = Taken(name, "refused", {"why": error.problem, "where": where, "to do": error.remedy})
        quarantined = [{"episode": None, "check": "dataset", "reason": error.problem, "evidence": where}]
    finally:
        shutil.rmtree(staging, ignore_errors=True)
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
    )
    return taken


def door_options(
    params: Params, statement: Statement, waived: Mapping[int, frozenset[str]] | None = None
) -> IngestOptions:
    """How a dataset is read at the door: as for its stores, but in its own size, so that digests say what landed."""
    return replace(landed_options(params), size=None, task=statement.task, waived=waived or {})


def _fetch(entry: Entry, inbox: Inbox, staging: Path) -> Marker:
    """Copies a dataset and makes sure that it is what was promised and did not change meanwhile."""
    files = inbox.files(entry.name)
    arrival = inbox.look(entry.name)
    if arrival is None or arrival.fingerprint != entry.fingerprint:
        raise _Changed
    with progress.track(f"copy {entry.name}", len(files), unit="file") as bar:
        for _ in inbox.fetch(entry.name, files, staging):
            bar.advance()
    found = mark(staging)
    if arrival.marked:
        promised = parse_marker(inbox.marker(entry.name), f"{inbox.address}/{entry.name}/{MARKER}")
        wrong = disagreements(promised, found)
        if wrong:
            shown = wrong[:5] + ([f"and {len(wrong) - 5} more"] if len(wrong) > 5 else [])
            raise DataError(
                f"the files are not what the marker says: {'; '.join(shown)}",
                where=f"{inbox.address}/{entry.name}/{MARKER}",
                remedy="copy the dataset again with `world4rl land`",
            )
    if inbox.look(entry.name) != arrival or inbox.files(entry.name) != files:
        raise _Changed
    return found


def _examine(
    entry: Entry, found: Marker, folder: Path, ledger: Ledger, params: Params, paths: Paths, stones: Tombstones
) -> tuple[Taken, Sequence[Mapping[str, Any]]]:
    """Decides what becomes of a verified copy, and which of its episodes are kept out; writes nothing."""
    accepted = read_acceptances(paths)
    waived = _waived(ledger, found.digest)
    others = [one for one in accepted if one.digest != found.digest]
    if len(others) < len(accepted) and not waived:
        # Accepted with its record again: what a killed run did not come to, or somebody removed, is put right.
        twin = next(one for one in accepted if one.digest == found.digest)
        why = "it is accepted" if twin.name == entry.name else f"the same dataset was accepted before, as {twin.name}"
        state: State = "accepted" if twin.name == entry.name else "known"
        return Taken(entry.name, state, {"why": why, "dataset": twin.id}, twin), ()
    side = read_side(folder)
    statement = read_statement(side, SIDE_FILE)
    _require_statement(statement, params)
    known = {e.digest: f"episode {e.episode} of {one.name} ({one.id})" for one in others for e in one.episodes}
    result = survey(folder, door_options(params, statement, waived), known)
    unknown = sorted({episode.task for episode in result.episodes} - set(params.tasks))
    if unknown:
        return _held(entry, unknown), ()
    # What an earlier version of the same folder brought is no news; elsewhere a twin is a mistake to be told of.
    before = {
        f"the same content as {known[e.digest]}" for one in others if one.name == entry.name for e in one.episodes
    }
    kept_out = [q for q in result.quarantined if q["reason"] not in before]
    withdrawn = [_withdrawn(episode, stones) for episode in result.episodes if episode.digest in stones.episodes]
    if found.digest[:ID_DIGITS] in stones.datasets and not withdrawn:
        raise DataError(
            "some of its episodes were withdrawn, but as they are read now nobody can tell which",
            where=SIDE_FILE,
            remedy="land the other episodes as a dataset of their own, or set `reading` back to what it was",
        )
    result = replace(result, episodes=[one for one in result.episodes if one.digest not in stones.episodes])
    counts = {
        "accepted": len(result.episodes),
        "quarantined": len(kept_out),
        "known": len(result.quarantined) - len(kept_out),
        **({WITHDRAWN: len(withdrawn)} if withdrawn else {}),
    }
    kept_out += withdrawn
    why = ", ".join(f"{count} episodes {what}" for what, count in counts.items())
    detail: dict[str, Any] = {"why": why, **counts}
    if not result.episodes:
        nothing_new = all("duplicate" in q["check"] for q in (*result.quarantined, *withdrawn))
        return Taken(entry.name, "known" if nothing_new else "refused", detail), kept_out
    acceptance = _acceptance(entry.name, found.digest, statement, result, waived)
    return Taken(entry.name, "accepted", {**detail, "dataset": acceptance.id}, acceptance), kept_out


def _withdrawn(episode: Surveyed, stones: Tombstones) -> Mapping[str, Any]:
    """The quarantine entry of an episode that must not come back."""
    return {
        "episode": episode.episode,
        "check": WITHDRAWN,
        "reason": f"it was withdrawn on {stones.episodes[episode.digest][:10]}",
        "evidence": f"sha256 {episode.digest[:16]}",
    }


def _without_withdrawn(taken: Taken, acceptance: Acceptance, staging: Path, params: Params) -> tuple[Taken, Path]:
    """Cuts a staged copy down to what was accepted of it; returns where the rest is."""
    folder = _cut_copy(staging)
    options = door_options(params, acceptance.statement)
    acceptance = cut_accepted(acceptance, staging, folder, acceptance.episodes, options)
    detail = {**taken.detail, "dataset": acceptance.id}
    return replace(taken, acceptance=acceptance, detail=detail), folder


def _cut_copy(staging: Path) -> Path:
    return staging.with_name(f".{staging.name}.cut")  # no dataset has such a name


def _waived(ledger: Ledger, digest: str) -> dict[int, frozenset[str]]:
    """Checks that people have overruled for episodes of this content."""
    waived: dict[int, frozenset[str]] = {}
    for entry in ledger.quarantined():
        if entry.digest == digest and entry.released is not None and entry.episode is not None:
            waived[entry.episode] = waived.get(entry.episode, frozenset()) | set(entry.checks.split(", "))
    return waived


def _require_statement(statement: Statement, params: Params) -> None:
    missing = [name for name in params.landing.required if getattr(statement, name) is None]
    if missing:
        raise DataError(
            f"nothing is said about: {', '.join(missing)}",
            where=SIDE_FILE,
            remedy="land it with `world4rl land`, with an option for each of them",
        )


def _held(entry: Entry, unknown: Sequence[str]) -> Taken:
    names = ", ".join(map(repr, unknown))
    detail = {
        "why": f"the parameters do not name its task {names}",
        "needs": list(unknown),
        "to do": "; ".join(f"world4rl params --add-task {shlex.quote(task)}" for task in unknown),
    }
    return Taken(entry.name, "held", detail)


def _acceptance(
    name: str, digest: str, statement: Statement, result: Survey, waived: Mapping[int, frozenset[str]]
) -> Acceptance:
    episodes = tuple(
        LandedEpisode(
            episode=episode.episode,
            task=episode.task,
            length=episode.length,
            success=episode.success,
            digest=episode.digest,
            waived=tuple(sorted(waived.get(episode.episode, ()))),
        )
        for episode in result.episodes
    )
    return Acceptance(id=digest[:ID_DIGITS], name=name, digest=digest, statement=statement, episodes=episodes)


def _accept(taken: Taken, staging: Path, params: Params, paths: Paths) -> Taken:
    """Puts the copy among the accepted datasets of its tasks. The record comes last: only then it is accepted."""
    acceptance = taken.acceptance
    assert acceptance is not None
    place_copies(acceptance, staging, paths)
    write_acceptance(acceptance, paths)
    return replace(taken, manifests=tuple(write_manifests(params.tasks, paths)))


def place_copies(acceptance: Acceptance, source: Path, paths: Paths) -> None:
    """Puts a dataset into the folders of its tasks and role, unless it is there: hard links, no bytes twice."""
    for task in sorted({episode.task for episode in acceptance.episodes}):
        folder = paths.landed(task, acceptance.statement.source) / acceptance.id
        if not folder.exists():
            with replacing(folder) as fresh:
                shutil.copytree(source, fresh, copy_function=os.link)


def _relative(where: str | None, staging: Path) -> str:
    """A place inside the staged copy as a place inside the dataset."""
    return "" if where is None else where.removeprefix(str(staging)).lstrip("/")
