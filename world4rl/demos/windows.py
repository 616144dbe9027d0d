"""Random windows out of stores: what training consumes. No video is decoded, and in memory nothing is decompressed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from world4rl.demos.store import EpisodeStore
from world4rl.errors import DataError

MEMORY_SHARE = 0.5  # of the memory that is free when the sampler is made


@dataclass(frozen=True)
class Windows:
    """B windows of L rows. Row t holds what was seen, and the action that was then taken.

    Attributes:
        frames: uint8 (B, L, 3, H, W).
        actions: float32 (B, L, A).
        states: float32 (B, L, S); S is 0 where the stores have none.
        success: bool (B, L), of the state that each row shows.
        valid: bool (B, L); False before an episode's start, where its first frame and state are repeated, the
            actions are zero and success is False.
        task: int64 (B,), indices into the sampler's `tasks`.
        success_episode: bool (B,), whether the episode as a whole is a success.
        reference: uint8 (B, 3, H, W), the first frame of the episode; None where the sampler was not asked for it.
    """

    frames: torch.Tensor
    actions: torch.Tensor
    states: torch.Tensor
    success: torch.Tensor
    valid: torch.Tensor
    task: torch.Tensor
    success_episode: torch.Tensor
    reference: torch.Tensor | None = None


class WindowSampler:
    """Draws windows uniformly over all places where one fits, in all episodes of all stores.

    A window is `history` rows of the past and `length - history` rows that follow. It may begin up to `history - 1`
    rows before its episode does (the first real frame is then the last of the history) and never runs past its end.

    Args:
        stores: Where from; they must agree in image size, action size and state size.
        length: L, rows in a window.
        history: How many of them are the past, 1 to `length`.
        splits: Which episodes: any of `train`, `validation`, `test`.
        camera: Which camera; may be left out where the stores have only one.
        reference: Whether windows bring their episode's first frame, one more to read for each.
        in_memory: Whether to hold all frames in memory; None: if they take less than half of what is free.

    Attributes:
        tasks: The tasks' names, sorted.

    Raises:
        DataError: the stores do not fit together, or no episode has room for a window.
    """

    def __init__(
        self,
        stores: Sequence[EpisodeStore],
        *,
        length: int,
        history: int,
        splits: Sequence[str] = ("train",),
        camera: str | None = None,
        reference: bool = False,
        in_memory: bool | None = None,
    ) -> None:
        if not 1 <= history <= length:
            raise ValueError(f"history must be between 1 and length, not {history} of {length}")
        self._length = length
        self._reference = reference
        self._sources = [_Source(store, camera) for store in stores if len(store)]
        _require_alike([source.store for source in self._sources])
        self.tasks: tuple[str, ...] = tuple(sorted({t for s in self._sources for t in s.store.episodes["task"]}))

        rows: list[tuple[int, int, int, int, bool]] = []  # source, first row, last row, task, success
        windows: list[int] = []
        for number, source in enumerate(self._sources):
            table = source.store.episodes
            for entry in table[table["split"].isin(list(splits))].to_dict("records"):
                count = entry["length"] - length + history
                if count > 0:
                    end = entry["start"] + entry["length"]
                    rows.append((number, entry["start"], end, self.tasks.index(entry["task"]), entry["success"]))
                    windows.append(count)
        if not rows:
            raise DataError(
                f"no {'/'.join(splits)} episode has room for a window of {length} rows",
                where=", ".join(str(store.path) for store in stores) or None,
                remedy="collect episodes for this split, or ask for shorter windows",
            )
        self._episodes = np.array(rows, np.int64)
        self._ends = np.cumsum(windows)  # of each episode's windows in the numbering of all windows
        self._history = history
        if in_memory is None:
            in_memory = sum(source.bytes for source in self._sources) < MEMORY_SHARE * _free_memory()
        for source in self._sources:
            source.load(frames=in_memory)

    def __len__(self) -> int:
        """How many different windows there are."""
        return int(self._ends[-1])

    def sample(self, batch: int, rng: np.random.Generator) -> Windows:
        """Draws `batch` windows, each as likely as any other; the same generator state gives the same windows."""
        return self.take(rng.integers(0, len(self), batch))

    def take(self, windows: np.ndarray) -> Windows:
        """The windows with the given numbers, int64 (B,) in [0, len(self))."""
        which = np.searchsorted(self._ends, windows, side="right")
        episodes = self._episodes[which]
        begin, end = episodes[:, 1], episodes[:, 2]
        counted_from_last = self._ends[which] - 1 - windows  # 0: the window that ends with the episode
        first = end - self._length - counted_from_last
        places = first[:, None] + np.arange(self._length)
        valid = places >= begin[:, None]
        places = np.maximum(places, begin[:, None])

        own = [(source, episodes[:, 0] == n) for n, source in enumerate(self._sources)]
        parts = [self._gather(source, places[rows]) for source, rows in own]
        frames, actions, states, success = (_merge(column, episodes[:, 0]) for column in zip(*parts, strict=True))
        reference = None
        if self._reference:
            firsts = [source.frames(begin[rows, None])[:, 0] for source, rows in own]
            reference = torch.from_numpy(_merge(firsts, episodes[:, 0]))
        return Windows(
            frames=torch.from_numpy(frames),
            actions=torch.from_numpy(actions * valid[..., None]),
            states=torch.from_numpy(states),
            success=torch.from_numpy(success & valid),
            valid=torch.from_numpy(valid),
            task=torch.from_numpy(episodes[:, 3].copy()),
            success_episode=torch.from_numpy(episodes[:, 4] == 1),
            reference=reference,
        )

    @staticmethod
    def _gather(source: _Source, places: np.ndarray) -> tuple[np.ndarray, ...]:
        return source.frames(places), source.actions[places], source.states[places], source.success[places]


def _merge(parts: Sequence[np.ndarray], sources: np.ndarray) -> np.ndarray:
    """Puts the rows that came from each source back into the order of the batch."""
    if len(parts) == 1:
        return parts[0]
    whole = np.empty((len(sources), *parts[0].shape[1:]), parts[0].dtype)
    for number, part in enumerate(parts):
        whole[sources == number] = part
    return whole


class _Source:
    """One store's columns: the numbers in memory, the frames there or on disk.

    Rows are gathered by numpy: torch would start its threads for every small copy, and on a machine whose cores are
    busy these wait for one another far longer than the copy takes.
    """

    def __init__(self, store: EpisodeStore, camera: str | None) -> None:
        self.store = store
        self._array: Any = store.array(f"frames/{store.camera(camera)}")
        self._memory: np.ndarray | None = None
        self.bytes = int(np.prod(self._array.shape))
        self.actions = np.asarray(store.array("actions")[:])
        self.success = np.asarray(store.array("success")[:])
        rows = len(self.actions)
        self.states = np.asarray(store.array("states")[:]) if store.state_size else np.zeros((rows, 0), np.float32)

    def load(self, *, frames: bool) -> None:
        if frames:
            # Channels first and contiguous, once, so that a window is a plain copy.
            self._memory = np.ascontiguousarray(np.moveaxis(self._array[:], -1, 1))

    def frames(self, places: np.ndarray) -> np.ndarray:
        """Frames uint8 (b, L, 3, H, W) at rows int64 (b, L)."""
        if self._memory is not None:
            return self._memory[places]
        if not places.size:
            return np.empty((*places.shape, 3, *self.store.image_size), np.uint8)
        rows, back = np.unique(places, return_inverse=True)
        return np.ascontiguousarray(np.moveaxis(self._array.oindex[rows][back.reshape(places.shape)], -1, 2))


def _require_alike(stores: Sequence[EpisodeStore]) -> None:
    for store in stores[1:]:
        for name in ("image_size", "action_size", "state_size"):
            if getattr(store, name) != getattr(stores[0], name):
                raise DataError(
                    f"{name} is {getattr(store, name)}, but {getattr(stores[0], name)} in {stores[0].path}",
                    where=store.path,
                    remedy="train on stores that were made with the same --size and --map",
                )


def _free_memory() -> int:
    import psutil

    return int(psutil.virtual_memory().available)
