"""The lineage as a graph: what a file was made from, what was made from it, what is stale and since when.

Nodes are artefacts, by digest; an edge runs from an input to what was made from it. The graph holds nothing but plain
sets, so that it can be built from run records, from manifests, or in a test.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field


@dataclass
class Lineage[N: Hashable]:
    """A directed acyclic graph of artefacts.

    Attributes:
        made_from: Inputs of each node.
        used_by: The other way round.
    """

    made_from: dict[N, set[N]] = field(default_factory=dict)
    used_by: dict[N, set[N]] = field(default_factory=dict)

    def add(self, node: N, inputs: Iterable[N] = ()) -> None:
        """Adds a node and where it came from; more inputs of a node that is there are added to it."""
        self.made_from.setdefault(node, set())
        self.used_by.setdefault(node, set())
        for source in inputs:
            self.add(source)
            self.made_from[node].add(source)
            self.used_by[source].add(node)

    def ancestors(self, nodes: Iterable[N]) -> set[N]:
        """Everything that the nodes were made from, directly or not; not the nodes themselves."""
        return _reach(nodes, self.made_from)

    def descendants(self, nodes: Iterable[N]) -> set[N]:
        """Everything that was made from the nodes, directly or not; not the nodes themselves."""
        return _reach(nodes, self.used_by)

    def path(self, source: N, target: N) -> list[N]:
        """A shortest way from a source to what was made from it, both included; empty where there is none."""
        return self.ways([source]).get(target, [])

    def ways(self, sources: Iterable[N]) -> dict[N, list[N]]:
        """A shortest way from any of the sources to each of them and to everything that was made from them."""
        found = {source: [source] for source in sorted(sources, key=str)}
        waiting = deque(found)
        while waiting:
            node = waiting.popleft()
            for follower in sorted(self.used_by.get(node, ()), key=str):
                if follower not in found:
                    found[follower] = [*found[node], follower]
                    waiting.append(follower)
        return found


def _reach[N: Hashable](nodes: Iterable[N], edges: Mapping[N, set[N]]) -> set[N]:
    start = set(nodes)
    waiting, found = list(start), set[N]()
    while waiting:
        for neighbour in edges.get(waiting.pop(), ()):
            if neighbour not in found:
                found.add(neighbour)
                waiting.append(neighbour)
    return found - start


@dataclass(frozen=True)
class Stale:
    """Why an artefact is stale.

    Attributes:
        since: When the first change came that it does not have, in seconds since 1970.
        causes: The changed sources, sorted.
    """

    since: float
    causes: tuple[str, ...]


def stale(lineage: Lineage[str], changed: Mapping[str, float], made: Mapping[str, float]) -> dict[str, Stale]:
    """What does not have a change of something that it was made from, however far back.

    Args:
        lineage: Names of artefacts; each stands for whatever is its version now.
        changed: When a source changed, in seconds since 1970, by name.
        made: When each artefact was made last.

    Returns:
        The stale artefacts. One that was made after a change, from artefacts that have it, is not stale because of it.
    """
    never = float("-inf")
    return overdue(
        lineage,
        {
            node: {
                source: changed[source]
                for source in sources & changed.keys()
                if changed[source] > made.get(node, never)
            }
            for node, sources in lineage.made_from.items()
        },
    )


def overdue(lineage: Lineage[str], lacking: Mapping[str, Mapping[str, float]]) -> dict[str, Stale]:
    """What lacks a change, or was made from something that does.

    Args:
        lineage: Names of artefacts.
        lacking: Of an artefact: the changes that it does not have itself, by what changed, and when they came.

    Returns:
        The stale artefacts.
    """
    found: dict[str, dict[str, float]] = {}
    for node in _ordered(lineage):
        causes = dict(lacking.get(node, {}))
        for source in lineage.made_from[node]:
            for cause, since in found.get(source, {}).items():
                causes[cause] = min(since, causes.get(cause, since))
        if causes:
            found[node] = causes
    return {node: Stale(min(causes.values()), tuple(sorted(causes))) for node, causes in found.items()}


def _ordered(lineage: Lineage[str]) -> list[str]:
    """The nodes, inputs first.

    Raises:
        ValueError: the graph has a cycle.
    """
    missing = {node: len(inputs) for node, inputs in lineage.made_from.items()}
    waiting = deque(sorted(node for node, count in missing.items() if not count))
    order = []
    while waiting:
        node = waiting.popleft()
        order.append(node)
        for follower in sorted(lineage.used_by[node]):
            missing[follower] -= 1
            if not missing[follower]:
                waiting.append(follower)
    if len(order) < len(missing):
        raise ValueError("the lineage has a cycle")
    return order
