from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from world4rl.config import BehaviourCloning, WorldModel
from world4rl.models.policy import GaussianPolicy

SIZE = 16


@pytest.fixture(scope="session")
def small_world_model() -> Callable[..., WorldModel]:
    """Settings of a world model for 16-pixel frames that trains in seconds."""

    def settings(**changes: object) -> WorldModel:
        values = {
            "history": 2,
            "fold": 2,
            "channels": (16, 16),
            "attention_levels": (False, False),
            "conditioning_width": 32,
            "blocks_per_level": 1,
            "mid_attention": False,
            "batch_size": 4,
            "training_steps": 12,
            "warmup_steps": 2,
            "checkpoint_steps": 5,
            "bf16": False,
        }
        return WorldModel.model_validate({**values, **changes})

    return settings


@pytest.fixture(scope="session")
def make_policy() -> Callable[..., GaussianPolicy]:
    def make(*, action_size: int = 2, **settings: object) -> GaussianPolicy:
        torch.manual_seed(0)
        values = BehaviourCloning.model_validate({"width": 4, **settings})
        return GaussianPolicy(values, image_size=(SIZE, SIZE), action_size=action_size, state_size=3, camera="corner2")

    return make
