"""Which seed an episode gets: no two sources or splits of a run share one, and evaluation shares none with training.

A seed is 32 bits: 14 bits of hash of the run's seed and the task, 4 bits for source and split, 14 bits for the
episode. Within a run and task, seeds are therefore distinct by construction and not by luck.
"""

from __future__ import annotations

import hashlib

from world4rl.errors import ConfigError

_STREAMS: tuple[tuple[str, str], ...] = (
    ("expert", "train"),
    ("expert", "validation"),
    ("expert", "test"),
    ("policy", "train"),
    ("policy", "validation"),
    ("policy", "test"),
    ("random", "train"),
    ("random", "validation"),
    ("random", "test"),
    ("evaluation", "train"),
    ("evaluation", "validation"),
    ("evaluation", "test"),
    ("refresh", "train"),
)
_EPISODE_BITS = 14
_GENERATION_BITS = 8  # of an episode's, for rollouts that refresh the world model: 64 generations of 256 episodes
_STREAM_BITS = 4


def episode_seeds(run_seed: int, task: str, source: str, split: str, count: int) -> list[int]:
    """Seeds below 2^32 of the first `count` episodes of a source and split.

    Args:
        run_seed: `seed` of the parameter file.
        task: Meta-World name.
        source: `expert`, `policy`, `random`, `evaluation` or `refresh`.
        split: `train`, `validation` or `test`.
        count: Episodes wanted. A longer list begins with the shorter one.

    Raises:
        ConfigError: more than 16,384 episodes are wanted.
    """
    if count > 1 << _EPISODE_BITS:
        raise ConfigError(
            f"{count} {source} episodes of {task} are more than the {1 << _EPISODE_BITS} seeds of a source",
            remedy="ask for fewer episodes, or collect a second dataset under another `seed`",
        )
    run = int.from_bytes(hashlib.sha256(f"{run_seed}/{task}".encode()).digest()[:4], "big")
    block = (run << _STREAM_BITS | _STREAMS.index((source, split))) << _EPISODE_BITS
    return [(block | episode) & 0xFFFFFFFF for episode in range(count)]


def refresh_seeds(run_seed: int, task: str, generation: int, count: int) -> list[int]:
    """Seeds of the rollouts that a generation of the world model is refreshed with; no generation shares one.

    Args:
        run_seed: `seed` of the parameter file.
        task: Meta-World name.
        generation: Of the world model that will learn from them, from 2.
        count: Episodes wanted.

    Raises:
        ConfigError: there are no seeds for that many episodes or generations.
    """
    most, size = 1 << (_EPISODE_BITS - _GENERATION_BITS), 1 << _GENERATION_BITS
    if count > size or not 2 <= generation < most + 2:
        raise ConfigError(
            f"there are no seeds for {count} episodes of generation {generation}: each of {most} has {size}",
            where="--episodes" if count > size else None,
            remedy="ask for fewer episodes" if count > size else "go on under another `seed`",
        )
    first = (generation - 2) * size
    return episode_seeds(run_seed, task, "refresh", "train", first + count)[first:]
