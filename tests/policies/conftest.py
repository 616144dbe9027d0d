from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from world4rl.config import BehaviourCloning, Store
from world4rl.demos.store import StoredEpisode, StoreWriter
from world4rl.files import replacing
from world4rl.models.policy import GaussianPolicy

PIXELS, STEPS = 24, 12


@pytest.fixture
def make_policy() -> Callable[..., GaussianPolicy]:
    def make(
        *,
        image_size: tuple[int, int] = (PIXELS, PIXELS),
        action_size: int = 3,
        state_size: int = 4,
        **settings: object,
    ) -> GaussianPolicy:
        torch.manual_seed(0)
        values = {"width": 8, **settings}
        policy = GaussianPolicy(
            BehaviourCloning.model_validate(values),
            image_size=image_size,
            action_size=action_size,
            state_size=state_size,
            camera="corner2",
        )
        with torch.no_grad():  # no tensor may hold what a fresh network holds anyway
            for parameter in policy.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
        return policy

    return make


@pytest.fixture
def write_demonstrations() -> Callable[..., None]:
    """Writes a store in which a square walks towards a corner: the action tells which, the frame too."""

    def write(root: Path, *, train: int = 4, test: int = 2, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        with replacing(root) as fresh:
            writer = StoreWriter(
                fresh,
                cameras=["corner2"],
                image_size=(PIXELS, PIXELS),
                action_size=3,
                state_size=4,
                settings=Store(),
            )
            for number in range(train + test):
                writer.add(_episode(rng, number, "train" if number < train else "test"), "made up")
            writer.finish(
                {
                    "cameras": ["corner2"],
                    "image_size": [PIXELS, PIXELS],
                    "action_size": 3,
                    "state_size": 4,
                    "fps": 40.0,
                    "quarantined": [],
                }
            )

    return write


def _episode(rng: np.random.Generator, number: int, split: str) -> StoredEpisode:
    places = rng.integers(0, PIXELS - 6, (STEPS, 2))
    frames = rng.integers(0, 30, (STEPS, PIXELS, PIXELS, 3), dtype=np.uint8)
    for frame, (row, column) in zip(frames, places, strict=True):
        frame[row : row + 6, column : column + 6] = 255
    centred = (places / (PIXELS - 6) * 2 - 1).astype(np.float32)
    actions = np.concatenate([centred, 0.3 * np.ones((STEPS, 1), np.float32)], axis=1)
    return StoredEpisode(
        frames={"corner2": frames},
        actions=actions,
        states=(100 + 10 * rng.standard_normal((STEPS, 4))).astype(np.float32),
        success=np.arange(STEPS) > 8,
        task="button-press-topdown-v3",
        source="expert",
        split=split,
        succeeded=True,
        seed=number,
        episode=number,
    )
