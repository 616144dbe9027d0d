"""Generations of the world model: which there were, and what held-out episodes say about each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.withdrawal.test_reach import digest, folder, run
from world4rl.errors import DataError
from world4rl.files import write_json
from world4rl.generations.comparing import as_json, compare_generations, lines, paired_bootstrap
from world4rl.generations.history import generations
from world4rl.paths import Paths
from world4rl.provenance.episodes import EpisodeSet, MemberEpisode, write_episode_set
from world4rl.provenance.records import Chain, Record, Run
from world4rl.provenance.statement import Statement

STORE = "data/store/soccer-v3/policy"


def stored(paths: Paths, number: int, count: int, policy: int) -> str:
    members = tuple(
        MemberEpisode(
            episode=place,
            digest=digest(1000 * number + place),
            task="soccer-v3",
            length=3,
            success=True,
            split="train",
        )
        for place in range(count)
    )
    said = Statement(source="policy", policy=digest(policy))
    return write_episode_set(EpisodeSet(dataset=f"{number:016x}", statement=said, episodes=members), paths)


def add(paths: Paths, record: Record[Run], **changes: Any) -> None:
    Chain(paths.records, (Run,)).append((), record.predicate.model_copy(update=changes))


def entry(error: float, *, success: bool = True, foretold: bool = True, source: str = "policy") -> dict[str, Any]:
    errors = {"5": error, "25": None}
    return {"task": "t", "source": source, "success": success, "foretold": foretold, "open_loop_mse": errors}


def measured(paths: Paths, model: int, episodes: dict[int, dict[str, Any]]) -> None:
    write_json(paths.generation(folder(model)), {"episodes": {digest(key): value for key, value in episodes.items()}})


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """Two generations: the second from the rollouts of two policies."""
    paths = Paths(tmp_path)
    first, second = stored(paths, 1, 10, 70), stored(paths, 2, 4, 71)
    add(paths, run({}, {STORE: 1}, {STORE: (first,)}))
    trained = {"stage": "world_model", "ended": "2026-01-01T00:00:00Z"}
    add(paths, run({"data/store": digest(91)}, {"models/world_model": 11}), **trained)
    add(paths, run({}, {STORE: 2}, {STORE: (first, second)}))
    add(paths, run({"data/store": digest(92)}, {"models/world_model": 12, "reports/world_model.json": 5}), **trained)
    add(paths, run({"data/store": digest(91)}, {"models/world_model": 11}), **trained)
    return paths


def test_every_version_is_a_generation_once_with_what_it_was_made_of(paths: Paths) -> None:
    one, other = generations(paths)
    assert (one.number, one.digest, one.episodes, one.policies) == (1, folder(11), {"policy": 10}, (digest(70),))
    assert (other.number, other.digest, other.episodes) == (2, folder(12), {"policy": 14})
    assert other.policies == (digest(70), digest(71))
    assert generations(Paths(paths.root / "elsewhere")) == []


def test_generations_are_compared_on_the_episodes_that_both_know(paths: Paths) -> None:
    measured(paths, 11, {1: entry(0.4, foretold=False), 2: entry(0.2), 3: entry(9.0), 4: entry(0.3, success=False)})
    measured(paths, 12, {1: entry(0.2), 2: entry(0.1), 4: entry(0.3, success=False), 5: entry(7.0)})
    first, second = compare_generations(paths, 0.95)
    assert (first.episodes, first.shared, first.changes) == (4, 0, {})
    assert (second.episodes, second.shared) == (4, 3)
    error = second.changes["open_loop_mse 5"]
    assert (error.episodes, error.before, error.now) == (3, pytest.approx(0.3), pytest.approx(0.2))
    assert error.interval is not None
    assert -0.2001 < error.interval[0] < error.difference < error.interval[1] < 0.0001
    recall = second.changes["policy_success_recall"]
    assert (recall.episodes, recall.before, recall.now) == (2, 0.5, 1.0)
    assert "open_loop_mse 25" not in second.changes, "no episode is that long"
    assert second.changes["policy_failure_recall"].interval is None, "one episode has no spread"
    text = "\n".join(lines([first, second]))
    assert "3 of them as the generation before" in text
    assert as_json([first, second])[1]["shared_with_previous"] == 3


def test_a_generation_of_which_nothing_was_kept_is_said_to_be_so(paths: Paths) -> None:
    measured(paths, 12, {1: entry(0.1)})
    first, second = compare_generations(paths, 0.95)
    assert first.episodes is None
    assert (second.episodes, second.changes) == (1, {})
    assert "nothing of it was kept" in "\n".join(lines([first]))
    paths.generation(folder(12)).write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        compare_generations(paths, 0.95)


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=20))
def test_the_interval_lies_within_the_differences_and_around_nothing_where_they_are_equal(values: list[float]) -> None:
    low, high = paired_bootstrap(np.array(values), 0.9)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
    same = paired_bootstrap(np.full(5, values[0]), 0.9)
    assert same == (pytest.approx(values[0]), pytest.approx(values[0]))


def test_the_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        low, high = paired_bootstrap(rng.normal(0.3, 1.0, 60), 0.9)
        covered += low <= 0.3 <= high
    assert 0.83 <= covered / 200 <= 0.96
