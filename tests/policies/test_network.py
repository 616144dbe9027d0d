from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from world4rl.config import BehaviourCloning
from world4rl.models.augmentation import random_shift
from world4rl.models.critic import Critic
from world4rl.models.policy import GaussianPolicy, entropy, kl_divergence, log_prob, negative_log_likelihood

Make = Callable[..., GaussianPolicy]


def test_the_loss_is_equation_2(make_policy: Make) -> None:
    policy = make_policy(state=True, frames=2)
    frames, state, actions = torch.rand(5, 2, 3, 24, 24), torch.randn(5, 4), torch.rand(5, 3) * 2 - 1
    distribution = policy(frames, state)
    mean, sigma = distribution.mean.double(), distribution.stddev.double()
    density = torch.exp(-((actions.double() - mean) ** 2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))
    expected = -density.prod(-1).log()
    torch.testing.assert_close(-log_prob(distribution, actions).double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        negative_log_likelihood(distribution, actions).double(), expected.mean(), rtol=1e-5, atol=1e-5
    )


def test_entropy_and_divergence_are_the_closed_forms(make_policy: Make) -> None:
    policy, other = make_policy(), make_policy(log_std_range=(-2.0, -0.5))
    with torch.no_grad():
        other.mean.bias.add_(0.3)
    frames = torch.rand(4, 1, 3, 24, 24)
    p, q = policy(frames), other(frames)
    s, t = p.stddev, q.stddev
    expected = ((t / s).log() + (s**2 + (p.mean - q.mean) ** 2) / (2 * t**2) - 0.5).sum(-1)
    torch.testing.assert_close(kl_divergence(p, q), expected)
    assert (kl_divergence(p, q) > 0).all()
    torch.testing.assert_close(kl_divergence(p, p), torch.zeros(4))
    torch.testing.assert_close(entropy(p), (0.5 * torch.log(2 * math.pi * math.e * s**2)).sum(-1))


def test_sigma_keeps_to_its_bounds_and_can_come_back_from_outside(make_policy: Make) -> None:
    policy = make_policy(log_std_range=(-3.0, 0.0))
    frames = torch.rand(2, 1, 3, 24, 24)
    with torch.no_grad():
        policy.log_std.copy_(torch.tensor([2.0, -9.0, -1.0]))
    torch.testing.assert_close(policy(frames).stddev[0], torch.tensor([1.0, math.exp(-3), math.exp(-1)]))
    policy(frames).stddev.sum().backward()  # descent makes every sigma smaller
    assert policy.log_std.grad is not None
    assert policy.log_std.grad[0] > 0, "above the bound, towards it"
    assert policy.log_std.grad[1] == 0, "below the bound, away from it"
    assert policy.log_std.grad[2] > 0
    policy.log_std.grad = None
    (-policy(frames).stddev.sum()).backward()
    assert policy.log_std.grad is not None
    assert policy.log_std.grad[0] == 0
    assert policy.log_std.grad[1] < 0
    policy.log_std_range = (-3.0, -1.5)
    assert policy(frames).stddev.max() <= math.exp(-1.5) + 1e-6


def test_every_input_counts(make_policy: Make) -> None:
    policy = make_policy(state=True, frames=2)
    frames, state = torch.rand(1, 2, 3, 24, 24), torch.randn(1, 4)
    mean = policy(frames, state).mean
    assert mean.shape == (1, 3)
    for place in range(2):
        changed = frames.clone()
        changed[:, place] = 1 - changed[:, place]
        assert not torch.equal(policy(changed, state).mean, mean)
    assert not torch.equal(policy(frames, state + 1).mean, mean)


def test_states_are_normalised_inside(make_policy: Make) -> None:
    policy, same = make_policy(state=True), make_policy(state=True)
    mean, std = torch.tensor([1.0, -2.0, 300.0, 4.0]), torch.tensor([2.0, 0.5, 10.0, 1.0])
    policy.normalise_states(mean, std)
    frames, state = torch.rand(3, 1, 3, 24, 24), torch.randn(3, 4)
    torch.testing.assert_close(policy(frames, state * std + mean).mean, same(frames, state).mean)


@pytest.mark.parametrize(
    ("shape", "state"), [((2, 1, 3, 24, 20), True), ((2, 2, 3, 24, 24), True), ((2, 1, 3, 24, 24), False)]
)
def test_wrong_inputs_are_refused(make_policy: Make, shape: tuple[int, ...], state: bool) -> None:
    policy = make_policy(state=True)
    with pytest.raises(ValueError, match=r"expects frames|sees the state"):
        policy(torch.rand(shape), torch.rand(2, 4) if state else None)
    with pytest.raises(ValueError, match="sees the state"):
        Critic(policy)(torch.rand(2, 1, 3, 24, 24))


def test_a_policy_that_sees_the_state_needs_one() -> None:
    with pytest.raises(ValueError, match="state_size"):
        GaussianPolicy(BehaviourCloning(state=True), image_size=(24, 24), action_size=3)


@pytest.mark.parametrize("size", [(24, 24), (48, 48), (17, 40), (96, 128)])
def test_any_frame_size_goes(make_policy: Make, size: tuple[int, int]) -> None:
    policy = make_policy(image_size=size)
    assert policy(torch.rand(2, 1, 3, *size)).mean.shape == (2, 3)
    assert Critic(policy)(torch.rand(2, 1, 3, *size)).shape == (2,)


def test_the_critic_learns_apart_from_the_policy(make_policy: Make) -> None:
    policy = make_policy(state=True)
    policy.normalise_states(torch.full((4,), 5.0), torch.full((4,), 2.0))
    critic = Critic(policy)
    shared = {id(p) for p in policy.parameters()} & {id(p) for p in critic.parameters()}
    assert not shared
    torch.testing.assert_close(critic.get_buffer("state_mean"), torch.full((4,), 5.0))
    frames, state, target = torch.rand(8, 1, 3, 24, 24), torch.randn(8, 4), torch.linspace(-1, 1, 8)
    optimizer = torch.optim.Adam(critic.parameters(), lr=3e-3)
    for _ in range(60):
        loss = nn.functional.mse_loss(critic(frames, state), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05


def test_the_head_is_exact_under_autocast(make_policy: Make) -> None:
    policy = make_policy()
    frames = torch.rand(4, 1, 3, 24, 24)
    with torch.autocast("cpu", torch.bfloat16):
        distribution = policy(frames)
    assert distribution.mean.dtype == distribution.stddev.dtype == torch.float32
    rounded = distribution.mean.to(torch.bfloat16).float()
    assert not torch.equal(distribution.mean, rounded)


def test_random_shift_is_pad_and_crop() -> None:
    frames = torch.rand(6, 2, 3, 10, 12)
    shifted = random_shift(frames, 3, torch.Generator().manual_seed(1))
    padded = nn.functional.pad(frames.flatten(1, 2), (3, 3, 3, 3), mode="replicate")
    places = []
    for sample, original in zip(shifted.flatten(1, 2), padded, strict=True):
        found = [
            (row, column)
            for row in range(7)
            for column in range(7)
            if torch.equal(sample, original[:, row : row + 10, column : column + 12])
        ]
        assert len(found) == 1
        places += found
    assert len(set(places)) > 3, "samples are shifted apart"


def test_random_shift_by_nothing_changes_nothing() -> None:
    frames = torch.randint(0, 256, (3, 1, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(random_shift(frames, 0), frames)
    assert random_shift(frames, 2).dtype == torch.uint8
