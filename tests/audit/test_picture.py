"""The picture: no two boxes overlap, every line ends at its boxes and crosses none, and it says what happened."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.lineage import MadeUp
from tests.audit.conftest import TASKS, open_book
from world4rl.audit.picture import (
    BOX_HEIGHT,
    BOX_WIDTH,
    Box,
    Layout,
    Node,
    draw,
    lay_out,
    nodes_of,
    reduced,
    render,
    run_lineage,
)
from world4rl.provenance.graph import Lineage

STEPS = ("store", "clone", "model", "refine", "judge")


def node(run: int, step: str, task: str | None, generation: int) -> Node:
    return Node(run, step, task, generation, "current", "0" * 8, "", "")


@st.composite
def drawings(draw: st.DrawFn) -> tuple[list[Node], Lineage[int]]:
    """Up to forty runs of five steps, for three tasks or for all, in whichever order, made from any earlier ones."""
    kinds = draw(st.lists(st.tuples(st.sampled_from(STEPS), st.sampled_from("abc"), st.integers(1, 4)), max_size=40))
    lineage = Lineage[int]()
    nodes = []
    for run, (step, task, generation) in enumerate(kinds):
        nodes.append(node(run, step, None if step == "model" else task, generation))
        lineage.add(run, draw(st.sets(st.integers(0, run - 1), max_size=3)) if run else ())
    return nodes, lineage


def check(layout: Layout) -> None:
    for one, other in itertools.combinations(layout.boxes.values(), 2):
        assert apart(one, other), (one, other)
    for box in layout.boxes.values():
        assert 0 <= box.x <= layout.width - BOX_WIDTH
        assert 0 <= box.y <= layout.height - BOX_HEIGHT
    for line in layout.lines:
        assert line.points[0] == layout.boxes[line.source].right
        assert line.points[-1] == layout.boxes[line.target].left
        for (x0, y0), (x1, y1) in itertools.pairwise(line.points):
            assert x0 == x1 or y0 == y1
            assert all(misses(box, sorted((x0, x1)), sorted((y0, y1))) for box in layout.boxes.values())


def apart(one: Box, other: Box) -> bool:
    return abs(one.x - other.x) >= BOX_WIDTH or abs(one.y - other.y) >= BOX_HEIGHT


def misses(box: Box, xs: list[float], ys: list[float]) -> bool:
    """Whether a line does not enter a box; it may touch its border."""
    return xs[1] <= box.x or xs[0] >= box.x + BOX_WIDTH or ys[1] <= box.y or ys[0] >= box.y + BOX_HEIGHT


@settings(max_examples=150)
@given(drawing=drawings())
def test_boxes_lie_apart_and_lines_end_at_them(drawing: tuple[list[Node], Lineage[int]]) -> None:
    check(lay_out(*drawing))


@settings(max_examples=150)
@given(drawing=drawings())
def test_what_is_left_out_follows_from_what_is_drawn(drawing: tuple[list[Node], Lineage[int]]) -> None:
    nodes, lineage = drawing
    drawn = Lineage[int]()
    for source, target in reduced(lineage, {one.run for one in nodes}):
        drawn.add(target, [source])
    for one in nodes:
        assert drawn.descendants([one.run]) == lineage.descendants([one.run])
    for source, target in reduced(lineage, {one.run for one in nodes}):
        others = lineage.made_from[target] - {source}
        assert source not in lineage.ancestors(others), "and nothing that is drawn follows from the rest"


def test_lines_of_different_bundles_share_no_track(read) -> None:
    book, history = read
    layout = lay_out(nodes_of(book, history, set()), run_lineage(history))
    upright = {
        (x0, tuple(sorted((y0, y1))), line.source, line.target)
        for line in layout.lines
        for (x0, y0), (x1, y1) in itertools.pairwise(line.points)
        if x0 == x1 and y0 != y1
    }
    for (x, (low, high), *ends), (other, (least, most), *others) in itertools.combinations(upright, 2):
        if x == other and low < most and least < high:
            assert set(ends) & set(others), "only lines from or to the same box run together"


def test_three_generations_are_told_apart(read) -> None:
    book, history = read
    nodes = nodes_of(book, history, set())
    shared = [one for one in nodes if one.step == "world_model"]
    assert [(one.generation, one.state) for one in shared] == [(1, "superseded"), (2, "superseded"), (3, "current")]
    refined = [one for one in nodes if (one.step, one.task) == ("refined", TASKS[0])]
    assert [one.generation for one in refined] == [1, 2, 3]
    assert [one.marks for one in refined] == ["", "", "★ ⚑1"]
    layout = lay_out(nodes, run_lineage(history))
    check(layout)
    assert len({layout.boxes[one.run].y for one in shared}) == 3
    assert [name for name, _, _ in layout.rows] == ["all tasks", *sorted(TASKS)]
    steps = [step for names, _ in layout.columns for step in names]
    for before, after in itertools.pairwise(("demo_store", "bc", "rollout_store", "world_model", "refined", "report")):
        assert steps.index(before) < steps.index(after)
    assert any(line.back for line in layout.lines), "rollouts of the refined policy go back to the data"


def test_only_the_newest_generations_are_drawn(read) -> None:
    book, history = read
    layout = lay_out(nodes_of(book, history, set()), run_lineage(history), generations=1)
    check(layout)
    assert layout.left_out == 2
    assert {box.node.generation for box in layout.boxes.values()} == {3}


def test_states_are_those_of_the_records(copy: MadeUp) -> None:
    task = TASKS[0]
    landed = next(one for one in open_book(copy.paths.root)[0].acceptances if one.name == "dataset_0")
    copy.withdraw([landed.episodes[0].digest])
    book, history = open_book(copy.paths.root)
    states = {(one.step, one.task): one.state for one in nodes_of(book, history, {f"models/{TASKS[1]}/bc"})}
    assert states["bc", task] == states["world_model", None] == "withdrawn"
    assert states["bc", TASKS[1]] == "stale"
    assert states["demo_store", TASKS[1]] == "current"


@pytest.mark.parametrize("empty", [True, False])
def test_the_drawing_is_whole_and_names_nothing_outside(read, empty: bool) -> None:
    book, history = read
    svg = render(lay_out([], Lineage[int]())) if empty else draw(book, history, set())
    assert svg.startswith("<svg")
    assert svg.endswith("</svg>")
    assert svg.count('<g class="box') == (0 if empty else len(book.runs))
    assert not re.search(r"https?://|<script|nan", svg)
