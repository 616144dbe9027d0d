"""Which artefacts and deployments did an episode, an operator or a dataset reach?"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

from world4rl.audit.answers import Answer, Table, answer, count, short
from world4rl.audit.book import Book
from world4rl.audit.find import PREFIX, Found
from world4rl.audit.versions import History, Making, Version
from world4rl.demos.layout import COLLECTED
from world4rl.errors import ConfigError, DataError
from world4rl.provenance.episodes import EpisodeSet
from world4rl.provenance.manifests import Acceptance

ON_A_PAGE = 50  # artefacts that the page about everyone lists of each person,
PEOPLE = 20  # of so many people at most


@dataclass(frozen=True)
class Source:
    """Where a way begins.

    Attributes:
        name: Of the episodes, for people.
        starts: The versions that hold the episodes.
        episodes: How many there are,
        withdrawn: and how many of them were withdrawn.
        own: Versions that are asked about themselves: they are not among what was reached.
    """

    name: str
    starts: frozenset[Version]
    episodes: int = 0
    withdrawn: int = 0
    own: frozenset[Version] = frozenset()


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


def reached_from(book: Book, history: History, found: Found) -> Answer:
    """Answers for an artefact: what was made from it, and where it runs."""
    versions = frozenset(found.versions)
    told = _tell(book, history, Source(found.asked, versions, own=versions), most=ON_A_PAGE)
    return replace(told, question=f"What was made from {found.asked}, and which robots run it?")


def everyone(book: Book, history: History) -> list[Answer]:
    """Answers for all at once: a table of operators, one of datasets, and what each operator reached."""
    said = [one.statement for one in book.sets.values()] + [one.statement for one in book.acceptances]
    operators = sorted({one.operator for one in said if one.operator})
    people = [_of_operator(book, history, one) for one in operators]
    names = {one.id: one.name for one in book.acceptances}
    datasets = [
        (_of_dataset(book, history, one), names.get(one, ""))
        for one in sorted({*names, *(each.dataset for each in book.sets.values())})
    ]
    columns = ("artefacts", "of them current", "champion of", "running on")
    rows = _rows(book, history, [*people, *(one for one, _ in datasets)])
    first = answer(
        book,
        "Which artefacts and deployments did each episode and operator reach?",
        f"{count(len(people), 'operator')} and {count(len(datasets), 'dataset')} are on record; "
        "the tables say what came of each.",
        "good",
        {},
        sentences=(
            "An episode reached no more than its dataset; `world4rl audit reach --episode DIGEST` says exactly.",
        ),
        blocks=(
            Table(
                "Operators",
                ("operator", "episodes", *columns),
                [(operator, one.episodes, *row) for operator, one, row in zip(operators, people, rows, strict=False)],
            ),
            Table(
                "Datasets",
                ("dataset", "landed as", *columns),
                [
                    (one.name.removeprefix("dataset "), name, *row)
                    for (one, name), row in zip(datasets, rows[len(people) :], strict=True)
                ],
            ),
        ),
    )
    return [first, *(_tell(book, history, one, most=ON_A_PAGE) for one in people[:PEOPLE])]


def _rows(book: Book, history: History, sources: Sequence[Source]) -> list[tuple[object, ...]]:
    """For each source: artefacts that it reached, how many of them are current, tasks of champions, robots at work.

    All sources spread over the graph at once, a bit each.
    """
    reached: dict[Making, int] = defaultdict(int)
    for bit, source in enumerate(sources):
        for one in history.makings(source.starts):
            reached[one] |= 1 << bit
    waiting = deque(reached)
    while waiting:
        node = waiting.popleft()
        for follower in history.lineage.used_by.get(node, ()):
            if reached[node] & ~reached[follower]:
                reached[follower] |= reached[node]
                waiting.append(follower)
    made: dict[Version, int] = defaultdict(int)
    digests: dict[str, int] = defaultdict(int)
    for one, bits in reached.items():
        if one.run is not None:
            made[one.version] |= bits
            digests[one.version.digest] |= bits
    current = [reached.get(history.newest(version), 0) for version in history.current.values()]
    running = sorted({(one.robot, str(one.policy)) for one, end in book.deployments if end is None})
    return [
        (
            sum(bits >> bit & 1 for bits in made.values()),
            sum(bits >> bit & 1 for bits in current),
            ", ".join(task for task, digest in sorted(book.champions.items()) if digests.get(digest, 0) >> bit & 1),
            ", ".join(dict.fromkeys(robot for robot, digest in running if digests.get(digest, 0) >> bit & 1)),
        )
        for bit in range(len(sources))
    ]


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
    withdrawn = int(bool(digests & book.withdrawn))
    return Source(f"episode {short(found.pop())}", starts_of(book, history, digests), 1, withdrawn)


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
    starts = _holding(history, sets.keys(), {one.id for one in accepted})
    return Source(f"operator {operator}", starts, *_count(book, sets.values(), accepted))


def _of_dataset(book: Book, history: History, dataset: str) -> Source:
    ids = {one.id for one in book.acceptances if dataset in (one.id, one.name)} | {dataset}
    sets = {name: one for name, one in book.sets.items() if one.dataset in ids}
    accepted = [one for one in book.acceptances if one.id in ids]
    starts = _holding(history, sets.keys(), ids)
    if not sets and not accepted and not starts:
        raise DataError(
            "no record knows this dataset", where=dataset, remedy="data/accepted has a record for each, by its id"
        )
    return Source(f"dataset {dataset}", starts, *_count(book, sets.values(), accepted))


def _count(book: Book, sets: Iterable[EpisodeSet], accepted: Iterable[Acceptance]) -> tuple[int, int]:
    """How many episodes there are, and how many of them were withdrawn.

    Each counts once, though it has one digest as it landed and another as training sees it.
    """
    found: dict[tuple[str, int | str], bool] = {}
    for one in accepted:
        found |= {(one.id, each.episode): each.digest in book.withdrawn for each in one.episodes}
    for held in sets:
        for each in held.episodes:
            place = each.digest if held.dataset == COLLECTED else each.episode
            found[held.dataset, place] = each.digest in book.withdrawn
    return len(found), sum(found.values())


def _tell(book: Book, history: History, source: Source, *, most: int | None = None) -> Answer:
    ways = history.lineage.ways(history.makings(source.starts))
    made: dict[Version, list[Making]] = {}
    for one, way in ways.items():  # nearest first
        if one.run is not None and one.version not in source.own:
            made.setdefault(one.version, way)
    current = {version for version in history.current.values() if history.newest(version) in ways}
    digests = {version.digest for version in {*made, *source.own}}
    robots = [(one, end) for one, end in book.deployments if one.policy in digests]
    running = sorted({one.robot for one, end in robots if end is None})
    champions = sorted(task for task, digest in book.champions.items() if digest in digests)
    order = sorted(made, key=lambda one: (one not in current, one.path, history.made_by[one][-1]))
    now = sum(version in current for version in made)
    data: dict[str, Any] = {
        "source": source.name,
        "episodes": source.episodes,
        "withdrawn": source.withdrawn,
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
        f"{_sentence(source.name)} reached {count(len(made), 'artefact')} ({now} current) and "
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
                    for version in order[:most]
                ],
                "Each with one way on which the data came there.",
                left_out=len(order) - len(order[:most]),
            ),
        ),
    )


def _sentence(name: str) -> str:
    """A name as it begins a sentence; paths stay as they are."""
    return name if "/" in name.partition(" ")[0] else name[0].upper() + name[1:]


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
