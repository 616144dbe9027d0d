"""The frozen world model as a gymnasium vector environment over torch tensors."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from torch import Tensor

from world4rl.envs.imagination import Moment, StartStates, advance
from world4rl.models.classifier import SuccessClassifier
from world4rl.models.denoiser import Denoiser

Observation = dict[str, Tensor]


class ImaginedVectorEnv(VectorEnv[Observation, Tensor, Tensor]):
    """Imagined episodes side by side; anything that trains in a vector environment can train in it.

    An observation is `{"pixels": uint8 (B, n, 3, H, W), "state": float32 (B, S)}`, the last n frames (oldest first)
    and the state now, both as tensors on the world model's device. Actions are float (B, A), clipped to [-1, 1]. The
    reward is 1 where the classifier sees a success, which ends the episode; otherwise 0 (the paper's section III-C).
    Each row is judged by its own task's threshold.
    An episode is truncated after `horizon` steps, and one that starts inside a real episode after as many as that one
    had left: time is as short in imagination as it is in a trial. Finished episodes start anew in the same step;
    `info["final_obs"]` then holds every row's observation from before that, and `info["_final_obs"]`, bool (B,), says
    which rows finished, as gymnasium does. In a step in which none does, neither is there.

    Args:
        denoiser: The frozen world model.
        classifier: The frozen success classifier.
        starts: Real moments to start from.
        num_envs: B.
        horizon: Steps after which an episode is truncated at the latest.
        mid_trajectory: Probability that an episode starts inside a real one.
        seed: Of the start states and the sampler's noise; `reset(seed=...)` sets it anew.

    Raises:
        DataError: the classifier has no threshold for one of the tasks of `starts`.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        classifier: SuccessClassifier,
        starts: StartStates,
        *,
        num_envs: int,
        horizon: int,
        mid_trajectory: float = 0.0,
        seed: int = 0,
    ) -> None:
        shapes = denoiser.shapes
        pixels = (starts.history, 3, shapes.image_size, shapes.image_size)
        self.num_envs = num_envs
        self.single_observation_space = spaces.Dict(
            {
                "pixels": spaces.Box(0, 255, pixels, np.uint8),
                "state": spaces.Box(-np.inf, np.inf, (shapes.state_size,), np.float32),
            }
        )
        self.single_action_space = spaces.Box(-1.0, 1.0, (shapes.action_size,), np.float32)
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, num_envs)
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.device = next(denoiser.parameters()).device
        self._denoiser = denoiser
        self._classifier = classifier
        self._thresholds = classifier.thresholds_of(starts.tasks)
        self._starts = starts
        self._horizon = horizon
        self._mid_trajectory = mid_trajectory
        self._seed(seed)

    @property
    def generators(self) -> dict[str, np.random.Generator | torch.Generator]:
        """What the environment draws from; a trainer saves them to go on later."""
        return {"starts": self._rng, "sampler": self._noise}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Draws new start states for all rows; `seed` makes what follows repeatable."""
        if seed is not None:
            self._seed(seed)
        self._moment, self._left = self._draw(self.num_envs)
        return self._observe(), {}

    @torch.no_grad()
    def step(self, actions: Tensor) -> tuple[Observation, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Imagines what actions (B, A) lead to: observation, reward (B,), terminated (B,), truncated (B,) and info."""
        self._moment = advance(self._denoiser, self._moment, actions.float(), self._noise)
        self._left -= 1
        terminated = self._classifier.succeeded(self._moment.frames[:, -1], self._thresholds[self._moment.task])
        truncated = (self._left <= 0) & ~terminated
        info: dict[str, Any] = {"success": terminated}
        finished = terminated | truncated
        if finished.any():
            info |= {"final_obs": self._observe(), "_final_obs": finished}
            self._moment = self._moment.to(self.device)
            fresh, left = self._draw(int(finished.sum()))
            self._moment.replace(finished, fresh)
            self._left[finished] = left
        return self._observe(), terminated.float(), terminated, truncated, info

    def _seed(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._noise = torch.Generator(self.device).manual_seed(seed)

    def _draw(self, count: int) -> tuple[Moment, Tensor]:
        """New start states, and after how many steps their episodes are truncated."""
        moment, left = self._starts.draw(count, self._mid_trajectory, self._rng)
        return moment.to(self.device), left.clamp(max=self._horizon).to(self.device)

    def _observe(self) -> Observation:
        return {"pixels": self._moment.frames, "state": self._moment.states[:, -1]}
