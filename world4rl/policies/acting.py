"""A policy as a controller of simulator episodes."""

from __future__ import annotations

from collections import deque

import numpy as np
import torch

from world4rl.envs.episodes import Controller
from world4rl.models.policy import GaussianPolicy


def policy_controller(policy: GaussianPolicy, *, sample_seed: int | None = None) -> Controller:
    """Acts with the policy's mean, or with samples of it, clipped to [-1, 1].

    Args:
        policy: The policy, on any device.
        sample_seed: With a seed, actions are drawn from the Gaussian, each from the seed, the episode and the step
            alone, so that they do not depend on which episodes run side by side.

    Returns:
        A controller for `roll_out`. It keeps each running episode's past frames; at an episode's start the first
        frame stands for the missing ones.
    """
    device = next(policy.parameters()).device
    seen: dict[int, deque[np.ndarray]] = {}

    def act(
        frames: np.ndarray, states: np.ndarray, expert: np.ndarray, episodes: np.ndarray, steps: np.ndarray
    ) -> np.ndarray:
        for frame, episode, step in zip(frames, episodes, steps, strict=True):
            if step == 0:
                seen[int(episode)] = deque([frame] * policy.frames, maxlen=policy.frames)
            else:
                seen[int(episode)].append(frame)
        for finished in seen.keys() - {int(episode) for episode in episodes}:
            del seen[finished]
        history = np.stack([np.stack(seen[int(episode)]) for episode in episodes])
        with torch.inference_mode():
            pixels = torch.from_numpy(history).to(device).permute(0, 1, 4, 2, 3).float() / 255
            state = torch.from_numpy(np.ascontiguousarray(states)).to(device) if policy.state_size else None
            # One by one: the last bits of a convolution depend on the size of its batch.
            rows = [policy(pixels[i : i + 1], None if state is None else state[i : i + 1]) for i in range(len(pixels))]
            actions = torch.cat([row.mean for row in rows]).cpu().numpy()
            if sample_seed is not None:
                sigma = torch.cat([row.stddev for row in rows]).cpu().numpy()
                noise = [
                    np.random.default_rng((sample_seed, int(episode), int(step))).standard_normal(policy.action_size)
                    for episode, step in zip(episodes, steps, strict=True)
                ]
                actions = actions + sigma * np.stack(noise)
        return np.clip(actions, -1.0, 1.0).astype(np.float32)

    return act
