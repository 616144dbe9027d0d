from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from world4rl.models.policy import GaussianPolicy
from world4rl.policies.acting import policy_controller

Make = Callable[..., GaussianPolicy]


def _frames(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.integers(0, 256, (count, 24, 24, 3), dtype=np.uint8)


def test_every_episode_keeps_its_own_past(make_policy: Make) -> None:
    policy = make_policy(frames=2)
    act = policy_controller(policy)
    rng = np.random.default_rng(0)
    states = np.zeros((2, 4), np.float32)
    first, second, third = _frames(rng, 2), _frames(rng, 2), _frames(rng, 2)
    nobody = np.zeros((2, 3), np.float32)

    def expected(before: np.ndarray, now: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(np.stack([before, now])[None]).permute(0, 1, 4, 2, 3).float() / 255
        return policy(pixels).mean.clamp(-1, 1).detach().numpy()[0]

    act(first, states, nobody, np.array([0, 1]), np.array([0, 0]))
    # Episode 1 has ended and episode 2 takes its place.
    actions = act(second, states, nobody, np.array([0, 2]), np.array([1, 0]))
    np.testing.assert_allclose(actions[0], expected(first[0], second[0]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(actions[1], expected(second[1], second[1]), rtol=1e-5, atol=1e-6)
    actions = act(third, states, nobody, np.array([2, 0]), np.array([1, 2]))
    np.testing.assert_allclose(actions[0], expected(second[1], third[0]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(actions[1], expected(second[0], third[1]), rtol=1e-5, atol=1e-6)


def test_samples_depend_on_seed_episode_and_step_alone(make_policy: Make) -> None:
    policy = make_policy(log_std_range=(-0.1, 0.0))
    frames = _frames(np.random.default_rng(0), 1).repeat(2, axis=0)
    states, nobody = np.zeros((2, 4), np.float32), np.zeros((2, 3), np.float32)

    def act(seed: int | None, episodes: list[int]) -> np.ndarray:
        controller = policy_controller(policy, sample_seed=seed)
        return controller(frames, states, nobody, np.array(episodes), np.array([0, 0]))

    both = act(5, [0, 1])
    assert not np.array_equal(both[0], both[1])
    np.testing.assert_allclose(act(5, [1, 0]), both[::-1], rtol=1e-5, atol=1e-6)
    assert not np.allclose(act(6, [0, 1]), both)
    assert both.dtype == np.float32
    assert np.abs(both).max() <= 1
    mean = act(None, [0, 1])
    np.testing.assert_array_equal(mean[0], mean[1])


def test_which_episodes_run_side_by_side_changes_no_bit_of_an_action(make_policy: Make) -> None:
    policy = make_policy(frames=1, width=32)
    frames = _frames(np.random.default_rng(1), 16)
    states, nobody, steps = np.zeros((16, 4), np.float32), np.zeros((16, 3), np.float32), np.zeros(16, np.int64)

    def act(rows: list[int]) -> np.ndarray:
        controller = policy_controller(policy, sample_seed=3)
        return controller(frames[rows], states[rows], nobody[rows], np.array(rows), steps[rows])

    together = act(list(range(16)))
    for row in range(16):
        np.testing.assert_array_equal(act([row])[0], together[row])


def test_samples_spread_as_sigma_says(make_policy: Make) -> None:
    policy = make_policy(log_std_range=(-2.0, -2.0))
    with torch.no_grad():
        policy.mean.weight.zero_()
        policy.mean.bias.zero_()
    controller = policy_controller(policy, sample_seed=1)
    count = 400
    actions = controller(
        np.zeros((count, 24, 24, 3), np.uint8),
        np.zeros((count, 4), np.float32),
        np.zeros((count, 3), np.float32),
        np.arange(count),
        np.zeros(count, np.int64),
    )
    assert abs(actions.mean()) < 0.02
    assert 0.9 * np.exp(-2) < actions.std() < 1.1 * np.exp(-2)
