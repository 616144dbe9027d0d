from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from world4rl.demos.seeds import episode_seeds, refresh_seeds
from world4rl.errors import ConfigError

STREAMS = list(product(("expert", "policy", "random", "evaluation"), ("train", "validation", "test")))


@given(st.integers(0, 2**40), st.sampled_from(["button-press-topdown-v3", "handle-press-v3"]))
def test_no_two_sources_share_a_seed(run_seed: int, task: str) -> None:
    seeds = [seed for source, split in STREAMS for seed in episode_seeds(run_seed, task, source, split, 100)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_no_overlap_even_at_full_length() -> None:
    seeds = [seed for source, split in STREAMS for seed in episode_seeds(0, "soccer-v3", source, split, 2**14)]
    assert len(set(seeds)) == len(STREAMS) * 2**14


def test_a_longer_list_begins_with_the_shorter_one() -> None:
    assert (
        episode_seeds(1, "soccer-v3", "expert", "train", 5) == episode_seeds(1, "soccer-v3", "expert", "train", 9)[:5]
    )


def test_runs_and_tasks_differ() -> None:
    firsts = {
        episode_seeds(run, task, "expert", "train", 1)[0] for run in range(5) for task in ("soccer-v3", "hammer-v3")
    }
    assert len(firsts) == 10


def test_too_many_episodes_are_refused() -> None:
    with pytest.raises(ConfigError, match="16384 seeds"):
        episode_seeds(0, "soccer-v3", "policy", "train", 2**14 + 1)


def test_no_generation_shares_a_seed_with_another_or_with_anything_else() -> None:
    generations = [seed for number in range(2, 66) for seed in refresh_seeds(0, "soccer-v3", number, 256)]
    others = [seed for source, split in STREAMS for seed in episode_seeds(0, "soccer-v3", source, split, 2**14)]
    assert len({*generations, *others}) == len(generations) + len(others)


@pytest.mark.parametrize(("generation", "count"), [(1, 1), (66, 1), (2, 257)])
def test_seeds_of_generations_run_out(generation: int, count: int) -> None:
    with pytest.raises(ConfigError, match="there are no seeds"):
        refresh_seeds(0, "soccer-v3", generation, count)
