"""The value function that PPO's advantages and the bootstrap at truncation come from."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from world4rl.models.encoder import FrameEncoder, initialise
from world4rl.models.policy import FEATURES, HIDDEN, GaussianPolicy


class Critic(nn.Module):
    """V(x) with an encoder of its own: the value loss then never moves the policy's features.

    Args:
        policy: The policy whose observations the critic sees; its shapes and state statistics are taken over,
            its weights are not.
    """

    def __init__(self, policy: GaussianPolicy) -> None:
        super().__init__()
        self.state_size = policy.state_size
        self.encoder = FrameEncoder(
            image_size=policy.image_size, frames=policy.frames, width=policy.settings.width, features=FEATURES
        )
        self.head = nn.Sequential(nn.Linear(FEATURES + self.state_size, HIDDEN), nn.ReLU(inplace=True))
        self.value = nn.Linear(HIDDEN, 1)
        for layer in self.head:
            if isinstance(layer, nn.Linear):
                initialise(layer, gain=2**0.5)
        initialise(self.value, gain=1.0)
        if self.state_size:
            self.register_buffer("state_mean", policy.get_buffer("state_mean").clone())
            self.register_buffer("state_std", policy.get_buffer("state_std").clone())

    def forward(self, frames: Tensor, state: Tensor | None = None) -> Tensor:
        """The expected discounted return.

        Args:
            frames: (B, F, 3, H, W) float in [0, 1], oldest first.
            state: (B, S) in its own units, where the policy sees it.

        Returns:
            (B,).

        Raises:
            ValueError: the state is missing.
        """
        features = self.encoder(frames).float()
        if self.state_size:
            if state is None:
                raise ValueError(f"this critic sees the state: pass state (B, {self.state_size})")
            scaled = (state - self.get_buffer("state_mean")) / self.get_buffer("state_std")
            features = torch.cat((features, scaled), dim=-1)
        with torch.autocast(frames.device.type, enabled=False):
            return self.value(self.head(features)).squeeze(-1)
