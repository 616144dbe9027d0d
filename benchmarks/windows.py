"""Random windows a second: the window sampler against LeRobot's own random access, on the same data in one run.

    .venv/bin/python benchmarks/windows.py [DATASET] [--seconds 5] [--video]

Without a dataset one is made up: 40 episodes of 50 frames of 48 x 48 pixels, as collection writes them. LeRobot reads
single windows through `LeRobotDataset[i]` with `delta_timestamps`, both directly and through a DataLoader of two
workers; the sampler draws batches of 32, from memory and from disk. Every reader returns the same rows, which the
benchmark checks first. The ratio printed last is the sampler's default against the faster of LeRobot's two.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

LENGTH, HISTORY, BATCH = 5, 4, 32


def main() -> None:
    """Runs the benchmark and prints a line a reader and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="?", type=Path, help="a LeRobot v3 dataset with one camera")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each reader runs")
    parser.add_argument("--video", action="store_true", help="make up a dataset whose camera is an h264 video")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    arguments = parser.parse_args()

    from world4rl.progress import quiet_libraries

    os.environ["HF_HUB_OFFLINE"] = "1"
    quiet_libraries()
    with tempfile.TemporaryDirectory() as folder:
        dataset = arguments.dataset or make_up(Path(folder) / "dataset", video=arguments.video)
        figures = compare(dataset, Path(folder) / "store", arguments.seconds)
    for name, rate in figures.items():
        print(f"{name:<40} {rate:>12,.0f} windows/s" if name != "ratio" else f"{name:<40} {rate:>12,.1f}")
    if arguments.json:
        from world4rl.files import write_json

        write_json(arguments.json, figures)


def compare(dataset: Path, store_path: Path, seconds: float) -> dict[str, float]:
    """Windows a second by reader, and the ratio."""
    import torch
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    from world4rl.demos.ingest import ingest
    from world4rl.demos.store import EpisodeStore
    from world4rl.demos.windows import WindowSampler

    info = json.loads((dataset / "meta" / "info.json").read_text())
    ingest(dataset, store_path)
    store = EpisodeStore.open(store_path)
    camera = store.description["features"][store.cameras[0]]
    offsets = [(t - HISTORY + 1) / info["fps"] for t in range(LENGTH)]
    keys = [camera, "action"] + (["observation.state"] if store.state_size else [])
    stock = LeRobotDataset(
        "local/benchmark",
        root=dataset,
        video_backend="pyav",
        delta_timestamps=dict.fromkeys(keys, offsets),
        return_uint8=True,
    )
    # Rows whose whole window lies inside their episode, so that all readers have the same windows to choose from.
    rows = [
        int(start) + t
        for start, length in zip(store.episodes["start"], store.episodes["length"], strict=True)
        for t in range(HISTORY - 1, int(length) - (LENGTH - HISTORY))
    ]
    check_same(stock, store, camera, rows)
    rng = np.random.default_rng(0)

    def one_by_one() -> Iterator[int]:
        while True:
            stock[rows[rng.integers(len(rows))]]
            yield 1

    def loader() -> Iterator[int]:
        chosen = torch.utils.data.Subset(stock, rows)
        sampler = torch.utils.data.RandomSampler(chosen, replacement=True, num_samples=10**6)
        for batch in torch.utils.data.DataLoader(chosen, BATCH, sampler=sampler, num_workers=2):
            yield len(batch["action"])

    def sampled(*, in_memory: bool | None) -> Callable[[], Iterator[int]]:
        sampler = WindowSampler([store], length=LENGTH, history=HISTORY, in_memory=in_memory)

        def batches() -> Iterator[int]:
            while True:
                yield len(sampler.sample(BATCH, rng).actions)

        return batches

    figures = {
        "LeRobotDataset[i]": rate(one_by_one, seconds),
        "LeRobotDataset, DataLoader, 2 workers": rate(loader, seconds),
        "WindowSampler, from disk": rate(sampled(in_memory=False), seconds),
        "WindowSampler": rate(sampled(in_memory=None), seconds),
    }
    slow = max(value for name, value in figures.items() if name.startswith("LeRobot"))
    return {**figures, "ratio": figures["WindowSampler"] / slow}


def check_same(stock: Any, store: Any, camera: str, rows: list[int]) -> None:
    """Compares a few windows, pixel by pixel."""
    from world4rl.demos.windows import WindowSampler

    sampler = WindowSampler([store], length=LENGTH, history=HISTORY)
    whole = [n for n in range(len(sampler)) if sampler.take(np.array([n])).valid.all()]
    assert len(whole) == len(rows)
    for place in np.linspace(0, len(rows) - 1, 5).astype(int):
        ours, theirs = sampler.take(np.array([whole[place]])), stock[rows[place]]
        pixels = theirs[camera] if theirs[camera].dtype == ours.frames.dtype else (theirs[camera] * 255).round()
        assert np.array_equal(ours.frames[0].numpy(), pixels.numpy().astype(np.uint8))
        assert np.array_equal(ours.actions[0].numpy(), theirs["action"].numpy())


def rate(reader: Callable[[], Iterator[int]], seconds: float) -> float:
    """Windows a second, after a warm-up of one batch."""
    stream = reader()
    next(stream)
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        count += next(stream)
    return count / (time.perf_counter() - began)


def make_up(root: Path, *, video: bool) -> Path:
    """A dataset of smooth moving pictures: 40 episodes of 50 frames of 48 x 48 pixels."""
    from world4rl.demos.recording import Recording, write_dataset
    from world4rl.envs.episodes import Episode

    def episode(seed: int) -> Episode:
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[0:48, 0:48]
        waves = [np.sin(x * rng.uniform(0.05, 0.3) + y * rng.uniform(0.05, 0.3)) for _ in range(3)]
        first = (128 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)
        return Episode(
            seed=seed,
            frames=np.stack([np.roll(first, t, axis=1) for t in range(50)]),
            states=np.cumsum(rng.normal(size=(50, 4)), axis=0).astype(np.float32),
            actions=rng.uniform(-1, 1, (50, 4)).astype(np.float32),
            rewards=np.zeros(50, np.float32),
            successes=np.arange(50) > 30,
        )

    episodes = [episode(seed) for seed in range(40)]
    if not video:
        recording = Recording("benchmark", "eye", 40.0, tuple("xyzg"), tuple("xyzg"))
        write_dataset(root, (("train", e) for e in episodes), recording, image_size=(48, 48))
        return root

    from lerobot.configs import RGBEncoderConfig
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    features = {
        "observation.images.eye": {"dtype": "video", "shape": (48, 48, 3), "names": ["height", "width", "channels"]},
        "observation.state": {"dtype": "float32", "shape": (4,), "names": None},
        "action": {"dtype": "float32", "shape": (4,), "names": None},
    }
    encoder = RGBEncoderConfig(vcodec="h264", pix_fmt="yuv444p", crf=10)
    recorder = LeRobotDataset.create("local/benchmark", fps=40, features=features, root=root, rgb_encoder=encoder)
    for item, t in itertools.product(episodes, range(50)):
        recorder.add_frame(
            {
                "observation.images.eye": item.frames[t],
                "observation.state": item.states[t],
                "action": item.actions[t],
                "task": "benchmark",
            }
        )
        if t == 49:
            recorder.save_episode()
    recorder.finalize()
    return root


if __name__ == "__main__":
    main()
