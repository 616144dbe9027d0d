"""What becomes of a verified copy of a dataset, and which of its episodes are kept out: decides, writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from world4rl.config import Params
from world4rl.demos.ingest import IngestOptions
from world4rl.demos.layout import INFO, SIDE_FILE
from world4rl.demos.reading import read_side
from world4rl.demos.storing import landed_options
from world4rl.demos.survey import Survey, Surveyed, survey
from world4rl.editing import new_task
from world4rl.errors import DataError, World4RLError
from world4rl.landing.collected import collected_episodes
from world4rl.landing.ledger import Entry, Ledger, State
from world4rl.landing.marker import Marker
from world4rl.paths import Paths
from world4rl.provenance.manifests import ID_DIGITS, Acceptance, LandedEpisode
from world4rl.provenance.statement import Statement, read_statement
from world4rl.provenance.tombstones import Tombstones

CHECKER = "world4rl checks 2"  # raise it with every change of the checks: quarantine entries name it
NO_LABEL = "success_label"
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


class Changed(Exception):
    """The dataset changed while it was read."""


class Refused(Exception):
    """The dataset as a whole cannot be used: the check that found it, what is wrong, where, and what to do."""

    def __init__(self, check: str, problem: str, where: str | None, remedy: str | None) -> None:
        super().__init__(problem)
        self.check, self.problem, self.where, self.remedy = check, problem, where, remedy


@contextmanager
def reading(check: str) -> Iterator[None]:
    """What goes wrong inside is the dataset's fault, unless the machine or the network failed."""
    try:
        yield
    except DataError as error:
        raise Refused(check, error.problem, error.where, error.remedy) from error
    except (World4RLError, OSError, MemoryError, Changed):
        raise
    except Exception as error:
        problem = f"it cannot be read: {type(error).__name__}: {error}"
        raise Refused(check, problem, None, "compare it with a dataset that was accepted; tell us what differs") from (
            error
        )


def door_options(
    params: Params, statement: Statement, waived: Mapping[int, frozenset[str]] | None = None
) -> IngestOptions:
    """How a dataset is read at the door: as for its stores, but in its own size, so that digests say what landed."""
    return replace(landed_options(params), size=None, task=statement.task, waived=waived or {})


def examine(
    entry: Entry,
    found: Marker,
    accepted: Sequence[Acceptance],
    folder: Path,
    ledger: Ledger,
    params: Params,
    paths: Paths,
    stones: Tombstones,
) -> tuple[Taken, Sequence[Mapping[str, Any]]]:
    """Decides what becomes of a verified copy, and which of its episodes are kept out; writes nothing."""
    others = [one for one in accepted if one.digest != found.digest]
    twin = next((one for one in accepted if one.digest == found.digest), None)
    waived = _waived(ledger, found.digest, twin)
    # Where a run was killed between record and ledger, what it kept out is not known yet: it is looked at again.
    settled = twin is not None and ledger.has_accepted(found.digest)
    if twin is not None and settled and waived.keys() <= {episode.episode for episode in twin.episodes}:
        # Accepted with its record again: what a killed run did not come to, or somebody removed, is put right.
        why = "it is accepted" if twin.name == entry.name else f"the same dataset was accepted before, as {twin.name}"
        state: State = "accepted" if twin.name == entry.name else "known"
        return Taken(entry.name, state, {"why": why, "dataset": twin.id}, twin), ()
    with reading("dataset"):
        side = read_side(folder)
    with reading("statement"):
        statement = read_statement(side, SIDE_FILE)
        _require_statement(statement, params)
    known = {e.digest: f"episode {e.episode} of {one.name} ({one.id})" for one in others for e in one.episodes}
    with reading("dataset"):
        result = survey(folder, door_options(params, statement, waived), {**collected_episodes(params, paths), **known})
        _require_episodes(result)
    result = _labelled(result, statement)
    unknown = sorted({episode.task for episode in result.episodes if params.task_called(episode.task) is None})
    if unknown:
        return _held(entry, unknown, params), ()
    # What an earlier version of the same folder brought is no news; elsewhere a twin is a mistake to be told of.
    before = {
        f"the same content as {known[e.digest]}" for one in others if one.name == entry.name for e in one.episodes
    }
    kept_out = [q for q in result.quarantined if q["reason"] not in before]
    result, withdrawn = _without(result, found, stones)
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
    name = entry.name if twin is None else twin.name
    acceptance = _acceptance(name, found.digest, statement, result, waived, params)
    return Taken(entry.name, "accepted", {**detail, "dataset": acceptance.id}, acceptance), kept_out


def _without(result: Survey, found: Marker, stones: Tombstones) -> tuple[Survey, list[Mapping[str, Any]]]:
    """The episodes that were never withdrawn, and quarantine entries of the others."""
    withdrawn = [_withdrawn(episode, stones) for episode in result.episodes if episode.digest in stones.episodes]
    if found.digest[:ID_DIGITS] in stones.datasets and not withdrawn:
        raise Refused(
            WITHDRAWN,
            "some of its episodes were withdrawn, but as they are read now nobody can tell which",
            SIDE_FILE,
            "land the other episodes as a dataset of their own, or set `reading` back to what it was",
        )
    kept = [episode for episode in result.episodes if episode.digest not in stones.episodes]
    return replace(result, episodes=kept), withdrawn


def _withdrawn(episode: Surveyed, stones: Tombstones) -> Mapping[str, Any]:
    """The quarantine entry of an episode that must not come back."""
    return {
        "episode": episode.episode,
        "check": WITHDRAWN,
        "reason": f"it was withdrawn on {stones.episodes[episode.digest][:10]}",
        "evidence": f"sha256 {episode.digest[:16]}",
    }


def _waived(ledger: Ledger, digest: str, accepted: Acceptance | None) -> dict[int, frozenset[str]]:
    """Checks that people have overruled for episodes of this content; its record knows where the ledger was lost."""
    episodes = () if accepted is None else accepted.episodes
    waived = {episode.episode: frozenset(episode.waived) for episode in episodes if episode.waived}
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


def _require_episodes(result: Survey) -> None:
    if not result.episodes and not result.quarantined:
        raise DataError("the dataset has no episodes", where=INFO, remedy="record some, then land it again")


def _labelled(result: Survey, statement: Statement) -> Survey:
    """Without the trials of an evaluation whose outcome nobody wrote down: that is all that they are for."""
    lost = [e for e in result.episodes if e.success is None] if statement.source == "evaluation" else []
    reason = "nothing says whether it succeeded, which an evaluation is for"
    entries = [{"episode": e.episode, "check": NO_LABEL, "reason": reason, "evidence": ""} for e in lost]
    kept = [episode for episode in result.episodes if episode not in lost]
    return replace(result, episodes=kept, quarantined=[*result.quarantined, *entries])


def _held(entry: Entry, unknown: Sequence[str], params: Params) -> Taken:
    """Held until the parameters name the tasks: which command does that, and what it writes."""
    added = [new_task(name, params.tasks) for name in unknown]
    detail = {
        "why": f"the parameters do not name its task {', '.join(map(repr, unknown))}",
        "needs": list(unknown),
        "to do": "; ".join(task.command for task in added),
        "or write into params.yaml": "; ".join(task.lines for task in added),
    }
    return Taken(entry.name, "held", detail)


def _acceptance(
    name: str,
    digest: str,
    statement: Statement,
    result: Survey,
    waived: Mapping[int, frozenset[str]],
    params: Params,
) -> Acceptance:
    episodes = tuple(
        LandedEpisode(
            episode=episode.episode,
            task=params.task_called(episode.task) or episode.task,
            length=episode.length,
            success=episode.success,
            digest=episode.digest,
            waived=tuple(sorted(waived.get(episode.episode, ()))),
        )
        for episode in result.episodes
    )
    return Acceptance(id=digest[:ID_DIGITS], name=name, digest=digest, statement=statement, episodes=episodes)
