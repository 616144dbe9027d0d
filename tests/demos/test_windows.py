from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from world4rl.config import Store
from world4rl.demos.store import EpisodeStore, StoredEpisode, StoreWriter
from world4rl.demos.windows import Windows, WindowSampler
from world4rl.errors import DataError

SETTINGS = Store(chunk_frames=4, shard_frames=8)


def write_store(
    root: Path, lengths: list[int], *, task: str = "push", splits: list[str] | None = None, state_size: int = 2
) -> EpisodeStore:
    """A store whose every number says where it stands: action = [episode, row], states alike, frames = row."""
    writer = StoreWriter(
        root, cameras=["eye"], image_size=(2, 3), action_size=2, state_size=state_size, settings=SETTINGS
    )
    for number, length in enumerate(lengths):
        place = np.stack([np.full(length, number), np.arange(length)], axis=1).astype(np.float32)
        frames = np.broadcast_to(np.arange(length, dtype=np.uint8)[:, None, None, None], (length, 2, 3, 3)).copy()
        frames[..., 1] = number
        frames[:, 0, 0, 2] = 200
        episode = StoredEpisode(
            frames={"eye": frames},
            actions=place + 1,
            states=place[:, :state_size] if state_size else None,
            success=np.arange(length) % 3 == 2,
            task=task,
            source="expert",
            split=splits[number] if splits else "train",
            succeeded=number % 2 == 0,
            seed=number,
            episode=number,
        )
        writer.add(episode, "test")
    writer.finish({"cameras": ["eye"], "image_size": [2, 3], "action_size": 2, "state_size": state_size, "fps": 10.0})
    return EpisodeStore.open(root)


@pytest.fixture
def store(tmp_path: Path) -> EpisodeStore:
    return write_store(tmp_path / "a", [5, 9, 3, 20])


def expected_windows(lengths: list[int], length: int, history: int) -> list[tuple[int, int]]:
    """(episode, first row) of every window, by the definition."""
    return [
        (number, first) for number, rows in enumerate(lengths) for first in range(-(history - 1), rows - length + 1)
    ]


def assert_window(windows: Windows, position: int, episode: int, first: int) -> None:
    """The window holds the rows `first`, `first + 1`, … of the episode, padded on the left."""
    for t in range(windows.actions.shape[1]):
        row = first + t
        shown = max(row, 0)
        frame = windows.frames[position, t]
        assert frame[0].flatten().tolist() == [shown] * 6
        assert frame[1].flatten().tolist() == [episode] * 6
        assert frame[2, 0, 0] == 200  # the top left pixel's third channel: axes are where they belong
        assert windows.states[position, t].tolist() == [episode, shown]
        assert bool(windows.valid[position, t]) == (row >= 0)
        assert windows.actions[position, t].tolist() == ([episode + 1, row + 1] if row >= 0 else [0, 0])
        assert bool(windows.success[position, t]) == (row >= 0 and row % 3 == 2)
    assert windows.reference[position, 0].flatten().tolist() == [0] * 6
    assert windows.reference[position, 1].flatten().tolist() == [episode] * 6
    assert bool(windows.success_episode[position]) == (episode % 2 == 0)


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    length=st.integers(1, 8),
    data=st.data(),
    in_memory=st.booleans(),
)
def test_every_window_is_inside_one_episode(lengths: list[int], length: int, data: Any, in_memory: bool) -> None:
    history = data.draw(st.integers(1, length))
    expected = expected_windows(lengths, length, history)
    with TemporaryDirectory() as folder:
        store = write_store(Path(folder) / "s", lengths)
        if not expected:
            with pytest.raises(DataError, match="no train episode has room"):
                WindowSampler([store], length=length, history=history, reference=True, in_memory=in_memory)
            return
        sampler = WindowSampler([store], length=length, history=history, reference=True, in_memory=in_memory)
        assert len(sampler) == len(expected)
        windows = sampler.take(np.arange(len(sampler)))
        for position, (episode, first) in enumerate(expected):
            assert_window(windows, position, episode, first)


def test_shapes_and_types(store: EpisodeStore) -> None:
    windows = WindowSampler([store], length=5, history=3).sample(7, np.random.default_rng(0))
    assert windows.reference is None, "it was not asked for"
    assert windows.frames.shape == (7, 5, 3, 2, 3)
    assert windows.frames.dtype == torch.uint8
    assert windows.actions.shape == windows.states.shape == (7, 5, 2)
    assert windows.actions.dtype == windows.states.dtype == torch.float32
    assert windows.success.shape == windows.valid.shape == (7, 5)
    assert windows.success.dtype == windows.valid.dtype == windows.success_episode.dtype == torch.bool
    assert windows.task.dtype == torch.int64


def test_memory_and_disk_give_the_same_windows(tmp_path: Path) -> None:
    stores = [write_store(tmp_path / "a", [12, 7, 30]), write_store(tmp_path / "b", [9, 15], task="pull")]
    samplers = [
        WindowSampler(stores, length=6, history=4, reference=True, in_memory=choice) for choice in (True, False)
    ]
    one, other = (sampler.sample(64, np.random.default_rng(3)) for sampler in samplers)
    for name in Windows.__dataclass_fields__:
        assert torch.equal(getattr(one, name), getattr(other, name)), name


def test_windows_of_several_stores_keep_their_task(tmp_path: Path) -> None:
    stores = [write_store(tmp_path / "a", [8], task="push"), write_store(tmp_path / "b", [4, 8], task="pull")]
    sampler = WindowSampler(stores, length=4, history=2, reference=True)
    assert sampler.tasks == ("pull", "push")
    windows = sampler.take(np.arange(len(sampler)))
    assert [sampler.tasks[i] for i in windows.task] == ["push"] * 6 + ["pull"] * (2 + 6)
    for position, (episode, first) in enumerate(expected_windows([8], 4, 2) + expected_windows([4, 8], 4, 2)):
        assert_window(windows, position, episode, first)


def test_every_window_is_equally_likely(store: EpisodeStore) -> None:
    sampler = WindowSampler([store], length=4, history=2)
    draws = 200 * len(sampler)
    windows = sampler.sample(draws, np.random.default_rng(0))
    last = windows.states[:, -1].numpy()
    _, counts = np.unique(last, axis=0, return_counts=True)
    assert len(counts) == len(sampler)
    chi_squared = ((counts - 200) ** 2 / 200).sum()
    assert chi_squared < len(sampler) + 5 * np.sqrt(2 * len(sampler))


def test_the_same_generator_draws_the_same_windows(store: EpisodeStore) -> None:
    sampler = WindowSampler([store], length=4, history=4)
    one, other = (sampler.sample(16, np.random.default_rng(7)) for _ in range(2))
    assert torch.equal(one.frames, other.frames)
    assert torch.equal(one.actions, other.actions)


def test_only_the_wanted_splits(tmp_path: Path) -> None:
    store = write_store(tmp_path / "a", [6, 7, 8], splits=["train", "validation", "test"])
    sampler = WindowSampler([store], length=3, history=1, splits=("validation", "test"))
    windows = sampler.take(np.arange(len(sampler)))
    assert sorted(set(windows.states[:, 0, 0].tolist())) == [1, 2]
    with pytest.raises(DataError, match="no validation episode"):
        WindowSampler([write_store(tmp_path / "b", [6])], length=3, history=1, splits=("validation",))


def test_a_store_without_states_gives_none(tmp_path: Path) -> None:
    store = write_store(tmp_path / "a", [6], state_size=0)
    windows = WindowSampler([store], length=3, history=1).sample(2, np.random.default_rng(0))
    assert windows.states.shape == (2, 3, 0)
    assert store.states(0).shape == (6, 0)


def test_stores_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    stores = [write_store(tmp_path / "a", [6]), write_store(tmp_path / "b", [6], state_size=0)]
    with pytest.raises(DataError, match=r"state_size is 0, but 2 in .*/a"):
        WindowSampler(stores, length=3, history=1)


def test_empty_stores_are_passed_over(tmp_path: Path) -> None:
    stores = [write_store(tmp_path / "a", []), write_store(tmp_path / "b", [6])]
    assert len(WindowSampler(stores, length=3, history=1)) == 4


def test_what_fits_is_kept_in_memory(store: EpisodeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def reads_disk(free: int) -> bool:
        monkeypatch.setattr("world4rl.demos.windows._free_memory", lambda: free)
        sampler = WindowSampler([store], length=3, history=1)
        with monkeypatch.context() as patch:
            patch.setattr(type(store.array("frames/eye")), "oindex", property(_refuse))
            try:
                sampler.sample(4, np.random.default_rng(0))
            except AssertionError:
                return True
        return False

    rows = int(store.episodes["length"].sum())
    assert not reads_disk(2 * rows * 18 + 2)
    assert reads_disk(2 * rows * 18 - 2)


def _refuse(array: Any) -> Callable[..., Any]:
    raise AssertionError("read from disk")


@pytest.mark.parametrize(("length", "history"), [(3, 0), (3, 4)])
def test_impossible_windows_are_refused(store: EpisodeStore, length: int, history: int) -> None:
    with pytest.raises(ValueError, match="history must be between"):
        WindowSampler([store], length=length, history=history)
