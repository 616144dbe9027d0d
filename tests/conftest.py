"""What every test relies on: no network, no telemetry, one thread, the rendering backend that works here."""

import atexit
import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import dvc.logger  # noqa: F401  # it writes to the standard error of its first import: not one that ends with a test
import numpy as np
import pytest
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"
os.environ["DVC_NO_ANALYTICS"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("DAGSTER_PIPES_CONTEXT", None)
if "WORLD4RL_SIGNING_KEY" not in os.environ:  # nobody's own key: tests make one
    _keys = tempfile.mkdtemp(prefix="world4rl-test-key-")
    atexit.register(shutil.rmtree, _keys, ignore_errors=True)
    os.environ["WORLD4RL_SIGNING_KEY"] = f"{_keys}/key.pem"

# On a busy machine any example may take long; a slow one is no wrong one. The same code is tested with the same
# examples every time; `--hypothesis-profile search` looks for new ones, and what it finds becomes an @example.
settings.register_profile("same", deadline=None, derandomize=True, database=None)
settings.register_profile("search", deadline=None, max_examples=1000)
settings.load_profile("same")

if "mujoco" not in sys.modules:  # must be chosen before the first import
    from world4rl.machine import use_rendering_backend

    use_rendering_backend()


# What takes longest begins first, or one process would work on it alone in the end.
LONGEST = (
    "test_end_to_end.py",
    "test_postgres.py",
    "test_kills.py",
    "test_ui.py",
    "test_retraining.py",
    "test_lineage.py",
    "test_s3.py",
    "test_reproducing.py",
    "test_plan.py",
    "test_paper_profile.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


def pytest_collection_finish() -> None:
    """What was imported lives to the end: to look through it for garbage in every test takes a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pictures", type=Path, help="where screenshots of the UI go, e.g. docs/images")


@pytest.fixture(scope="session")
def write_store() -> Callable[..., None]:
    """Writes a small store. Row t of episode e can be recognised: its frame's first pixel is (t, e, 0).

    An episode with `success_from` rows has no row that shows its success: its last action solved the task.
    """
    from world4rl.config import Store
    from world4rl.demos.store import StoredEpisode, StoreWriter
    from world4rl.files import replacing

    def write(
        root: Path,
        *,
        task: str = "button-press-topdown-v3",
        source: str = "expert",
        splits: Sequence[str] = ("train", "train", "test"),
        lengths: Sequence[int] = (9, 7, 8),
        success_from: Sequence[int | None] = (6, None, 5),
        numbers: Sequence[int] | None = None,
        size: int = 16,
        action_size: int = 2,
        state_size: int = 3,
        seed: int = 0,
        labels: str = "next.success",
    ) -> None:
        rng = np.random.default_rng(seed)
        shapes = {
            "cameras": ["corner2"],
            "image_size": (size, size),
            "action_size": action_size,
            "state_size": state_size,
        }
        with replacing(root) as fresh:
            writer = StoreWriter(fresh, settings=Store(), **shapes)
            for index, (split, length, first) in enumerate(zip(splits, lengths, success_from, strict=True)):
                still = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
                frames = np.stack([np.roll(still, t, axis=1) for t in range(length)])
                frames[:, 0, 0] = np.stack([(t, index, 0) for t in range(length)])
                success = np.arange(length) >= (length if first is None else first)
                writer.add(
                    StoredEpisode(
                        frames={"corner2": frames},
                        actions=rng.uniform(-1, 1, (length, action_size)).astype(np.float32),
                        states=rng.normal(size=(length, state_size)).astype(np.float32) if state_size else None,
                        success=success,
                        task=task,
                        source=source,
                        split=split,
                        succeeded=first is not None,
                        seed=index,
                        episode=index if numbers is None else numbers[index],
                    ),
                    "made up",
                )
            writer.finish({**shapes, "image_size": [size, size], "fps": 40.0, "labels": labels, "quarantined": []})

    return write
