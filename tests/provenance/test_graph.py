"""Reach and staleness against brute force on random graphs."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from world4rl.provenance.graph import Lineage, Stale, overdue, stale

SIZE = 9


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, set[str]]:
    """Inputs of each node; edges run from lower to higher numbers, so there is no cycle."""
    pairs = draw(st.sets(st.sampled_from(list(itertools.combinations(range(SIZE), 2)))))
    return {f"n{node}": {f"n{source}" for source, target in pairs if target == node} for node in range(SIZE)}


def build(inputs: dict[str, set[str]], order: list[str]) -> Lineage[str]:
    lineage = Lineage[str]()
    for node in order:
        lineage.add(node, inputs[node])
    return lineage


def closure(inputs: dict[str, set[str]]) -> dict[str, set[str]]:
    """Everything that each node was made from, by adding until nothing is new."""
    found = {node: set(sources) for node, sources in inputs.items()}
    while True:
        wider = {node: sources.union(*(found[s] for s in sources)) for node, sources in found.items()}
        if wider == found:
            return found
        found = wider


@given(inputs=graphs(), data=st.data())
def test_reach_is_that_of_brute_force(inputs: dict[str, set[str]], data: st.DataObject) -> None:
    lineage = build(inputs, data.draw(st.permutations(sorted(inputs))))
    made_from = closure(inputs)
    for node in inputs:
        assert lineage.ancestors([node]) == made_from[node]
        assert lineage.descendants([node]) == {other for other in inputs if node in made_from[other]}
    two = data.draw(st.lists(st.sampled_from(sorted(inputs)), min_size=2, max_size=2, unique=True))
    assert lineage.ancestors(two) == set.union(*(made_from[node] for node in two)) - set(two)


@given(inputs=graphs(), data=st.data())
def test_a_path_is_a_shortest_one(inputs: dict[str, set[str]], data: st.DataObject) -> None:
    lineage = build(inputs, sorted(inputs))
    source, target = (data.draw(st.sampled_from(sorted(inputs))) for _ in range(2))
    way = lineage.path(source, target)
    lengths = {source: 0}
    for _ in range(SIZE):
        for node, sources in inputs.items():
            for known in sources & lengths.keys():
                lengths[node] = min(lengths.get(node, SIZE), lengths[known] + 1)
    if target not in lengths:
        assert way == []
        return
    assert len(way) == lengths[target] + 1
    assert (way[0], way[-1]) == (source, target)
    assert all(one in inputs[other] for one, other in itertools.pairwise(way))


@settings(max_examples=200)
@given(inputs=graphs(), data=st.data())
def test_stale_is_what_lacks_a_change_by_brute_force(inputs: dict[str, set[str]], data: st.DataObject) -> None:
    """A node lacks a change if any walk from the changed source to it meets a node made before the change came."""
    times = st.floats(0, 10, allow_nan=False)
    changed = data.draw(st.dictionaries(st.sampled_from(sorted(inputs)), times, max_size=3))
    made = data.draw(st.dictionaries(st.sampled_from(sorted(inputs)), times))

    def lacks(node: str) -> dict[str, float]:
        causes: dict[str, float] = {}
        for source in inputs[node]:
            if source in changed and changed[source] > made.get(node, float("-inf")):
                causes[source] = changed[source]
            causes |= lacks(source)
        return causes

    expected = {node: lacks(node) for node in inputs}
    assert stale(build(inputs, sorted(inputs)), changed, made) == {
        node: Stale(min(causes.values()), tuple(sorted(causes))) for node, causes in expected.items() if causes
    }


@given(inputs=graphs(), data=st.data())
def test_ways_lead_from_the_nearest_source_to_all_that_is_reached(
    inputs: dict[str, set[str]], data: st.DataObject
) -> None:
    lineage = build(inputs, sorted(inputs))
    sources = data.draw(st.sets(st.sampled_from(sorted(inputs)), min_size=1))
    ways = lineage.ways(sources)
    assert ways.keys() == lineage.descendants(sources) | sources
    for target, way in ways.items():
        assert way[0] in sources
        assert way[-1] == target
        assert len(way) == min(len(found) for source in sources if (found := lineage.path(source, target)))


def test_what_an_artefact_lacks_is_lacking_in_all_that_was_made_from_it() -> None:
    lineage = build({"a": set(), "b": {"a"}, "c": {"b"}, "d": set()}, ["a", "b", "c", "d"])
    found = overdue(lineage, {"b": {"a": 5.0, "code": 7.0}, "c": {"code": 3.0}})
    assert found == {"b": Stale(5.0, ("a", "code")), "c": Stale(3.0, ("a", "code"))}


def test_a_cycle_is_an_error() -> None:
    lineage = Lineage[str]()
    lineage.add("a", ["b"])
    lineage.add("b", ["a"])
    with pytest.raises(ValueError, match="cycle"):
        stale(lineage, {}, {})
