"""`world4rl challenge` apart from the simulator: policies of the toy's stages cannot act, so trials are drawn.

The refined policy succeeds in eight of ten, the one that it challenges in five of ten.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Generator, Sequence
from typing import Any

from world4rl.cli import app
from world4rl.promotion import simulated


def draw(params: Any, task: str, folders: Any, seeds: Sequence[int]) -> Generator[dict[str, bool], None, None]:
    """Outcomes by the seeds."""
    for seed in seeds:
        luck = random.Random(seed)
        yield {"opponent": luck.random() < 0.5, "challenger": luck.random() < 0.8}


if __name__ == "__main__":
    simulated._attempts = draw
    app(["challenge", *sys.argv[1:]])
