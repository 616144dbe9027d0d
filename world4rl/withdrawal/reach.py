"""What was made from episodes, by the run records, and which robots run such a policy."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from world4rl.provenance.decisions import Decision, Deployment, Promotion, Rollback
from world4rl.provenance.episodes import EpisodeSet
from world4rl.provenance.graph import Lineage
from world4rl.provenance.records import Record, Run
from world4rl.withdrawal.selecting import Cut

Version = tuple[str, str]  # a path, and the digest that it had


def sets_reached(sets: Mapping[str, EpisodeSet], cuts: Iterable[Cut]) -> set[str]:
    """Digests of the episode sets that hold an episode which goes.

    An episode has one digest at the door and another in a store, where it may be smaller: it is found by its number in
    its dataset, and then by its digest in every set, since a dataset that was cut has been another one before.

    Args:
        sets: All sets by digest.
        cuts: What becomes of the accepted datasets.
    """
    numbers = {(cut.acceptance.id, one.episode) for cut in cuts for one in cut.gone}
    digests = {one.digest for each in sets.values() for one in each.episodes if (each.dataset, one.episode) in numbers}
    known = {each.dataset for each in sets.values()}
    # What it was cut from was stored and it itself never: nobody can tell any more which of its episodes stayed.
    before = {
        cut.acceptance.derived_from[: len(cut.acceptance.id)]
        for cut in cuts
        if cut.acceptance.derived_from is not None and cut.gone and cut.acceptance.id not in known
    }
    return {
        name
        for name, each in sets.items()
        if each.dataset in before or any(one.digest in digests for one in each.episodes)
    }


def lineage(records: Sequence[Record[Run]]) -> Lineage[Version]:
    """Which version of a file was made from which, by the records in their order.

    Where a stage reads a folder in which several stages write, it read what lay there then.
    """
    graph: Lineage[Version] = Lineage()
    latest: dict[str, str] = {}
    for record in records:
        inputs: set[Version] = set()
        for one in record.predicate.inputs:
            inputs.add((one.name, one.sha256))
            inputs |= {(path, latest[path]) for path in latest if path != one.name and overlap(path, one.name)}
        for one in record.predicate.outputs:
            graph.add((one.name, one.sha256), inputs)
        latest |= {one.name: one.sha256 for one in record.predicate.outputs}
    return graph


def made_from(records: Sequence[Record[Run]], sets: Collection[str]) -> set[Version]:
    """Every version of a file that was made from one of the episode sets, the stores that hold them included."""
    stores = {
        (one.name, one.sha256)
        for record in records
        for one in record.predicate.outputs
        if not set(sets).isdisjoint(record.predicate.episodes.get(one.name, ()))
    }
    return stores | lineage(records).descendants(stores)


def overlap(one: str, other: str) -> bool:
    """Whether two paths are the same or one lies in the other."""
    a, b = PurePosixPath(one), PurePosixPath(other)
    return a == b or a in b.parents or b in a.parents


def deployed(decisions: Iterable[Record[Decision]]) -> list[dict[str, str]]:
    """What runs on robots now, as {robot, task, policy}."""
    now: dict[tuple[str, str], str | None] = {}
    for record in decisions:
        if isinstance(record.predicate, Deployment):
            now[record.predicate.robot, record.predicate.task] = record.predicate.policy
    return [{"robot": robot, "task": task, "policy": policy} for (robot, task), policy in sorted(now.items()) if policy]


def needed(decisions: Sequence[Record[Decision]]) -> set[str]:
    """Digests of policies that somebody relies on: champions as of now, and what robots run."""
    champions = {
        record.predicate.task: record.predicate.policy
        for record in decisions
        if isinstance(record.predicate, Promotion | Rollback)
    }
    return {*champions.values(), *(one["policy"] for one in deployed(decisions))}
