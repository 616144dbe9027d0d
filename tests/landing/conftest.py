from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from world4rl.config import Params, load_profile
from world4rl.demos.recording import Recording, write_dataset
from world4rl.envs.episodes import Episode
from world4rl.landing.door import Taken
from world4rl.landing.inbox import Inbox
from world4rl.landing.ledger import Ledger
from world4rl.landing.take import take
from world4rl.landing.watch import Look, look
from world4rl.paths import Paths

TASK = "button-press-topdown-v3"
OTHER = "button-press-v3"


class Site:
    """A landing folder, a repository's root and a clock that stands still until it is told to go on."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "landing"
        self.folder.mkdir(parents=True)
        self.inbox = Inbox(str(self.folder))
        self.paths = Paths(root)
        self.ledger = Ledger(self.paths.ledger)
        self.params: Params = load_profile("demo")
        self.now = 1_000_000.0
        self.dead: set[str] = set()
        self.cursor = ""
        self._runs = 0

    def look(self, seconds: float = 0.0) -> Look:
        self.now += seconds
        found = look(
            self.inbox,
            self.ledger,
            self.params,
            self.paths,
            now=self.now,
            cursor=self.cursor,
            is_dead=lambda run: run in self.dead,
        )
        self.cursor = found.cursor
        return found

    def take(self, name: str, run: str | None = None) -> Taken | None:
        self._runs += 1
        return take(
            name,
            run or f"run-{self._runs}",
            inbox=self.inbox,
            ledger=self.ledger,
            params=self.params,
            paths=self.paths,
            clock=lambda: self.now,
        )

    def took(self, name: str, run: str | None = None) -> Taken:
        taken = self.take(name, run)
        assert taken is not None, f"{name} was not to be had"
        return taken

    def settle(self) -> dict[str, Taken]:
        """Looks, waits for the quiet period, looks again, and takes what is due."""
        self.look()
        due = self.look(self.params.landing.quiet_seconds).due
        return {entry.name: self.took(entry.name) for entry in due}

    def change(self, section: str, **values: Any) -> None:
        """Changes parameters of a section."""
        before = self.params.model_dump()
        self.params = Params.model_validate({**before, section: {**before[section], **values}})

    def state(self, name: str) -> str:
        return self.ledger.entries()[name].state


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


def moving(seed: int, length: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    first = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
    return np.stack([np.roll(first, 2 * t, axis=1) for t in range(length)])


def make_episode(seed: int, length: int = 10, succeeds: bool = True) -> Episode:
    rng = np.random.default_rng(seed)
    return Episode(
        seed=seed,
        frames=moving(seed, length),
        states=np.cumsum(rng.normal(size=(length, 4)), axis=0).astype(np.float32),
        actions=rng.uniform(-1, 1, (length, 4)).astype(np.float32),
        rewards=np.zeros(length, np.float32),
        successes=np.arange(length) >= (length - 2 if succeeds else length),
    )


@pytest.fixture
def record() -> Callable[..., Path]:
    """Writes a dataset of one episode a seed."""

    def write(target: Path, seeds: tuple[int, ...] = (1, 2), *, task: str = TASK, side: Any = None) -> Path:
        recording = Recording(
            task, "corner2", 16, ("x", "y", "z", "grip"), ("dx", "dy", "dz", "grip"), side or {"source": "expert"}
        )
        write_dataset(target, [("train", make_episode(seed)) for seed in seeds], recording, image_size=(24, 24))
        return target

    return write


@pytest.fixture
def spoil() -> Callable[[Path, Callable[[dict[str, Any]], Any]], None]:
    """Changes a JSON file in place."""

    def change(path: Path, how: Callable[[dict[str, Any]], Any]) -> None:
        values = json.loads(path.read_text())
        how(values)
        path.write_text(json.dumps(values))

    return change


@pytest.fixture
def copy() -> Callable[[Path, Path], Path]:
    return lambda source, target: Path(shutil.copytree(source, target))
