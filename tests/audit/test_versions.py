"""What was made from what: inputs matched with earlier outputs; reach and staleness against brute force."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.audit.conftest import run_of
from world4rl.audit.book import Book
from world4rl.audit.stale import find_stale
from world4rl.audit.versions import Making, Version, history_of
from world4rl.provenance.digests import digest_files
from world4rl.provenance.episodes import EpisodeSet
from world4rl.provenance.records import Run
from world4rl.provenance.statement import Statement

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


def versions(makings: Iterable[Making]) -> set[Version]:
    return {one.version for one in makings}


def inputs(run: Run) -> list[tuple[str, str]]:
    return [(one.name, one.sha256) for one in run.inputs]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(runs=histories())
def test_reach_is_that_of_brute_force(book_of: Make, runs: list[Run]) -> None:
    history = history_of(book_of(runs))
    edges = set[tuple[Making, Making]]()
    for number, run in enumerate(runs):
        for each in inputs(run):
            found = [earlier for earlier in range(number) if each in outputs(runs[earlier])][-1]
            edges |= {(Making(Version(*each), found), Making(Version(*made), number)) for made in outputs(run)}
    while True:
        wider = edges | {(a, d) for a, b in edges for c, d in edges if b == c}
        if wider == edges:
            break
        edges = wider
    nodes = {Making(Version(*made), number) for number, run in enumerate(runs) for made in outputs(run)}
    for node in nodes:
        assert history.lineage.descendants([node]) == {b for a, b in edges if a == node}
        assert history.lineage.ancestors([node]) == {a for a, b in edges if b == node}
    for version in {node.version for node in nodes}:
        mine = {node for node in nodes if node.version == version}
        assert history.makings([version]) == mine
        assert history.beyond([version]) == mine | {b for a, b in edges if a in mine}
        assert history.behind([version]) == mine | {a for a, b in edges if b in mine}


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
    assert versions(history.beyond([Version("models/m", A)])) == {Version("models/m", A), Version("models/n", C)}
    assert versions(history.beyond([Version("models/m", B)])) == {Version("models/m", B)}


def test_a_source_that_changed_no_byte_reaches_only_what_was_made_afterwards(book_of: Make) -> None:
    """A store that a new operator's data leave as it was: what had been trained on it has seen nothing of theirs."""
    store, early, late, ada = (
        Version(f"data/{name}", digest) for name, digest in (("store", A), ("early", B), ("late", C), ("ada", D))
    )
    book = book_of(
        [
            run_of("store", {}, {store.path: store.digest}, 0),
            run_of("early", {store.path: store.digest}, {early.path: early.digest}, 1),
            run_of("ada", {}, {ada.path: ada.digest}, 2),
            run_of("store", {ada.path: ada.digest}, {store.path: store.digest}, 3),
            run_of("late", {store.path: store.digest}, {late.path: late.digest}, 4),
        ]
    )
    history = history_of(book)
    assert versions(history.beyond([ada])) == {ada, store, late}
    assert versions(history.behind([early])) == {early, store}
    assert versions(history.behind([late])) == {late, store, ada}
    assert Making(store, 0) not in history.beyond([ada])


def test_a_record_that_comes_late_loses_no_way(book_of: Make) -> None:
    """Plain `dvc repro` made m from x; n was recorded by Dagster before somebody called `world4rl record`."""
    book = book_of(
        [
            run_of("x", {}, {"data/x": A}, 0),
            run_of("n", {"models/m": B}, {"models/n": C}, 2),
            run_of("m", {"data/x": A}, {"models/m": B}, 1),
        ]
    )
    x, m, n = Version("data/x", A), Version("models/m", B), Version("models/n", C)
    history = history_of(book)
    assert versions(history.beyond([x])) == {x, m, n}
    assert versions(history.behind([n])) == {x, m, n}


def test_a_policy_whose_record_comes_late_loses_no_way(book_of: Make) -> None:
    """Its rollouts were made by it, though they came on record before it did."""
    acted = EpisodeSet(dataset="d", statement=Statement(source="policy", policy=B), episodes=())
    runs = [
        run_of("bc", {}, {"models/bc": A}, 0),
        run_of("store", {}, {"data/store": C}, 2, episodes={"data/store": (acted.digest,)}),
        run_of("refined", {"models/bc": A}, {"models/refined": B}, 1),
    ]
    history = history_of(replace(book_of(runs), sets={acted.digest: acted}))
    reached = {("models/bc", A), ("models/refined", B), ("data/store", C)}
    assert {(one.path, one.digest) for one in versions(history.beyond([Version("models/bc", A)]))} == reached


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
    assert history.behind([Version("models/m", C)]) - history.makings([Version("models/m", C)]) == {
        Making(Version("data/x", A), 0),
        Making(Version("data/x", B), 1),
    }


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
    assert second in versions(history.beyond([first]))
    assert third in versions(history.beyond([second]))
