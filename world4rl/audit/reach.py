"""Which artefacts and deployments did an episode, an operator or a dataset reach?"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import Any

from world4rl.audit.answers import Answer, Table, answer, count, short
from world4rl.audit.book import Book
from world4rl.audit.find import PREFIX
from world4rl.audit.versions import History, Making, Version
from world4rl.errors import ConfigError, DataError
from world4rl.provenance.episodes import EpisodeSet
from world4rl.provenance.manifests import Acceptance


@dataclass(frozen=True)
class Source:
    """Where a way begins.

    Attributes:
        name: Of the episodes, for people.
        digests: Of the episodes, as they landed and as training sees them.
        starts: The versions that hold them.
    """

    name: str
    digests: frozenset[str]
    starts: frozenset[Version]


def reach(
    book: Book, history: History, *, episode: str | None = None, operator: str | None = None, dataset: str | None = None
) -> Answer:
    """Answers for an episode's digest (or its first digits), an operator's name, or a dataset's id or name.

    Raises:
        ConfigError: not exactly one of them is given.
        DataError: no record knows it.
    """
    given = [one for one in (episode, operator, dataset) if one is not None]
    if len(given) != 1:
        raise ConfigError(
            "ask about one thing", where="world4rl audit reach", remedy="give --episode, --operator or --dataset"
        )
    if episode is not None:
        source = _of_episode(book, history, episode)
    elif operator is not None:
        source = _of_operator(book, history, operator)
    else:
        source = _of_dataset(book, history, given[0])
    return _tell(book, history, source)


def starts_of(book: Book, history: History, digests: Set[str]) -> frozenset[Version]:
    """The versions that hold any of some episodes themselves.

    Args:
        book: The records.
        history: Their history.
        digests: All digests of the episodes (`Book.twins`).
    """
    sets = {name for name, one in book.sets.items() if any(each.digest in digests for each in one.episodes)}
    datasets = {one.id for one in book.acceptances if any(each.digest in digests for each in one.episodes)}
    return _holding(history, sets, datasets)


def _holding(history: History, sets: Set[str], datasets: Set[str]) -> frozenset[Version]:
    stored = {version for version, held in history.holds.items() if held & sets}
    return frozenset(stored | {version for version, held in history.datasets.items() if held & datasets})


def _of_episode(book: Book, history: History, episode: str) -> Source:
    known = {e.digest for one in book.sets.values() for e in one.episodes}
    known |= {e.digest for one in book.acceptances for e in one.episodes} | book.withdrawn
    if not re.fullmatch(rf"[0-9a-f]{{{PREFIX},64}}", episode):
        raise ConfigError("this is no digest", where=episode, remedy=f"give at least {PREFIX} digits of its SHA-256")
    found = {digest for digest in known if digest.startswith(episode)}
    if len(found) != 1:
        why = f"{len(found)} episodes begin so" if found else "no record knows such an episode"
        raise DataError(why, where=episode, remedy="`world4rl audit episodes FILE --json` lists digests")
    digests = book.twins(found)
    return Source(f"episode {short(found.pop())}", digests, starts_of(book, history, digests))


def _of_operator(book: Book, history: History, operator: str) -> Source:
    sets = {name: one for name, one in book.sets.items() if one.statement.operator == operator}
    accepted = [one for one in book.acceptances if one.statement.operator == operator]
    if not sets and not accepted:
        names = {one.statement.operator for one in book.sets.values()} - {None}
        names |= {one.statement.operator for one in book.acceptances} - {None}
        raise DataError(
            "no record names this operator",
            where=operator,
            remedy=f"known are: {', '.join(sorted(map(str, names))) or 'none'}",
        )
    digests = _digests(sets.values(), accepted)
    starts = _holding(history, sets.keys(), {one.id for one in accepted})
    return Source(f"operator {operator}", digests, starts)


def _of_dataset(book: Book, history: History, dataset: str) -> Source:
    ids = {one.id for one in book.acceptances if dataset in (one.id, one.name)} | {dataset}
    sets = {name: one for name, one in book.sets.items() if one.dataset in ids}
    accepted = [one for one in book.acceptances if one.id in ids]
    starts = _holding(history, sets.keys(), ids)
    if not sets and not accepted and not starts:
        raise DataError(
            "no record knows this dataset", where=dataset, remedy="data/accepted has a record for each, by its id"
        )
    digests = _digests(sets.values(), accepted)
    return Source(f"dataset {dataset}", digests, starts)


def _digests(sets: Iterable[EpisodeSet], accepted: Iterable[Acceptance]) -> frozenset[str]:
    stored = {each.digest for one in sets for each in one.episodes}
    return frozenset(stored | {each.digest for one in accepted for each in one.episodes})


def _tell(book: Book, history: History, source: Source) -> Answer:
    ways = history.lineage.ways(history.makings(source.starts))
    made: dict[Version, list[Making]] = {}
    for one, way in ways.items():  # nearest first
        if one.run is not None:
            made.setdefault(one.version, way)
    current = {version for version in history.current.values() if history.newest(version) in ways}
    digests = {version.digest for version in made}
    robots = [(one, end) for one, end in book.deployments if one.policy in digests]
    running = sorted({one.robot for one, end in robots if end is None})
    champions = sorted(task for task, digest in book.champions.items() if digest in digests)
    order = sorted(made, key=lambda one: (one not in current, one.path, history.made_by[one][-1]))
    now = sum(version in current for version in made)
    data: dict[str, Any] = {
        "source": source.name,
        "episodes": len(source.digests),
        "withdrawn": len(source.digests & book.withdrawn),
        "artefacts": [_artefact(history, version, made[version], current) for version in order],
        "deployments": [_deployment(one, None if end is None else end.at) for one, end in robots],
        "champions": {task: book.champions[task] for task in champions},
    }
    sentences = [f"Champion of: {', '.join(champions)}."] if champions else []
    if running:
        sentences.append(f"Running it now: {', '.join(running)}.")
    return answer(
        book,
        f"What did {source.name} reach?",
        f"{source.name.capitalize()} reached {count(len(made), 'artefact')} ({now} current) and "
        f"{count(len(robots), 'deployment')} ({len(running)} running).",
        "doubt" if any(each["assumed"] for each in data["artefacts"]) else "good",
        data,
        sentences=sentences,
        blocks=(
            Table(
                "Deployments",
                ("robot", "task", "policy", "since", "until"),
                [
                    (one.robot, one.task, short(str(one.policy)), one.at, "now" if end is None else end.at)
                    for one, end in robots
                ],
            ),
            Table(
                "Artefacts",
                ("path", "version", "", "way"),
                [
                    (
                        version.path,
                        short(version.digest),
                        "current" if version in current else "superseded",
                        " → ".join([source.name, *map(_place, _versions(made[version]))]),
                    )
                    for version in order
                ],
                "Each with one way on which the data came there.",
            ),
        ),
    )


def _artefact(history: History, version: Version, way: list[Making], current: Set[Version]) -> dict[str, Any]:
    return {
        "path": version.path,
        "sha256": version.digest,
        "current": version in current,
        "run": history.made_by[version][-1] + 1,
        "way": [{"path": one.path, "sha256": one.digest} for one in _versions(way)],
        "assumed": any(history.is_assumed(one, other) for one, other in itertools.pairwise(way)),
    }


def _versions(way: Iterable[Making]) -> list[Version]:
    """The versions on a way; one whose record came late stands on it twice, as it was read and as it was made."""
    return [version for version, _ in itertools.groupby(one.version for one in way)]


def _deployment(one: Any, until: str | None) -> dict[str, Any]:
    return {"robot": one.robot, "task": one.task, "policy": one.policy, "since": one.at, "until": until, "by": one.by}


def _place(version: Version) -> str:
    return f"{version.path}@{version.digest[:8]}"
