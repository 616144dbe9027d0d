"""The real episodes that nothing was trained on, laid out for comparison with what the world model imagines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from world4rl.demos.store import open_stores
from world4rl.envs.imagination import StartStates
from world4rl.errors import DataError
from world4rl.paths import Paths, Source

SOURCES: tuple[Source, ...] = ("expert", "policy")
SPLIT = "test"
COLUMNS = ("task", "source", "episode", "seed", "length", "success", "digest")


@dataclass(frozen=True)
class HeldOut:
    """N episodes of all tasks; what speaks of an episode counts from 0 to N - 1.

    Attributes:
        table: A row an episode: task, source, episode (in its dataset), seed, length (rows), success (bool),
            digest (of its content).
        starts: Their frames and what came before each.
        actions: float32 (N, longest, A); zero after an episode's end.
    """

    table: pd.DataFrame
    starts: StartStates
    actions: Tensor

    @classmethod
    def open(cls, paths: Paths, tasks: Sequence[str], *, known: tuple[str, ...], history: int) -> HeldOut:
        """Reads the held-out expert and policy episodes.

        Args:
            paths: Where the stores lie.
            tasks: Whose episodes.
            known: The world model's tasks.
            history: Frames that the world model sees.

        Raises:
            DataError: a store is missing or damaged, no episode is held out, or the model does not know a task.
        """
        task_numbers(tasks, known, paths.world_model)
        stores = open_stores(paths, tasks, SOURCES)
        rows, actions = [], []
        for store in stores:
            for row, entry in enumerate(store.episodes.to_dict("records")):
                if entry["split"] == SPLIT:
                    rows.append({key: entry[key] for key in COLUMNS})
                    actions.append(torch.from_numpy(store.actions(row)))
        if not rows:
            raise DataError(
                "no episode is held out",
                where=stores[0].path.parent,
                remedy="set demonstrations.held_out or rollouts.held_out in params.yaml and collect again, or land "
                "episodes",
            )
        table = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"seed": "Int64", "success": bool})
        starts = StartStates(stores, history=history, tasks=known, splits=(SPLIT,))
        return cls(table, starts, torch.nn.utils.rnn.pad_sequence(actions, batch_first=True))

    def __len__(self) -> int:
        """N."""
        return len(self.table)

    @property
    def lengths(self) -> np.ndarray:
        """int64 (N,): rows, which are as many as actions."""
        return self.table["length"].to_numpy(np.int64)

    def real(self, episodes: np.ndarray, rows: np.ndarray | int) -> Tensor:
        """The frames uint8 (B, 3, H, W) that episodes int64 (B,) show in `rows` (one for all, or one each)."""
        return self.starts.take(np.stack(np.broadcast_arrays(episodes, rows), axis=1)).frames[:, -1]

    def longer_than(self, rows: int) -> np.ndarray:
        """int64 (B,): the episodes that have a frame that many actions after their first."""
        return np.flatnonzero(self.lengths > rows)


def batches(episodes: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Consecutive parts of at most `size` episodes."""
    for start in range(0, len(episodes), size):
        yield episodes[start : start + size]


def exchange(tasks: Sequence[str], rng: np.random.Generator) -> np.ndarray:
    """For each episode another one of its task, none given twice: int64 (N,), -1 where a task has one episode only."""
    partners = np.full(len(tasks), -1, np.int64)
    for task in sorted(set(tasks)):
        own = rng.permutation([index for index, name in enumerate(tasks) if name == task])
        if len(own) > 1:
            partners[own] = np.roll(own, 1)  # one cycle through all of them: none keeps its own
    return partners


def task_numbers(tasks: Sequence[str], known: Sequence[str], world_model: Path) -> list[int]:
    """The numbers that a world model knows tasks by.

    Raises:
        DataError: the model in the folder `world_model` was not trained on one of them.
    """
    unknown = [task for task in tasks if task not in known]
    if unknown:
        raise DataError(
            f"the world model was not trained on {', '.join(unknown)}, only on {', '.join(known)}",
            where=world_model,
            remedy="run `world4rl train-world-model` again",
        )
    return [known.index(task) for task in tasks]
