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
)
_EPISODE_BITS = 14
_STREAM_BITS = 4


def episode_seeds(run_seed: int, task: str, source: str, split: str, count: int) -> list[int]:
    """Seeds below 2^32 of the first `count` episodes of a source and split.

    Args:
        run_seed: `seed` of the parameter file.
        task: Meta-World name.
        source: `expert`, `policy`, `random` or `evaluation`.
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
