"""Episodes that the simulator collected here: one of them that lands again must not slip into another split."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from world4rl.config import Params
from world4rl.demos.storing import COLLECTED
from world4rl.paths import SOURCES, Paths


def collected_episodes(params: Params, paths: Paths) -> dict[str, str]:
    """What the stores of collected episodes hold, in words, by the episode's digest."""
    found: dict[str, str] = {}
    for task in params.tasks:
        for source in SOURCES:
            try:
                table = pq.read_table(
                    paths.store(task, source) / COLLECTED / "episodes.parquet", columns=["digest", "episode", "split"]
                )
            except (OSError, pa.ArrowException):
                continue  # not collected yet, or just being written
            for row in table.to_pylist():
                found[row["digest"]] = f"{row['split']} episode {row['episode']} of those collected here ({source})"
    return found
