"""Whole episodes out of simulator worker processes: what collection and evaluation are made of."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from gymnasium.vector import AsyncVectorEnv

from world4rl.config import Simulation
from world4rl.envs.metaworld import ACTION_SIZE, make_vector_env


@dataclass(frozen=True)
class Episode:
    """One episode of T actions. Row t holds the observation *before* action t and what that action led to.

    Attributes:
        seed: The seed that drew the goal.
        frames: uint8 (T, H, W, 3).
        states: float32 (T, 4).
        actions: float32 (T, A) in [-1, 1].
        rewards: float32 (T,).
        successes: bool (T,): the state after action t solves the task (LeRobot's `next.success`).
        outcome: uint8 (H, W, 3): what the last action led to; None where it was not recorded.
    """

    seed: int
    frames: np.ndarray
    states: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    successes: np.ndarray
    outcome: np.ndarray | None = None

    @property
    def success(self) -> bool:
        """Whether the task was solved at any step."""
        return bool(self.successes.any())

    @property
    def steps_to_success(self) -> int | None:
        """Actions until the task was first solved; None if it never was."""
        return int(np.argmax(self.successes)) + 1 if self.success else None


class Controller(Protocol):
    """Chooses actions for the n episodes that run at this moment."""

    def __call__(
        self, frames: np.ndarray, states: np.ndarray, expert: np.ndarray, episodes: np.ndarray, steps: np.ndarray
    ) -> np.ndarray:
        """Actions float32 (n, A) in [-1, 1].

        Args:
            frames: uint8 (n, H, W, 3), the camera images now.
            states: float32 (n, S), the proprioceptive states now.
            expert: float32 (n, A), what the scripted expert would do now.
            episodes: int64 (n,), each episode's position in the list of seeds.
            steps: int64 (n,), the actions that each episode has taken.
        """
        ...


def expert_controller(noise: float, seed: int) -> Controller:
    """The scripted expert, with Gaussian noise of standard deviation `noise` on its actions."""

    def act(
        frames: np.ndarray, states: np.ndarray, expert: np.ndarray, episodes: np.ndarray, steps: np.ndarray
    ) -> np.ndarray:
        return _clip(expert + noise * _draw(seed, episodes, steps, "standard_normal"))

    return act


def random_controller(seed: int, hold: int = 1) -> Controller:
    """Actions uniform in [-1, 1], a new one every `hold` steps."""

    def act(
        frames: np.ndarray, states: np.ndarray, expert: np.ndarray, episodes: np.ndarray, steps: np.ndarray
    ) -> np.ndarray:
        return _clip(2.0 * _draw(seed, episodes, steps // hold, "random") - 1.0)

    return act


def disturbed(controller: Controller, largest: float, hold: int, seed: int) -> Controller:
    """The controller, with Gaussian noise on its actions, drawn anew every `hold` steps.

    Each episode draws the noise's standard deviation, uniform up to `largest`. What refines a policy lies between
    what it does and what makes it fail: one strength for all would show the one or the other.
    """
    # Streams of their own: numpy takes (seed, episode) and (seed, episode, 0) for the same seed.
    strength_seed, noise_seed = (int(word) for word in np.random.SeedSequence(seed).generate_state(2))

    def act(
        frames: np.ndarray, states: np.ndarray, expert: np.ndarray, episodes: np.ndarray, steps: np.ndarray
    ) -> np.ndarray:
        strength = largest * _draw(strength_seed, episodes, np.zeros_like(steps), "random")[:, :1]
        noise = strength * _draw(noise_seed, episodes, steps // hold, "standard_normal")
        return _clip(controller(frames, states, expert, episodes, steps) + noise)

    return act


def _draw(seed: int, episodes: np.ndarray, steps: np.ndarray, kind: str) -> np.ndarray:
    """Numbers that depend on the episode and the step alone, not on which worker runs it or when."""
    rows = [
        getattr(np.random.default_rng((seed, int(episode), int(step))), kind)(ACTION_SIZE)
        for episode, step in zip(episodes, steps, strict=True)
    ]
    return np.stack(rows)


def _clip(actions: np.ndarray) -> np.ndarray:
    return np.clip(actions, -1.0, 1.0).astype(np.float32)


@dataclass
class _Running:
    """An episode under way in one worker."""

    index: int
    seed: int
    rows: list[tuple[np.ndarray, np.ndarray, np.ndarray, float, bool]] = field(default_factory=list)

    def finish(self, outcome: np.ndarray) -> Episode:
        frames, states, actions, rewards, successes = zip(*self.rows, strict=True)
        return Episode(
            self.seed,
            np.stack(frames),
            np.stack(states),
            np.stack(actions),
            np.asarray(rewards, np.float32),
            np.asarray(successes, bool),
            outcome,
        )


def roll_out(
    task: str, simulation: Simulation, seeds: Sequence[int], controller: Controller, *, stop_at_success: bool
) -> Generator[Episode, None, None]:
    """Runs one episode a seed in `simulation.workers` processes and yields them in the order of the seeds.

    Whoever wants no more of them closes the generator, which ends the processes.
    With `stop_at_success` an episode ends with the first success; otherwise it has `simulation.episode_steps` rows.
    """
    if not seeds:
        return
    workers = min(simulation.workers, len(seeds))
    env = make_vector_env(task, simulation, expert=True, num_envs=workers)
    try:
        done: dict[int, Episode] = {}
        due = 0
        for index, episode in _run_all(env, workers, list(seeds), controller, stop_at_success):
            done[index] = episode
            while due in done:
                yield done.pop(due)
                due += 1
    finally:
        env.close()


def _run_all(
    env: AsyncVectorEnv, workers: int, seeds: list[int], controller: Controller, stop_at_success: bool
) -> Iterator[tuple[int, Episode]]:
    """Keeps every worker busy until the seeds run out; yields episodes as they end, with their index."""
    running = [_Running(i, seeds[i]) for i in range(workers)]
    waiting = workers
    active = np.ones(workers, bool)
    observation, info = env.reset(seed=[r.seed for r in running])
    actions = np.zeros((workers, ACTION_SIZE), np.float32)
    while active.any():
        # The environment reuses its observation buffers, so what an episode keeps is copied.
        frames, states = observation["pixels"].copy(), observation["state"].copy()
        where = np.flatnonzero(active)
        actions[where] = controller(
            frames[where],
            states[where],
            info["expert"][where],
            np.array([running[i].index for i in where]),
            np.array([len(running[i].rows) for i in where]),
        )
        observation, rewards, _, truncated, info = env.step(actions)
        mask = np.zeros(workers, bool)
        for i in where:
            success = bool(info["success"][i])
            running[i].rows.append((frames[i], states[i], actions[i].copy(), float(rewards[i]), success))
            if truncated[i] or (stop_at_success and success):
                yield running[i].index, running[i].finish(observation["pixels"][i].copy())
                mask[i] = True
        for i in np.flatnonzero(mask):
            if waiting < len(seeds):
                running[i] = _Running(waiting, seeds[waiting])
                waiting += 1
            else:
                active[i] = mask[i] = False
        if mask.any():
            observation, fresh = env.reset(
                seed=[running[i].seed if mask[i] else None for i in range(workers)], options={"reset_mask": mask}
            )
            info["expert"] = np.where(mask[:, None], fresh["expert"], info["expert"]) if "expert" in fresh else None
