"""The Gaussian policy as a LeRobot policy: for `lerobot-eval`, `lerobot-rollout` and `lerobot-train`."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import ACTION, OBS_STATE
from torch import Tensor, nn

from world4rl.models.augmentation import random_shift
from world4rl.models.policy import negative_log_likelihood
from world4rl.models.weights import read_weights
from world4rl.policies.configuration_world4rl import World4RLGaussianConfig
from world4rl.policies.folder import TYPE
from world4rl.provenance.signatures import verify_model


class World4RLGaussianPolicy(PreTrainedPolicy):
    """Acts with the mean action, clipped to [-1, 1].

    Batches are LeRobot's, after the preprocessor: the camera's frames (B, 3, H, W) float in [0, 1], the state (B, S)
    where the policy sees it; for training also a leading time axis where LeRobot adds one, and actions (B, A).
    """

    config_class = World4RLGaussianConfig
    name = TYPE

    def __init__(
        self, config: World4RLGaussianConfig, dataset_stats: dict[str, dict[str, Any]] | None = None, **_: Any
    ) -> None:
        # `lerobot-train` passes the dataset's statistics; the network takes those of the state over and saves them.
        super().__init__(config)
        self.config: World4RLGaussianConfig = config
        self.network = config.build_network()
        if self.network.state_size and dataset_stats and OBS_STATE in dataset_stats:
            state = dataset_stats[OBS_STATE]
            self.network.normalise_states(torch.as_tensor(state["mean"]), torch.as_tensor(state["std"]))
        self.reset()

    @classmethod
    def from_pretrained(cls, pretrained_name_or_path: str | Path, **options: Any) -> World4RLGaussianPolicy:
        """Loads a policy; unlike stock LeRobot it is always strict about the weights.

        Raises:
            DataError: the weights are missing, damaged or another network's.
        """
        options["strict"] = True
        policy: World4RLGaussianPolicy = super().from_pretrained(pretrained_name_or_path, **options)
        return policy

    @classmethod
    def _load_as_safetensor(
        cls, model: World4RLGaussianPolicy, model_file: str, map_location: str, strict: bool
    ) -> World4RLGaussianPolicy:
        verify_model(Path(model_file).parent)
        model.load_state_dict(read_weights(Path(model_file), model.state_dict()))
        return model

    def get_optim_params(self) -> list[nn.Parameter]:
        """What an optimiser trains."""
        return list(self.parameters())

    def reset(self) -> None:
        """Forgets the past frames: a new episode begins."""
        self._seen: deque[Tensor] = deque(maxlen=self.config.n_obs_steps)

    def select_action(self, batch: dict[str, Any], **_: Any) -> Tensor:
        """The mean action (B, A), in [-1, 1]. At an episode's start the first frame stands for the missing ones."""
        frame = batch[self.config.camera_key]
        self._seen.append(frame)
        while len(self._seen) < self.config.n_obs_steps:
            self._seen.append(frame)
        return self._mean(torch.stack(tuple(self._seen), dim=1), batch)

    def predict_action_chunk(self, batch: dict[str, Any], **_: Any) -> Tensor:
        """A chunk of one action: (B, 1, A), in [-1, 1]."""
        return self.select_action(batch)[:, None]

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """The behaviour-cloning loss (equation 2).

        Args:
            batch: Frames (B, F, 3, H, W) or, for F = 1, (B, 3, H, W); the state; `action` (B, A).

        Returns:
            The negative log-likelihood in nats, a scalar, and figures for a log.
        """
        frames = batch[self.config.camera_key]
        if frames.ndim == 4:
            frames = frames[:, None]
        if self.training:
            frames = random_shift(frames, self.config.shift_pixels)
        distribution = self.network(frames, self._state(batch))
        loss = negative_log_likelihood(distribution, batch[ACTION].reshape(len(frames), -1))
        return loss, {"nll": loss.item(), "sigma": distribution.stddev.mean().item()}

    @torch.no_grad()
    def _mean(self, frames: Tensor, batch: dict[str, Any]) -> Tensor:
        mean: Tensor = self.network(frames, self._state(batch)).mean
        return mean.clamp(-1.0, 1.0)

    def _state(self, batch: dict[str, Any]) -> Tensor | None:
        if not self.network.state_size:
            return None
        state = batch[OBS_STATE]
        return state if state.ndim == 2 else state[:, -1]  # with a time axis, the last is now
