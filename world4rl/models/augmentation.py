"""Random shifts of frames: the one augmentation that pixels-to-action learning needs most."""

from __future__ import annotations

import torch
from torch import Tensor


def random_shift(frames: Tensor, pixels: int, generator: torch.Generator | None = None) -> Tensor:
    """Shifts each sample's frames by whole pixels, all frames of a sample alike, and repeats the edge.

    The same as padding by `pixels` edge values and cropping at random, without the padded copy.

    Args:
        frames: (B, F, 3, H, W) of any type.
        pixels: Largest shift in each direction; 0 returns `frames` itself.
        generator: Where the shifts are drawn from, on CPU; torch's global generator when None.

    Returns:
        A tensor like `frames`.
    """
    if not pixels:
        return frames
    batch, _, _, height, width = frames.shape
    shifts = torch.randint(-pixels, pixels + 1, (2, batch, 1), generator=generator).to(frames.device)
    rows = (torch.arange(height, device=frames.device) + shifts[0]).clamp_(0, height - 1)
    columns = (torch.arange(width, device=frames.device) + shifts[1]).clamp_(0, width - 1)
    sample = torch.arange(batch, device=frames.device)
    # Advanced indices with a slice between them come first in the result: (B, H, W, F, 3).
    shifted = frames[sample[:, None, None], :, :, rows[:, :, None], columns[:, None, :]]
    return shifted.permute(0, 3, 4, 1, 2)
