"""Generalised advantage estimation (Schulman et al. 2016) with the value bootstrapped at truncation."""

from __future__ import annotations

import torch
from torch import Tensor


def advantages_and_returns(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    *,
    terminated: Tensor,
    finished: Tensor,
    discount: float,
    gae_lambda: float,
) -> tuple[Tensor, Tensor]:
    """A_t = sum over l of (gamma lambda)^l delta_{t+l}, delta_t = r_t + gamma V(x_{t+1}) [not terminated] - V(x_t).

    The sum stops where an episode finishes. Where it finishes by truncation, V of its last observation stands for
    what would have come; where it terminates, nothing comes. The last row counts as truncated too.

    Args:
        rewards: (T, B), r_t for action t.
        values: (T, B), V of what was seen before action t.
        next_values: (T, B), V of what action t led to, *before* any reset.
        terminated: bool (T, B), action t ended the episode for good.
        finished: bool (T, B), action t ended the episode, by termination or truncation.
        discount: gamma.
        gae_lambda: lambda.

    Returns:
        Advantages (T, B) and value targets A_t + V(x_t) (T, B).
    """
    deltas = rewards + discount * next_values * (~terminated) - values
    advantages = torch.zeros_like(rewards)
    running = torch.zeros_like(rewards[0])
    for step in range(len(rewards) - 1, -1, -1):
        running = deltas[step] + discount * gae_lambda * running * (~finished[step])
        advantages[step] = running
    return advantages, advantages + values
