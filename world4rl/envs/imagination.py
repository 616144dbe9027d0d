"""Rolling the frozen world model forward: the state that imagined episodes are in, and open-loop replays."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from world4rl.demos.store import EpisodeStore
from world4rl.models.denoiser import Context, Denoiser, to_unit
from world4rl.models.sampler import sample


@dataclass
class Moment:
    """Where B imagined episodes stand: the last n frames, and the actions between them.

    Attributes:
        frames: uint8 (B, n, 3, H, W), oldest first; the last one is now.
        actions: float32 (B, n - 1, A), the action taken at each frame but the last.
        states: float32 (B, n, S); S is 0 where the data has none.
        task: int64 (B,).
        reference: uint8 (B, 3, H, W), the first frame of the real episode that each began in.
    """

    frames: Tensor
    actions: Tensor
    states: Tensor
    task: Tensor
    reference: Tensor

    def replace(self, rows: Tensor, other: Moment) -> None:
        """Puts `other`, which has as many rows as `rows` (bool (B,)) selects, in their place."""
        for name, value in vars(self).items():
            value[rows] = getattr(other, name).to(value.device)

    def to(self, device: torch.device) -> Moment:
        """A copy on another device."""
        return Moment(**{name: value.to(device).clone() for name, value in vars(self).items()})


def advance(denoiser: Denoiser, moment: Moment, actions: Tensor, noise: torch.Generator) -> Moment:
    """The moment after actions (B, A), imagined in one call of the sampler.

    Generated frames are uint8 like real ones, so an error cannot hide below a pixel's resolution and pile up there.
    """
    taken = torch.cat((moment.actions, actions.clamp(-1.0, 1.0).unsqueeze(1)), dim=1)
    s = denoiser.settings
    context = Context(
        frames=to_unit(moment.frames),
        actions=taken,
        states=moment.states if denoiser.state_size else None,
        task=moment.task if s.task_conditioning else None,
        reference=to_unit(moment.reference) if s.reference_frame else None,
    )
    with torch.autocast(taken.device.type, torch.bfloat16, enabled=s.bf16):
        frame, state = sample(denoiser, context, noise)
    states = moment.states if state is None else torch.cat((moment.states[:, 1:], state.unsqueeze(1)), dim=1)
    frames = torch.cat((moment.frames[:, 1:], frame.unsqueeze(1)), dim=1)
    return replace(moment, frames=frames, actions=taken[:, 1:], states=states)


class StartStates:
    """Real moments that imagined episodes start from.

    Args:
        stores: Where from.
        history: n, frames in a moment; before an episode's start its first frame and state are repeated and the
            actions are zero, as in training.
        tasks: The world model's tasks, whose order gives the task index.
        splits: Which episodes.

    Attributes:
        episodes: How many there are.
        tasks: The names that a moment's task index stands for.
        first_success: How many actions each episode needed for its first success; None where it has none. The row of
            that number shows it, but for an episode's last action, whose outcome was not recorded. Where only the
            episode as a whole is known to be a success, its last action counts as the one.
    """

    def __init__(
        self,
        stores: list[EpisodeStore],
        *,
        history: int,
        tasks: tuple[str, ...],
        splits: tuple[str, ...] = ("train",),
    ) -> None:
        self.history = history
        self.tasks = tasks
        self._frames: list[Tensor] = []
        self._actions: list[Tensor] = []
        self._states: list[Tensor] = []
        self._task: list[int] = []
        self.first_success: list[int | None] = []
        for store in stores:
            for row, entry in enumerate(store.episodes.to_dict("records")):
                if entry["split"] in splits:
                    self._add(store, row, tasks.index(entry["task"]))
        self.episodes = len(self._frames)
        # Rows before success only: from a solved state there is nothing to learn.
        ends = [len(a) if s is None else s for a, s in zip(self._actions, self.first_success, strict=True)]
        self._middles = np.array([(e, row) for e, end in enumerate(ends) for row in range(1, end)]).reshape(-1, 2)

    def _add(self, store: EpisodeStore, episode: int, task: int) -> None:
        self._frames.append(torch.from_numpy(store.frames(episode)).permute(0, 3, 1, 2).contiguous())
        self._actions.append(torch.from_numpy(store.actions(episode)))
        size = (len(self._actions[-1]), 0)
        self._states.append(torch.from_numpy(store.states(episode)) if store.state_size else torch.zeros(size))
        self.first_success.append(_actions_to_success(store, episode))
        self._task.append(task)

    def draw(self, count: int, mid_trajectory: float, rng: np.random.Generator) -> tuple[Moment, Tensor]:
        """`count` moments, each an episode's start or, with the given probability, one inside an episode.

        Returns:
            The moments, and how many actions the real episodes had left there: int64 (count,).
        """
        middle = rng.random(count) < (mid_trajectory if len(self._middles) else 0.0)
        places = np.stack((rng.integers(0, self.episodes, count), np.zeros(count, np.int64)), axis=1)
        if middle.any():
            places[middle] = self._middles[rng.integers(0, len(self._middles), int(middle.sum()))]
        left = torch.tensor([len(self._actions[episode]) - int(row) for episode, row in places])
        return self.take(places), left

    def starts(self) -> Moment:
        """Every episode's start, in order."""
        return self.take(np.stack((np.arange(self.episodes), np.zeros(self.episodes, np.int64)), axis=1))

    def take(self, places: np.ndarray) -> Moment:
        """The moments at (episode, row) pairs, int64 (B, 2)."""
        frames, actions, states = [], [], []
        for episode, row in places:
            rows = torch.arange(int(row) - self.history + 1, int(row) + 1)
            real = rows.clamp(min=0)
            frames.append(self._frames[episode][real])
            actions.append(self._actions[episode][real[:-1]] * (rows[:-1] >= 0).unsqueeze(1))
            states.append(self._states[episode][real])
        return Moment(
            torch.stack(frames),
            torch.stack(actions),
            torch.stack(states),
            torch.tensor([self._task[episode] for episode, _ in places]),
            torch.stack([self._frames[episode][0] for episode, _ in places]),
        )

    def returns(self, discount: float) -> tuple[Tensor, Tensor, Tensor]:
        """What every real moment was worth: frames uint8 (N, 3, H, W), states (N, S), discounted return (N,).

        A reward of 1 comes with the action that leads to the first success; rows from there on are left out.
        """
        frames, states, values = [], [], []
        for episode, success in enumerate(self.first_success):
            end = len(self._actions[episode]) if success is None else success
            frames.append(self._frames[episode][:end])
            states.append(self._states[episode][:end])
            ahead = torch.arange(end - 1, -1, -1, dtype=torch.float32)
            values.append(torch.zeros(end) if success is None else discount**ahead)
        return torch.cat(frames), torch.cat(states), torch.cat(values)


def _actions_to_success(store: EpisodeStore, episode: int) -> int | None:
    """How many actions of an episode led to its first success; None where it failed."""
    success = store.success(episode)
    if success.any():
        return int(success.argmax())
    return len(success) if store.episodes["success"].iloc[episode] else None


def replay(denoiser: Denoiser, start: Moment, actions: Tensor, noise: torch.Generator) -> Tensor:
    """Imagines what actions (B, T, A) lead to, open loop: uint8 (B, T + 1, 3, H, W), the real start first."""
    moment, frames = start, [start.frames[:, -1]]
    for step in range(actions.shape[1]):
        moment = advance(denoiser, moment, actions[:, step], noise)
        frames.append(moment.frames[:, -1])
    return torch.stack(frames, dim=1)
