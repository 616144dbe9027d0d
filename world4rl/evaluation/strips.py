"""Film strips: what really happened above what the world model imagined."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as imageio
import numpy as np

COLUMNS = 8
PIXELS = 96  # of a frame's side, about: small frames are enlarged
GAP = 4
PAPER = 255  # grey level of the gaps


def columns(length: int) -> np.ndarray:
    """Which frames of `length` a strip shows, int64: the first, the last, and some evenly between them."""
    return np.unique(np.linspace(0, length - 1, min(COLUMNS, length)).round().astype(np.int64))


def film_strip(real: np.ndarray, imagined: np.ndarray) -> np.ndarray:
    """One picture of two rows.

    Args:
        real: uint8 (C, H, W, 3), the upper row.
        imagined: Of the same shape, the lower row.

    Returns:
        uint8 (height, width, 3); every pixel of a frame is a square of whole pixels.
    """
    return np.concatenate((_row(real), np.full((GAP, *_row(real).shape[1:]), PAPER, np.uint8), _row(imagined)))


def _row(frames: np.ndarray) -> np.ndarray:
    large = enlarge(frames, PIXELS)
    gap = np.full((large.shape[1], GAP, 3), PAPER, np.uint8)
    parts = [part for frame in large for part in (gap, frame)]
    return np.concatenate(parts[1:], axis=1)


def enlarge(frames: np.ndarray, pixels: int) -> np.ndarray:
    """Frames (N, H, W, 3) repeated pixel by pixel, so that the smaller side has about so many pixels."""
    factor = max(1, round(pixels / min(frames.shape[1:3])))
    return frames.repeat(factor, axis=1).repeat(factor, axis=2)


def write_strip(file: Path, real: np.ndarray, imagined: np.ndarray) -> None:
    """Writes a film strip as PNG; equal frames give equal bytes."""
    imageio.imwrite(file, film_strip(real, imagined), extension=".png")
