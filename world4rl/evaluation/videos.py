"""Trials as small H.264 videos that every browser plays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import imageio.v3 as imageio
import numpy as np

from world4rl.evaluation.strips import enlarge

PIXELS = 192  # of a frame's side, about
HOLD_SECONDS = 0.5  # the last frame stays, or nobody sees how it ended


def write_video(file: Path, frames: np.ndarray, fps: float) -> None:
    """Writes an mp4 (H.264, yuv420p), enlarged without blurring; equal frames give equal bytes with the same ffmpeg.

    Args:
        file: Where to.
        frames: uint8 (T, H, W, 3).
        fps: Frames a second.
    """
    held = frames[-1:].repeat(max(1, round(HOLD_SECONDS * fps)), axis=0)
    imageio.imwrite(
        file,
        _even(enlarge(np.concatenate((frames, held)), PIXELS)),
        plugin="FFMPEG",
        fps=fps,
        codec="libx264",
        pixelformat="yuv420p",
        macro_block_size=2,
        # One thread and no versions in the file: the encoder's output depends on both.
        output_params=["-crf", "20", "-threads", "1", "-fflags", "+bitexact", "-flags:v", "+bitexact"],
    )


def _even(frames: np.ndarray) -> np.ndarray:
    """Frames with even sides, which yuv420p needs: the last row or column twice where one is missing."""
    height, width = frames.shape[1:3]
    return np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def choose(successes: Sequence[bool], count: int) -> list[int]:
    """Which trials to show: the first successes and failures in equal parts, the rest where one kind runs out.

    Args:
        successes: Outcome of each trial.
        count: Videos wanted; where it is odd, a success more than failures.

    Returns:
        Positions, ascending.
    """
    won = [index for index, success in enumerate(successes) if success]
    lost = [index for index, success in enumerate(successes) if not success]
    failures = min(count // 2, len(lost))
    wins = min(count - failures, len(won))
    return sorted(won[:wins] + lost[: count - wins])
