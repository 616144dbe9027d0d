"""The loop that every trainer runs in: progress, checkpoints, and going on after a kill."""

from __future__ import annotations

import csv
import io
import math
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from world4rl import progress
from world4rl.training.checkpoint import Generators, State, load_state, save_state

Tensors = dict[str, dict[str, torch.Tensor]]


class Trainer(Protocol):
    """Something that is trained step by step."""

    step: int  # steps completed

    def advance(self) -> Mapping[str, float]:
        """Does one step, counts it in `step`, and returns figures for the progress bar."""
        ...

    def capture(self) -> tuple[Tensors, Any, Generators]:
        """Tensors, a JSON value and random generators that a later process needs to go on from here."""
        ...

    def restore(self, state: State) -> None:
        """Takes over what `capture` gave, the random generators apart."""
        ...


def run(
    trainer: Trainer,
    steps: int,
    *,
    label: str,
    unit: str,
    folder: Path,
    every: int,
    fingerprint: Any,
    work: Callable[[int], float] = float,
) -> float:
    """Trains up to `steps`, with a checkpoint every so many; a run that was killed goes on from its last one.

    Args:
        trainer: At step 0; what was saved for the same fingerprint is restored into it.
        steps: In all.
        label: What the progress bar says.
        unit: What a step is called.
        folder: Where checkpoints go; the caller clears it when the result is written.
        every: Steps between checkpoints.
        fingerprint: JSON value: parameters and digests of the inputs. A checkpoint with another one is not used.
        work: How much work the first so many steps are, in any measure, where some take longer than others.

    Returns:
        Seconds spent, those of killed processes included up to their last checkpoint.
    """
    began, spent = time.monotonic(), 0.0
    state = load_state(folder, fingerprint=fingerprint)
    if state is not None:
        trainer.restore(state)
        trainer.step = state.step
        state.restore_random(trainer.capture()[2])
        spent = state.meta["seconds"]
        progress.log(f"goes on from {unit} {state.step}")
    with progress.track(label, total=steps, unit=unit, start=trainer.step, work=work) as bar:
        while trainer.step < steps:
            bar.advance(1, **trainer.advance())
            if trainer.step % every == 0 and trainer.step < steps:
                tensors, meta, generators = trainer.capture()
                saved = {"trainer": meta, "seconds": spent + time.monotonic() - began}
                save_state(folder, trainer.step, tensors, saved, generators=generators, fingerprint=fingerprint)
    return spent + time.monotonic() - began


def stage_seeds(seed: int, name: str, count: int) -> list[int]:
    """`count` independent seeds for the generators of one stage, from the run's seed and the stage's name."""
    entropy = np.random.SeedSequence([seed, zlib.crc32(name.encode())])
    return [int(value) for value in entropy.generate_state(count)]


def cosine_factor(step: int, steps: int, warmup: int) -> float:
    """What to multiply the learning rate by at a step counted from 0: a linear rise, then a cosine from 1 to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def curve_csv(columns: Sequence[str], rows: Iterable[Sequence[float | int | None]]) -> str:
    """A learning curve as CSV; None gives an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(["" if v is None else v if isinstance(v, int) else f"{v:.6g}" for v in row] for row in rows)
    return text.getvalue()
