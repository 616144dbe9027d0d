from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from world4rl.config import WorldModel
from world4rl.models.denoiser import Context, Denoiser, Shapes

SMALL = {"fold": 2, "channels": (16, 16), "attention_levels": (False, False), "conditioning_width": 32, "bf16": False}


@pytest.fixture(scope="session")
def make_denoiser() -> Callable[..., Denoiser]:
    """A small denoiser whose output layer is not zero, as it would be before training."""

    def make(*, image_size: int = 16, action_size: int = 2, state_size: int = 3, tasks: int = 2, **settings: object):
        torch.manual_seed(0)
        values = WorldModel.model_validate({**SMALL, **settings})
        denoiser = Denoiser(values, Shapes(image_size, action_size, state_size, tasks)).eval()
        torch.nn.init.normal_(denoiser.unet.conv_out.weight, std=0.05)
        if denoiser.state_size:
            denoiser.get_buffer("state_mean").copy_(torch.tensor([1.0, -2.0, 30.0]))
            denoiser.get_buffer("state_std").copy_(torch.tensor([0.5, 1.0, 7.0]))
        return denoiser

    return make


@pytest.fixture(scope="session")
def make_context() -> Callable[..., Context]:
    """A random context of B rows for a denoiser."""

    def make(denoiser: Denoiser, batch: int = 3, seed: int = 0) -> Context:
        random = torch.Generator().manual_seed(seed)
        n, shapes = denoiser.settings.history, denoiser.shapes
        frames = torch.rand(batch, n, 3, shapes.image_size, shapes.image_size, generator=random) * 2 - 1
        actions = torch.rand(batch, n, shapes.action_size, generator=random) * 2 - 1
        states = torch.randn(batch, n, shapes.state_size, generator=random) if denoiser.state_size else None
        task = torch.arange(batch) % shapes.tasks if denoiser.settings.task_conditioning else None
        reference = frames[:, 0].flip(-1) if denoiser.settings.reference_frame else None
        return Context(frames, actions, states, task, reference)

    return make
