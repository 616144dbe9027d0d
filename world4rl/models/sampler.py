"""The deterministic few-step sampler (Karras et al. 2022, algorithm 1 without the second-order correction)."""

from __future__ import annotations

import torch
from torch import Tensor

from world4rl.models.denoiser import Context, Denoiser, to_uint8
from world4rl.models.preconditioning import karras_schedule


@torch.no_grad()
def sample(
    denoiser: Denoiser, context: Context, generator: torch.Generator, *, steps: int | None = None
) -> tuple[Tensor, Tensor | None]:
    """Draws the next frame by Euler steps down the Karras schedule.

    The only randomness is the initial noise, whose standard deviation is the schedule's first sigma times
    `sampling_initial_noise`. With one step the sample is the denoiser's own estimate at that level, about the
    conditional mean; what of the noise comes through it is grain that piles up over an episode, so few-step models
    may start from none.

    Args:
        denoiser: The world model.
        context: Of B rows.
        generator: Draws the initial noise.
        steps: Denoising steps; the settings' number where None.

    Returns:
        Frames uint8 (B, 3, H, W), and states (B, S) where the model predicts them.
    """
    settings = denoiser.settings
    schedule = karras_schedule(steps or settings.sampling_steps, *settings.sampling_sigma_range, settings.sampling_rho)
    batch, _, _, height, width = context.frames.shape
    size = torch.Size((batch, denoiser.canvas, height // settings.fold, width // settings.fold))
    x, _ = denoiser.sampler_start(size, generator)
    for now, following in zip(schedule[:-1].tolist(), schedule[1:].tolist(), strict=True):
        clean = denoiser.denoise(x, torch.full((batch,), now, device=x.device), context)
        x = clean + (x - clean) * (following / now)
    frames, states = denoiser.decode(x, context)
    return to_uint8(frames), states
