"""What was made from what: inputs matched with earlier outputs; reach and staleness against brute force."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.audit.conftest import run_of
from world4rl.audit.book import Book
from world4rl.audit.stale import find_stale
from world4rl.audit.versions import Version, history_of
from world4rl.provenance.digests import digest_files
from world4rl.provenance.records import Run

A, B, C, D = (letter * 64 for letter in "abcd")
Make = Callable[[Sequence[Run]], Book]
SIZE = 6


@st.composite
def histories(draw: st.DrawFn) -> list[Run]:
    """Runs of six artefacts, each made from some of those before it, in an order and with contents that are drawn.

    Contents are few, so that a run often makes again what is there, or what was there before.
    """
    pairs = draw(st.sets(st.tuples(st.integers(0, SIZE - 1), st.integers(0, SIZE - 1)).filter(lambda p: p[0] < p[1])))
    runs: list[Run] = []
    now: dict[int, str] = {}
    order = draw(st.lists(st.tuples(st.integers(0, SIZE - 1), st.sampled_from("abc")), min_size=1, max_size=14))
    for minute, (node, letter) in enumerate(order):
        inputs = {f"models/n{one}": now[one] for one, other in sorted(pairs) if other == node and one in now}
        now[node] = letter * 64
        runs.append(run_of(f"n{node}", inputs, {f"models/n{node}": now[node]}, minute))
    return runs


def outputs(run: Run) -> list[tuple[str, str]]:
    return [(one.name, one.sha256) for one in run.outputs]


def inputs(run: Run) -> list[tuple[str, str]]:
    return [(one.name, one.sha256) for one in run.inputs]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(runs=histories())
def test_reach_is_that_of_brute_force(book_of: Make, runs: list[Run]) -> None:
    lineage = history_of(book_of(runs)).lineage
    edges = {(a, b) for run in runs for a in inputs(run) for b in outputs(run) if a != b}
    while True:
        wider = edges | {(a, d) for a, b in edges for c, d in edges if b == c}
        if wider == edges:
            break
        edges = wider
    for node in {node for run in runs for node in outputs(run)}:
        assert {(v.path, v.digest) for v in lineage.descendants([Version(*node)])} == {
            b for a, b in edges if a == node
        } - {node}
        assert {(v.path, v.digest) for v in lineage.ancestors([Version(*node)])} == {
            a for a, b in edges if b == node
        } - {node}


def stale_by_brute_force(runs: list[Run]) -> dict[str, tuple[float, set[str]]]:
    """Replays time: an input is others since the last moment at which it became so and stayed so."""
    newest = {path: run for run in runs for path, _ in outputs(run)}
    now = {path: digest for run in runs for path, digest in outputs(run)}

    def lacks(path: str) -> dict[str, float]:
        causes: dict[str, float] = {}
        run = newest[path]
        for name, digest in inputs(run):
            if now[name] != digest:
                since = None
                for later in runs[runs.index(run) + 1 :]:
                    for other, content in outputs(later):
                        if other == name:
                            since = (
                                None if content == digest else since or datetime.fromisoformat(later.ended).timestamp()
                            )
                assert since is not None
                causes[name] = min(since, causes.get(name, since))
            for cause, since in lacks(name).items():
                causes[cause] = min(since, causes.get(cause, since))
        return causes

    return {path: (min(c.values()), set(c)) for path in newest if (c := lacks(path))}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(runs=histories())
def test_stale_is_that_of_brute_force(book_of: Make, runs: list[Run]) -> None:
    book = book_of(runs)
    found = find_stale(book, history_of(book))
    assert {path: (one.since, set(one.causes)) for path, one in found.items()} == stale_by_brute_force(runs)


def test_a_path_that_was_made_twice_is_two_versions(book_of: Make) -> None:
    runs = [run_of("s", {}, {"models/m": A}, 0), run_of("t", {"models/m": A}, {"models/n": C}, 1)]
    history = history_of(book_of([*runs, run_of("s", {}, {"models/m": B}, 2)]))
    assert history.versions["models/m"] == [Version("models/m", A), Version("models/m", B)]
    assert history.current["models/m"] == Version("models/m", B)
    assert history.lineage.descendants([Version("models/m", A)]) == {Version("models/n", C)}
    assert history.lineage.descendants([Version("models/m", B)]) == set()


def test_a_folder_of_several_outputs_is_known_by_its_digest(book_of: Make) -> None:
    together = digest_files({"x": A, "y": B})
    runs = [
        run_of("x", {}, {"data/x": A}, 0),
        run_of("y", {}, {"data/y": B}, 1),
        run_of("m", {"data": together}, {"models/m": C}, 2),
    ]
    (link,) = history_of(book_of(runs)).links[2]
    assert link.proven
    assert set(link.versions) == {Version("data/x", A), Version("data/y", B)}


def test_a_folder_that_fits_nothing_counts_as_all_that_may_have_lain_there(book_of: Make) -> None:
    runs = [
        run_of("x", {}, {"data/x": A}, 0),
        run_of("x", {}, {"data/x": B}, 1),
        run_of("m", {"data": D}, {"models/m": C}, 2),
        run_of("x", {}, {"data/x": C}, 3),
    ]
    history = history_of(book_of(runs))
    (link,) = history.links[2]
    assert not link.proven
    assert history.lineage.ancestors([Version("models/m", C)]) == {Version("data/x", A), Version("data/x", B)}


def test_the_folders_of_a_task_that_the_parameters_lost_may_be_gone(book_of: Make) -> None:
    runs = [
        run_of("x@old", {}, {"data/old/x": A}, 0),
        run_of("x@new", {}, {"data/new/x": B}, 1),
        run_of("m", {"data": digest_files({"new/x": B})}, {"models/m": C}, 2, parameters={"tasks": ["new"]}),
    ]
    (link,) = history_of(book_of(runs)).links[2]
    assert link.proven
    assert link.versions == (Version("data/new/x", B),)


def test_an_input_that_no_run_made_may_be_a_change_of_what_one_made(book_of: Make) -> None:
    runs = [run_of("x", {}, {"models/x": A}, 0), run_of("m", {"models/x": B}, {"models/m": C}, 1)]
    (link,) = history_of(book_of(runs)).links[1]
    assert not link.proven
    assert Version("models/x", A) in link.versions


def test_a_source_is_what_it_was_read_as(book_of: Make) -> None:
    (link,) = history_of(book_of([run_of("m", {"data/manifests/t.json": A}, {"models/m": C}, 0)])).links[0]
    assert link.proven
    assert link.versions == (Version("data/manifests/t.json", A),)


def test_the_generations_hang_together_by_the_policies_that_acted(read) -> None:
    _, history = read
    first, second, third = history.versions["models/world_model"]
    assert second in history.lineage.descendants([first])
    assert third in history.lineage.descendants([second])
