from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest
import torch

from world4rl.config import WorldModel
from world4rl.models.denoiser import Context, Denoiser, Shapes

SIZE = 16


class Counting(Denoiser):
    """A world model without a mind: the next frame's first pixel is one more than the last frame's in red, and the
    action's two numbers, scaled to [0, 255], in green and blue. The rest of the picture stays.
    """

    def denoise(
        self, noised: torch.Tensor, sigma: torch.Tensor, context: Context, history_level: torch.Tensor | None = None
    ) -> torch.Tensor:
        frames = context.frames[:, -1].clone()
        frames[:, 0, 0, 0] += 1 / 127.5
        frames[:, 1:, 0, 0] = context.actions[:, -1]
        states = None if context.states is None else context.states[:, -1] + 1
        return self.target(frames, states, context)


@pytest.fixture(scope="session")
def make_counting() -> Callable[..., Counting]:
    def make(*, tasks: int = 1, **settings: object) -> Counting:
        values = WorldModel.model_validate(
            {"fold": 2, "channels": (8,), "attention_levels": (False,), "bf16": False, "history": 3, **settings}
        )
        return Counting(values, Shapes(SIZE, 2, 3, tasks)).eval().requires_grad_(False)

    return make


class SuccessAt:
    """A success classifier that sees a success where the first pixel's red is at least the count of the task."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self.counts = counts

    def thresholds_of(self, tasks: Sequence[str]) -> torch.Tensor:
        return torch.tensor([self.counts[task] for task in tasks])

    def succeeded(self, frames: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
        assert frames.dtype == torch.uint8
        assert frames.shape[1:] == (3, SIZE, SIZE)
        assert threshold.shape == (len(frames),)
        return frames[:, 0, 0, 0] >= threshold


@pytest.fixture(scope="session")
def success_at() -> type[SuccessAt]:
    return SuccessAt
