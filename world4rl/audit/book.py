"""All that the repository has on record, read and checked at once: what holds, and every file that does not.

An audit must answer also where somebody tampered with the records. So nothing here stops at the first fault: what
holds is kept, the rest is named.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from world4rl.demos.layout import COLLECTED
from world4rl.errors import DataError
from world4rl.paths import Paths
from world4rl.provenance.decisions import Decision, Decisions, Deployment, Promotion, Rollback, Withdrawal
from world4rl.provenance.document import Digest
from world4rl.provenance.episodes import EpisodeSet, MemberEpisode, read_episode_sets
from world4rl.provenance.manifests import Acceptance, acceptance_files, read_acceptance
from world4rl.provenance.records import Chain, Record, Run


@dataclass(frozen=True)
class Fault:
    """A file that is not what it should be.

    Attributes:
        file: Which.
        problem: What is wrong with it.
        remedy: What to do.
    """

    file: str
    problem: str
    remedy: str | None

    @classmethod
    def of(cls, error: DataError) -> Fault:
        """An error about a file, as a fault."""
        return cls(error.where or "", error.problem, error.remedy)


@dataclass(frozen=True)
class Member:
    """An episode in a store.

    Attributes:
        set_digest: Of its set.
        dataset: `collected`, or the id of the accepted dataset.
        episode: The episode.
    """

    set_digest: str
    dataset: str
    episode: MemberEpisode


@dataclass(frozen=True)
class Book:
    """The records.

    Attributes:
        paths: Where they lie.
        runs: The run records that hold, oldest first; they stand in `run_files`.
        run_files: A file for each.
        decisions: The decisions that hold, oldest first.
        sets: Episode sets by digest.
        acceptances: Records of accepted datasets.
        faults: Every file that is missing, damaged or edited.
    """

    paths: Paths
    runs: tuple[Record[Run], ...]
    run_files: tuple[Path, ...]
    decisions: tuple[Record[Decision], ...]
    sets: Mapping[str, EpisodeSet]
    acceptances: tuple[Acceptance, ...]
    faults: tuple[Fault, ...]

    @property
    def holds(self) -> str:
        """What holds, in words."""
        lost = " before the first that does not" if self.faults else ""
        return (
            f"{len(self.runs)} run records, {len(self.decisions)} signed decisions{lost}, "
            f"{len(self.acceptances)} accepted datasets and {len(self.sets)} episode sets hold"
        )

    @cached_property
    def withdrawn(self) -> frozenset[Digest]:
        """Digests of withdrawn episodes, both as they landed and as training sees them."""
        said = {digest for one in self.decided(Withdrawal) for digest in one.episodes}
        return self.twins(said) if said else frozenset()

    @cached_property
    def withdrawn_datasets(self) -> Mapping[str, str]:
        """When each dataset lost episodes to a withdrawal, by id."""
        return {dataset: one.at for one in self.decided(Withdrawal) for dataset in one.datasets}

    def twins(self, digests: Set[Digest]) -> frozenset[Digest]:
        """Episodes by all of their digests: as they landed, and as training sees them, in whichever size.

        Args:
            digests: Any of theirs.
        """
        known = [(one.id, e.episode, e.digest) for one in self.acceptances for e in one.episodes]
        for each in self.sets.values():
            if each.dataset != COLLECTED:
                known += [(each.dataset, e.episode, e.digest) for e in each.episodes]
        places = {(dataset, index) for dataset, index, digest in known if digest in digests}
        return frozenset(digests) | {digest for dataset, index, digest in known if (dataset, index) in places}

    def decided[D: Decision](self, kind: type[D]) -> list[D]:
        """The decisions of a kind, oldest first."""
        return [record.predicate for record in self.decisions if isinstance(record.predicate, kind)]

    @cached_property
    def champions(self) -> Mapping[str, Digest]:
        """The digest of each task's champion."""
        made = [record.predicate for record in self.decisions]
        return {one.task: one.policy for one in made if isinstance(one, Promotion | Rollback)}

    @cached_property
    def deployments(self) -> tuple[tuple[Deployment, Deployment | None], ...]:
        """Each deployment with the one that ended it; None: it runs."""
        found: list[tuple[Deployment, Deployment | None]] = []
        running: dict[tuple[str, str], int] = {}
        for one in self.decided(Deployment):
            place = (one.robot, one.task)
            if place in running:
                at = running.pop(place)
                found[at] = (found[at][0], one)
            if one.policy is not None:
                running[place] = len(found)
                found.append((one, None))
        return tuple(found)


def read_book(paths: Paths) -> Book:
    """Reads and checks all records; raises nothing about their content."""
    with no_collection():
        return _read_book(paths)


@contextmanager
def no_collection() -> Iterator[None]:
    """Makes many objects, all of which stay: looking for garbage among them takes as long as reading them."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _read_book(paths: Paths) -> Book:
    chain = Chain(paths.records, (Run,))
    runs, broken = chain.examine()
    decisions, unsound = Decisions(paths).examine()
    sets, lost = _sets(paths, runs)
    acceptances, edited = _acceptances(paths)
    return Book(
        paths=paths,
        runs=tuple(runs),
        run_files=tuple(chain.files()[: len(runs)]),
        decisions=tuple(decisions),
        sets=sets,
        acceptances=tuple(acceptances),
        faults=tuple(dict.fromkeys(Fault.of(error) for error in (*broken, *unsound, *lost, *edited))),
    )


def _sets(paths: Paths, runs: list[Record[Run]]) -> tuple[dict[str, EpisodeSet], list[DataError]]:
    """Every set that lies there or that a run names."""
    named = {digest for record in runs for digests in record.predicate.episodes.values() for digest in digests}
    there = {path.name.partition(".")[0] for path in paths.episode_set("any").parent.glob("*.json")}
    found: dict[str, EpisodeSet] = {}
    faults = []
    for digest in sorted(named | there):
        try:
            found |= read_episode_sets([digest], paths)
        except DataError as error:
            faults.append(error)
    return found, faults


def _acceptances(paths: Paths) -> tuple[list[Acceptance], list[DataError]]:
    found, faults = [], []
    for path in acceptance_files(paths):
        try:
            found.append(read_acceptance(path))
        except DataError as error:
            faults.append(error)
    return found, faults


def episodes_of(sets: Mapping[str, EpisodeSet], digests: Iterable[str]) -> list[Member]:
    """The episodes of some sets, each once, by dataset and index."""
    found: dict[str, Member] = {}
    for digest in digests:
        if digest in sets:  # a set that is lost is a fault of the book
            for episode in sets[digest].episodes:
                found.setdefault(episode.digest, Member(digest, sets[digest].dataset, episode))
    return sorted(found.values(), key=lambda one: (one.dataset, one.episode.task, one.episode.episode))
