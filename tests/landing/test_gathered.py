"""What waits for a training, and whether it is enough."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.landing.conftest import TASK
from world4rl.config import Retraining
from world4rl.landing.gathered import HOUR, Gathered, due, gather
from world4rl.landing.inbox import Arrival
from world4rl.landing.ledger import Ledger
from world4rl.paths import ROLES, Paths
from world4rl.provenance.digests import digest_bytes
from world4rl.provenance.manifests import Acceptance, LandedEpisode, build_manifest
from world4rl.provenance.statement import Statement

RULES = Retraining(episodes=5, hours=10.0)
NOTHING: dict[Any, None] = dict.fromkeys(ROLES)


def acceptance(name: str, episodes: Sequence[int] = (0,), role: Any = "expert") -> Acceptance:
    digest = digest_bytes(name.encode())
    members = tuple(
        LandedEpisode(episode=n, task=TASK, length=9, success=True, digest=digest_bytes(f"{name}/{n}".encode()))
        for n in episodes
    )
    return Acceptance(id=digest[:16], name=name, digest=digest, statement=Statement(source=role), episodes=members)


def accept(ledger: Ledger, name: str, at: float) -> None:
    digest = digest_bytes(name.encode())
    ledger.observe([Arrival(name, "marker", False, f"{digest}{at}")], [], now=at, quiet_seconds=0)
    entry = ledger.claim(name, "run", at)
    assert entry is not None
    ledger.settle(entry, "accepted", at, digest=digest, detail={"why": "good"})


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path)


@pytest.fixture
def ledger(paths: Paths) -> Ledger:
    return Ledger(paths.ledger)


def make(**values: Any) -> Gathered:
    return Gathered(
        **{"task": TASK, "version": "v", "added": {}, "removed": 0, "datasets": (), "oldest": None, "judged": True}
        | values
    )


@pytest.mark.parametrize(
    ("values", "now", "expected"),
    [
        ({}, False, f"{TASK}: nothing new"),
        ({"added": {"evaluation": 9}}, True, f"9 episodes of {TASK} to evaluate"),
        ({"added": {"evaluation": 9}, "judged": False}, False, f"{TASK}: 9 episodes for evaluation, and no policy yet"),
        ({"added": {"expert": 3}, "oldest": -2 * HOUR}, False, f"3 of 5 episodes of {TASK} gathered, the oldest 2 h"),
        ({"added": {"expert": 5}, "oldest": 0.0}, True, f"5 episodes of {TASK} gathered, 5 are enough"),
        ({"added": {"expert": 3, "random": 2}, "oldest": 0.0}, True, "5 episodes of"),
        ({"added": {"expert": 4, "evaluation": 9}, "oldest": 0.0}, False, "4 of 5"),
        (
            {"added": {"expert": 1}, "oldest": -10 * HOUR},
            True,
            f"1 episode of {TASK} waited for 10 h 0 min, at most 10",
        ),
        ({"removed": 1}, True, f"1 episode of {TASK} withdrawn"),
        ({"added": {"expert": 1}, "oldest": 99 * HOUR}, False, "the oldest 0.0 s of 10 h ago"),
    ],
)
def test_when_it_is_enough(values: dict[str, Any], now: bool, expected: str) -> None:
    verdict = due(make(**values), RULES, 0.0)
    assert verdict.now is now
    assert expected in verdict.why


def test_the_oldest_counts_and_only_what_is_trained_on(paths: Paths, ledger: Ledger) -> None:
    for name, at in (("first", 100.0), ("second", 200.0), ("trials", 50.0)):
        accept(ledger, name, at)
    records = [acceptance("first"), acceptance("second"), acceptance("trials", role="evaluation")]
    found = gather(build_manifest(TASK, records), NOTHING, ledger, paths)
    assert (found.episodes, found.oldest) == (2, 100.0)
    assert str(found) == "+2 episodes (expert), +1 episode (evaluation)"


def test_what_was_released_later_waits_since_then(paths: Paths, ledger: Ledger) -> None:
    accept(ledger, "mine", 100.0)
    before = build_manifest(TASK, [acceptance("mine", (0,))]).roles
    accept(ledger, "mine", 500.0)
    found = gather(build_manifest(TASK, [acceptance("mine", (0, 1))]), dict(before), ledger, paths)
    assert (found.episodes, found.oldest) == (1, 500.0)


def test_without_its_ledger_the_time_of_the_record_counts(paths: Paths, ledger: Ledger) -> None:
    record = acceptance("mine")
    file = paths.accepted / f"{record.id}.json"
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    found = gather(build_manifest(TASK, [record]), NOTHING, ledger, paths)
    assert found.oldest == pytest.approx(file.stat().st_mtime)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    events=st.lists(
        st.one_of(
            st.tuples(st.just("accept"), st.sampled_from(ROLES), st.integers(1, 4)),
            st.tuples(st.just("withdraw"), st.integers(0, 9), st.just(0)),
            st.tuples(st.just("take up"), st.just(0), st.just(0)),
        ),
        max_size=14,
    )
)
def test_every_episode_waits_from_its_acceptance_until_it_is_taken_up_and_is_counted_once(
    paths: Paths, ledger: Ledger, events: list[tuple[str, Any, int]]
) -> None:
    records: list[Acceptance] = []
    taken = dict(NOTHING)
    waiting, gone = dict[str, str](), set[str]()  # by episode: its role; trained on and withdrawn since
    known: dict[str, str] = {}
    for number, (kind, what, count) in enumerate(events):
        if kind == "accept":
            records.append(acceptance(f"dataset-{number}", range(count), what))
            waiting |= {episode.digest: what for episode in records[-1].episodes}
        elif kind == "withdraw" and records:
            for episode in records.pop(what % len(records)).episodes:
                if waiting.pop(episode.digest, None) is None:
                    gone.add(episode.digest)
        elif kind == "take up":
            taken = dict(build_manifest(TASK, records).roles)
            known |= waiting
            waiting, gone = {}, set()
        found = gather(build_manifest(TASK, records), taken, ledger, paths)
        assert sum(found.added.values()) == len(waiting)
        assert found.episodes == sum(role != "evaluation" for role in waiting.values())
        assert found.removed == len(gone)
