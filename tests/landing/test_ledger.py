"""The book: transactions, events that stay, a look that does nothing when there is nothing to do."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.landing.conftest import Site
from world4rl.errors import DataError
from world4rl.landing.inbox import Arrival
from world4rl.landing.ledger import BACK_OFF, SETTLED, Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite")


def ready(ledger: Ledger, name: str, fingerprint: str = "f" * 64) -> None:
    ledger.observe([Arrival(name, "marker", False, fingerprint)], [], now=0.0, quiet_seconds=10.0)


def test_events_can_neither_be_changed_nor_removed(ledger: Ledger) -> None:
    ready(ledger, "a")
    database = sqlite3.connect(ledger.path)
    for statement in ("UPDATE events SET detail = '{}'", "DELETE FROM events"):
        with pytest.raises(sqlite3.IntegrityError, match="events are never"):
            database.execute(statement)
    assert [event.state for event in ledger.events("a")] == ["waiting", "ready"]


def test_a_full_disk_is_called_that_and_loses_nothing(ledger: Ledger) -> None:
    ready(ledger, "a")
    (pages,) = ledger._db.execute("PRAGMA page_count").fetchone()
    ledger._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(DataError, match="full") as caught:
        for number in range(1000):
            ready(ledger, f"another-{number}" * 20)
    assert caught.value.remedy == "free some space"
    ledger._db.execute(f"PRAGMA max_page_count = {10 * pages}")
    assert ledger.claim("a", "one", 1.0) is not None


def test_what_one_process_claims_another_cannot(ledger: Ledger) -> None:
    ready(ledger, "a")
    other = Ledger(ledger.path)
    assert other.claim("a", "one", 1.0) is not None
    assert ledger.claim("a", "two", 1.0) is None
    assert ledger.claim("a", "one", 1.0) is not None, "the same run may ask again"


def test_attempts_come_at_growing_distances(ledger: Ledger) -> None:
    ready(ledger, "a")
    now, waits = 0.0, []
    for attempt in range(len(BACK_OFF) + 2):
        (entry,) = ledger.due(now)
        assert entry.attempts == attempt
        assert ledger.claim("a", f"run-{attempt}", now) is not None
        ledger.give_back("a", now, "it died")
        assert ledger.due(now) == []
        waits.append(ledger.entries()["a"].not_before - now)
        now += waits[-1]
    assert waits == [*BACK_OFF, BACK_OFF[-1], BACK_OFF[-1]]


def test_a_failed_transaction_leaves_nothing(ledger: Ledger) -> None:
    ready(ledger, "a")
    entry = ledger.claim("a", "run", 1.0)
    assert entry is not None
    with pytest.raises(KeyError):
        ledger.settle(entry, "refused", 2.0, digest="d" * 64, detail={}, quarantined=[{"episode": 1}])
    assert ledger.entries()["a"].state == "taking"
    assert ledger.entries()["a"].digest is None
    assert ledger.quarantined() == []


def test_a_file_that_is_no_ledger_is_named(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_text("something else, and long enough to be taken for a header of SQLite")
    with pytest.raises(DataError, match="the ledger cannot be used") as caught:
        Ledger(tmp_path / "ledger.sqlite")
    assert str(tmp_path / "ledger.sqlite") in str(caught.value)


def test_a_book_from_before_goes_on_and_its_refused_datasets_wait_for_a_change(ledger: Ledger) -> None:
    ready(ledger, "a")
    entry = ledger.claim("a", "run", 1.0)
    assert entry is not None
    ledger.settle(entry, "refused", 2.0, digest="d" * 64, detail={})
    ledger.close()
    database = sqlite3.connect(ledger.path)
    database.execute("ALTER TABLE arrivals DROP COLUMN read_by")
    database.close()
    for again in (Ledger(ledger.path), Ledger(ledger.path)):
        again.retry_refused("now", 3.0)
        assert again.due(3.0) == [], "nobody knows by what it was read: the next change counts"
    again.retry_refused("then", 4.0)
    assert [entry.name for entry in again.due(4.0)] == ["a"]


steps = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from(["see", "change", "go", "take", "die", "settle", "wait"])),
    max_size=40,
)


@settings(deadline=None, max_examples=60)
@given(steps=steps)
def test_whatever_happens_no_dataset_is_taken_twice_at_once_or_forgotten(
    steps: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A random history against a model of what the states mean."""
    ledger = Ledger(tmp_path_factory.mktemp("history") / "ledger.sqlite")
    content, present, held, handled = {"a": 0, "b": 0}, {"a": False, "b": False}, {}, set()
    now = 0.0
    for name, step in steps:
        now += 1.0
        if step in ("see", "change"):
            present[name] = True
            content[name] += step == "change"
        elif step == "go":
            present[name] = False
        elif step == "wait":
            now += 5000.0
        elif step == "take":
            entry = ledger.claim(name, f"run-{now}", now)
            assert entry is None or name not in held, "two runs have it"
            if entry is not None:
                held[name] = entry
        elif step == "die" and name in held:
            held.pop(name)
            ledger.give_back(name, now, "it died")
        elif step == "settle" and name in held:
            entry = held.pop(name)
            ledger.settle(entry, "accepted", now, digest=entry.fingerprint, detail={})
            handled.add((name, entry.fingerprint))
        arrivals = [Arrival(n, "marker", False, f"{content[n]:064x}") for n in "ab" if present[n]]
        ledger.observe(arrivals, [n for n in "ab" if not present[n]], now=now, quiet_seconds=10.0)
    for name in "ab":
        if present[name] and name not in held:
            entry = ledger.entries()[name]
            current = (name, f"{content[name]:064x}")
            assert entry.fingerprint == current[1]
            assert entry.state in ("ready", *SETTLED)
            assert entry.state == "ready" or current in handled, "it is settled, but nobody took this content"


def test_a_look_with_nothing_to_do_is_cheap_and_writes_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand settled datasets: the bound is of work, not of time, so that a slow machine passes too."""
    for number in range(300):
        (site.folder / f"set-{number:05}" / "meta").mkdir(parents=True)
        (site.folder / f"set-{number:05}" / "_COMPLETE").write_text("{}")
    site.look()
    for number in range(300):
        entry = site.ledger.claim(f"set-{number:05}", "run", site.now)
        assert entry is not None
        site.ledger.settle(entry, "accepted", site.now, digest="0" * 64, detail={})
    before = len(site.ledger.events())
    looked: list[str] = []
    original = site.inbox.look

    def look(name: str) -> Arrival | None:
        looked.append(name)
        return original(name)

    monkeypatch.setattr(site.inbox, "look", look)
    for _ in range(3):
        assert site.look(30).due == []
    assert len(site.ledger.events()) == before
    assert len(looked) == 200 + 100 + 200, "settled datasets are examined in turn"
    assert set(looked) == {f"set-{number:05}" for number in range(300)}
    (site.folder / "set-00299" / "_COMPLETE").write_text('{"changed": true}')
    site.look(30)
    assert site.state("set-00299") in ("ready", "accepted")
    site.look(30)
    assert site.state("set-00299") == "ready", "at the latest when its turn comes"
