from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from world4rl.demos.recording import Recording, write_dataset
from world4rl.envs.episodes import Episode

os.environ.setdefault("HF_HUB_OFFLINE", "1")

TASK = "button-press-topdown-v3"


def picture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A smooth colourful picture: what a codec was made for."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x * rng.uniform(0.05, 0.3) + y * rng.uniform(0.05, 0.3) + rng.uniform(0, 6)) for _ in range(3)]
    return (128 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


def moving_frames(seed: int, length: int, size: tuple[int, int]) -> np.ndarray:
    """A picture that moves by two pixels a frame."""
    first = picture(np.random.default_rng(seed), *size)
    return np.stack([np.roll(first, 2 * t, axis=1) for t in range(length)])


def episode(seed: int, length: int = 12, size: tuple[int, int] = (24, 24), success_from: int | None = None) -> Episode:
    rng = np.random.default_rng(seed)
    return Episode(
        seed=seed,
        frames=moving_frames(seed, length, size),
        states=np.cumsum(rng.normal(size=(length, 4)), axis=0).astype(np.float32),
        actions=rng.uniform(-1, 1, (length, 4)).astype(np.float32),
        rewards=rng.uniform(0, 10, length).astype(np.float32),
        successes=np.arange(length) >= (length if success_from is None else success_from),
    )


def recording(**changes: Any) -> Recording:
    values: dict[str, Any] = {
        "task": TASK,
        "camera": "corner2",
        "fps": 40,
        "state_names": ("x", "y", "z", "grip"),
        "action_names": ("dx", "dy", "dz", "grip"),
        "side": {"source": "expert"},
    }
    return Recording(**{**values, **changes})


@pytest.fixture(scope="session")
def make_episode() -> Callable[..., Episode]:
    return episode


@pytest.fixture(scope="session")
def make_recording() -> Callable[..., Recording]:
    return recording


@pytest.fixture(scope="session")
def good_episodes() -> list[tuple[str, Episode]]:
    """Five episodes of different lengths: three to train on, one validation, one test; the first two succeed."""
    lengths, successes = (12, 15, 9, 12, 10), (7, 14, None, None, None)
    splits = ("train", "train", "train", "validation", "test")
    rows = zip(splits, lengths, successes, strict=True)
    return [(split, episode(100 + i, length, success_from=s)) for i, (split, length, s) in enumerate(rows)]


@pytest.fixture(scope="session")
def good_dataset(tmp_path_factory: pytest.TempPathFactory, good_episodes: list[tuple[str, Episode]]) -> Path:
    root = tmp_path_factory.mktemp("good") / "expert"
    write_dataset(root, good_episodes, recording(), image_size=(24, 24))
    return root


@pytest.fixture
def dataset(good_dataset: Path, tmp_path: Path) -> Path:
    """A copy of the good dataset to spoil."""
    return Path(shutil.copytree(good_dataset, tmp_path / "spoilt"))


def stock_dataset(
    root: Path,
    *,
    cameras: dict[str, tuple[int, int]],
    dtype: str = "image",
    action: int = 4,
    state: int = 0,
    tasks: tuple[str, ...] = ("pick up the cube",),
    lengths: tuple[int, ...] = (12, 9, 12),
    success: bool = False,
    action_key: str = "action",
) -> dict[str, list[np.ndarray]]:
    """Records a dataset with LeRobot's own writer and returns what went in, a list of episodes by feature."""
    from lerobot.configs import RGBEncoderConfig
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    names = ["height", "width", "channels"]
    features: dict[str, Any] = {
        f"observation.images.{name}": {"dtype": dtype, "shape": (*size, 3), "names": names}
        for name, size in cameras.items()
    }
    features[action_key] = {"dtype": "float32", "shape": (action,), "names": None}
    if state:
        features["observation.state"] = {"dtype": "float32", "shape": (state,), "names": None}
    if success:
        features["next.success"] = {"dtype": "bool", "shape": (1,), "names": None}
    encoder = {"rgb_encoder": RGBEncoderConfig(vcodec="h264", pix_fmt="yuv444p", crf=10)} if dtype == "video" else {}
    recorder = LeRobotDataset.create(
        "local/test", fps=10, features=features, root=root, use_videos=dtype == "video", **encoder
    )
    written: dict[str, list[np.ndarray]] = {name: [] for name in features}
    for number, length in enumerate(lengths):
        rng = np.random.default_rng(number)
        columns: dict[str, np.ndarray] = {
            f"observation.images.{name}": moving_frames(10 * number + i, length, size)
            for i, (name, size) in enumerate(cameras.items())
        }
        columns[action_key] = rng.normal(size=(length, action)).astype(np.float32)
        if state:
            columns["observation.state"] = np.cumsum(rng.normal(size=(length, state)), 0).astype(np.float32)
        if success:
            columns["next.success"] = (np.arange(length) >= length - 2)[:, None]
        for t in range(length):
            recorder.add_frame(
                {**{name: values[t] for name, values in columns.items()}, "task": tasks[number % len(tasks)]}
            )
        recorder.save_episode()
        for name, values in columns.items():
            written[name].append(values)
    recorder.finalize()
    return written


@pytest.fixture(scope="session")
def record_with_lerobot() -> Callable[..., dict[str, list[np.ndarray]]]:
    return stock_dataset


@pytest.fixture(scope="session")
def video_dataset(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[np.ndarray]]]:
    root = tmp_path_factory.mktemp("video") / "rollout"
    written = stock_dataset(
        root, cameras={"front": (48, 64)}, dtype="video", action=3, state=2, lengths=(20, 15, 20), success=True
    )
    return root, written
