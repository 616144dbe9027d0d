"""Generalised advantage estimation against the sum that defines it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from world4rl.training.advantages import advantages_and_returns


def direct(rewards, values, following, terminated, finished, discount, gae_lambda) -> torch.Tensor:
    """The O(T^2) sum of Schulman et al. 2016, equation 16, term by term."""
    steps, batch = rewards.shape
    result = torch.zeros_like(rewards)
    for b in range(batch):
        for t in range(steps):
            for k in range(t, steps):
                bootstrap = 0.0 if terminated[k, b] else discount * following[k, b]
                delta = rewards[k, b] + bootstrap - values[k, b]
                result[t, b] += (discount * gae_lambda) ** (k - t) * delta
                if finished[k, b]:
                    break
    return result


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10_000),
    steps=st.integers(1, 9),
    discount=st.floats(0.1, 1),
    gae_lambda=st.floats(0, 1),
)
def test_the_recursion_is_the_sum(seed, steps, discount, gae_lambda):
    random = torch.Generator().manual_seed(seed)
    draw = [torch.rand(steps, 5, generator=random, dtype=torch.float64) for _ in range(3)]
    ends = torch.rand(steps, 5, generator=random)
    terminated, finished = ends < 0.15, ends < 0.35
    advantages, returns = advantages_and_returns(
        *draw, terminated=terminated, finished=finished, discount=discount, gae_lambda=gae_lambda
    )
    torch.testing.assert_close(advantages, direct(*draw, terminated, finished, discount, gae_lambda))
    torch.testing.assert_close(returns, advantages + draw[1])


def episode(rewards, values, following, ends, cuts, discount, gae_lambda):
    columns = [torch.tensor(c, dtype=torch.float64)[:, None] for c in (rewards, values, following)]
    ends, cuts = (torch.tensor(c)[:, None] for c in (ends, cuts))
    result = advantages_and_returns(*columns, terminated=ends, finished=cuts, discount=discount, gae_lambda=gae_lambda)
    return [column[:, 0].tolist() for column in result]


def test_with_lambda_one_the_target_is_the_discounted_return_and_stops_at_the_termination():
    ends = [False, False, True, False, False]
    _, returns = episode([0.0, 0.0, 1.0, 0.0, 0.0], [9.0] * 5, [9.0, 9.0, 9.0, 9.0, 0.8], ends, ends, 0.5, 1.0)
    # Nothing comes after the termination in row 2; the last row is bootstrapped with 0.8.
    assert returns == pytest.approx([0.25, 0.5, 1.0, 0.2, 0.4])


def test_a_truncation_is_bootstrapped_with_its_own_last_observation():
    _, returns = episode([0.0, 0.0, 0.0], [2.0, 4.0, 3.0], [4.0, 0.6, 0.2], [False] * 3, [False, True, False], 0.5, 1.0)
    # Row 1 was truncated: 0.6 stands for what would have come; row 2 belongs to another episode.
    assert returns == pytest.approx([0.15, 0.3, 0.1])


def test_a_reward_in_a_chain_is_credited_to_the_action_that_earned_it():
    """Chain of three states with known values: only the last action is rewarded, so with a perfect critic no
    action has an advantage; a critic that is off by one row gives itself away."""
    gamma = 0.9
    truth = [gamma**2, gamma, 1.0]
    ends = [False, False, True]
    advantages, returns = episode([0.0, 0.0, 1.0], truth, [gamma, 1.0, 0.0], ends, ends, gamma, 0.95)
    assert advantages == pytest.approx([0, 0, 0], abs=1e-12)
    assert returns == pytest.approx(truth)
    shifted, _ = episode([0.0, 0.0, 1.0], [gamma, 1.0, 0.0], [1.0, 0.0, 0.0], ends, ends, gamma, 0.95)
    assert shifted != pytest.approx([0, 0, 0], abs=1e-3)


def test_lambda_zero_looks_one_step_ahead():
    advantages, _ = episode([1.0, 0.0], [0.5, 0.25], [0.25, 0.125], [False, False], [False, False], 0.5, 0.0)
    assert advantages == pytest.approx([1 + 0.125 - 0.5, 0.0625 - 0.25])
