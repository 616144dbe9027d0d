"""PPO: the surrogate by hand (equation 8), which row belongs to which, the bounds, and going on."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch

from world4rl.config import Refinement
from world4rl.models.policy import GaussianPolicy, kl_divergence, log_prob
from world4rl.training.checkpoint import load_state
from world4rl.training.loop import run
from world4rl.training.ppo import PPOTrainer, clipped_surrogate, unit

SETTINGS = {
    "iterations": 4,
    "episodes": 6,
    "horizon": 5,
    "epochs": 2,
    "minibatch_size": 10,
    "critic_pretraining_steps": 2,
    "critic_warmup_iterations": 0,
    "target_kl": None,
    "checkpoint_iterations": 1,
}


def test_the_surrogate_by_hand():
    ratio = torch.tensor([1.0, 1.5, 0.5, 1.5, 0.5])
    advantages = torch.tensor([2.0, 1.0, 1.0, -1.0, -1.0])
    # Clipped at 1.2 and 0.8 where clipping makes the objective smaller: 2, 1.2, 0.5, -1.5, -0.8.
    assert clipped_surrogate(ratio, advantages, 0.2).item() == pytest.approx(-(2 + 1.2 + 0.5 - 1.5 - 0.8) / 5)


def test_the_surrogate_has_no_gradient_where_it_is_clipped():
    ratio = torch.tensor([1.5, 0.5, 1.5, 0.5], requires_grad=True)
    clipped_surrogate(ratio, torch.tensor([1.0, -1.0, -1.0, 1.0]), 0.2).backward()
    assert ratio.grad.tolist() == pytest.approx([0, 0, 0.25, -0.25])


class Screen:
    """Stands in for the imagined environment: every episode shows one brightness a step, and the action's first
    number must have the sign of the brightness *that was shown before it*. Rows remember what was shown.
    """

    def __init__(self, num_envs: int, *, length: int, seed: int = 0) -> None:
        self.num_envs = num_envs
        self.device = torch.device("cpu")
        self.random = torch.Generator().manual_seed(seed)
        self.length = length

    @property
    def generators(self) -> dict[str, torch.Generator]:
        return {"screen": self.random}

    def reset(self):
        self.steps = torch.zeros(self.num_envs, dtype=torch.long)
        self._light()
        return self.observe(), {}

    def step(self, actions: torch.Tensor):
        right = (actions[:, 0] > 0) == self.bright
        self.steps += 1
        self._light()
        terminated = right & (self.steps >= self.length)
        truncated = (self.steps >= self.length) & ~right
        info = {}
        finished = terminated | truncated
        if finished.any():
            info["final_obs"] = self.observe()
            self.steps[finished] = 0
        return self.observe(), right.float(), terminated, truncated, info

    def observe(self):
        pixels = torch.zeros(self.num_envs, 2, 3, 16, 16, dtype=torch.uint8)
        pixels[self.bright] = 200
        pixels[:, -1, 0, 0, 0] = self.steps.to(torch.uint8)
        return {"pixels": pixels, "state": torch.zeros(self.num_envs, 3)}

    def _light(self):
        self.bright = torch.rand(self.num_envs, generator=self.random) < 0.5


class NoStarts:
    """Real returns to fit the critic to, of which there are few."""

    def returns(self, discount: float):
        return torch.zeros(4, 3, 16, 16, dtype=torch.uint8), torch.zeros(4, 3), torch.full((4,), discount)


@pytest.fixture(autouse=True)
def full_precision(monkeypatch):
    """The equations are compared in fp32: bf16 rounds them."""
    monkeypatch.setattr("world4rl.models.precision.bf16_is_native", lambda device: False)


@pytest.fixture
def make_trainer(make_policy: Callable[..., GaussianPolicy]) -> Callable[..., PPOTrainer]:
    def make(*, length: int = 1, frames: int = 1, **settings: object) -> PPOTrainer:
        values = Refinement.model_validate({**SETTINGS, **settings})
        env = Screen(values.episodes, length=length)
        return PPOTrainer(values, make_policy(frames=frames), env, NoStarts(), seeds=[1, 2, 3])

    return make


def test_it_learns_what_only_aligned_rows_can_teach(make_trainer):
    """If actions were credited to the observation before or after theirs, half of them would stay wrong."""
    trainer = make_trainer(
        episodes=64,
        horizon=8,
        minibatch_size=128,
        epochs=4,
        actor_learning_rate=3e-3,
        critic_learning_rate=3e-3,
        bc_kl_weight=0.0,
        discount=0.1,  # what comes later is another question
    )
    rates = [trainer.advance()["imagined_success"] for _ in range(25)]
    assert np.mean(rates[:2]) < 0.7
    assert np.mean(rates[-3:]) > 0.9


def test_a_rollout_row_holds_what_was_seen_before_its_action(make_trainer, monkeypatch):
    """With a critic that reads the step off the frame, every value and bootstrap can be told."""
    trainer = make_trainer(length=3, horizon=7, gae_lambda=0.0, discount=0.5, frames=2)
    monkeypatch.setattr(trainer, "critic", lambda frames, states: frames[:, -1, 0, 0, 0] * 255)
    calls = []
    step = trainer.env.step

    def record(actions):
        bright = trainer.env.bright.clone()
        result = step(actions)
        calls.append((bright, actions.clone(), result[1].clone(), result[2].clone()))
        return result

    monkeypatch.setattr(trainer.env, "step", record)
    rollout = trainer.imagine()
    assert rollout.frames.shape == (7, 6, 2, 3, 16, 16)
    for t, (bright, actions, rewards, terminated) in enumerate(calls):
        assert torch.equal(rollout.frames[t, :, -1, 1, 5, 5] == 200, bright)
        assert torch.equal(rollout.actions[t], actions)
        shown = t % 3
        assert (rollout.frames[t, :, -1, 0, 0, 0] == shown).all()
        # lambda = 0: the target is r + gamma V(next), where next is the frame before the reset, not after it.
        expected = rewards + 0.5 * (shown + 1) * ~terminated
        torch.testing.assert_close(rollout.returns[t], expected)
        torch.testing.assert_close(rollout.advantages[t], expected - shown)


def test_log_probabilities_are_the_acting_policys(make_trainer):
    trainer = make_trainer()
    rollout = trainer.imagine()
    flat = rollout.frames.flatten(0, 1)
    expected = log_prob(trainer.policy(unit(flat)), rollout.actions.flatten(0, 1))
    torch.testing.assert_close(rollout.log_probs.flatten(), expected, rtol=1e-4, atol=1e-4)
    assert not rollout.log_probs.requires_grad


def test_the_success_rate_counts_each_rows_first_episode(make_trainer, monkeypatch):
    """Episodes of which the solved ones are short must not weigh more than the others."""
    trainer = make_trainer(horizon=6, episodes=2)
    script = iter(range(6))

    def step(actions):
        now = next(script)
        terminated = torch.tensor([now in (1, 3), False])
        truncated = torch.tensor([False, now == 5])
        observation = trainer.env.observe()
        return observation, terminated.float(), terminated, truncated, {"final_obs": observation}

    monkeypatch.setattr(trainer.env, "step", step)
    assert trainer.imagine().success_rate == 0.5


def test_the_critic_learns_alone_during_its_warm_up(make_trainer):
    trainer = make_trainer(critic_warmup_iterations=2)
    policy = copy.deepcopy(trainer.policy.state_dict())
    critic = copy.deepcopy(trainer.critic.state_dict())
    for _ in range(2):
        trainer.advance()
        assert all(torch.equal(value, policy[name]) for name, value in trainer.policy.state_dict().items())
    assert any(not torch.equal(value, critic[name]) for name, value in trainer.critic.state_dict().items())
    trainer.advance()
    assert any(not torch.equal(value, policy[name]) for name, value in trainer.policy.state_dict().items())


def test_the_critic_is_fitted_to_real_returns_first(make_trainer):
    trainer = make_trainer(critic_pretraining_steps=60, discount=0.7)
    trainer.fit_critic_to_data()
    value = trainer.critic(torch.zeros(1, 1, 3, 16, 16))
    assert value.item() == pytest.approx(0.7, abs=0.05)


def test_sigma_never_exceeds_its_bound(make_trainer, make_policy):
    trainer = make_trainer(log_std_range=(-3.0, -1.0), entropy_weight=5.0, actor_learning_rate=0.1, bc_kl_weight=0.0)
    for _ in range(3):
        figures = trainer.advance()
        assert figures["sigma"] <= np.exp(-1.0) + 1e-6
    frames = torch.rand(2, 1, 3, 16, 16)
    assert trainer.policy(frames).stddev.max() <= np.exp(-1.0) + 1e-6
    assert Refinement().log_std_range[1] == 0.0, "the paper's own bound is e^0"


def test_a_clones_small_sigma_is_raised_to_one_that_explores(make_policy):
    policy = make_policy(log_std_range=(-4.0, 0.0))
    torch.nn.init.constant_(policy.log_std, -2.0)
    settings = Refinement.model_validate(SETTINGS | {"log_std_range": (-0.7, -0.2)})
    trainer = PPOTrainer(settings, policy, Screen(6, length=1), NoStarts(), seeds=[1, 2, 3])
    assert policy.log_std_range == (-0.7, -0.2)
    frames = torch.rand(2, 1, 3, 16, 16)
    for network in (policy, trainer.reference):  # of one sigma, so that their divergence is that of their means
        torch.testing.assert_close(network(frames).stddev, torch.full((2, policy.action_size), np.exp(-0.7)).float())
    policy(frames).stddev.sum().backward()
    assert policy.log_std.grad.abs().min() > 0, "and it still learns"


def test_the_penalty_is_the_divergence_from_the_policy_to_the_cloned_one(make_trainer, monkeypatch):
    trainer = make_trainer(bc_kl_weight=0.5, clip=10.0)
    rollout = trainer.imagine()
    with torch.no_grad():
        trainer.policy.mean.bias.add_(0.3)
        trainer.policy.log_std.add_(0.4)
    frames = rollout.frames.flatten(0, 1)
    states = rollout.states.flatten(0, 1)
    now, cloned = trainer.policy(unit(frames), states), trainer.reference(unit(frames), states)
    first, second = now.stddev, cloned.stddev
    by_hand = (second / first).log() + (first**2 + (now.mean - cloned.mean) ** 2) / (2 * second**2) - 0.5
    forward, backward = kl_divergence(now, cloned), kl_divergence(cloned, now)
    torch.testing.assert_close(forward, by_hand.sum(-1), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(forward, backward)

    monkeypatch.setattr(trainer.actor_optimizer, "step", lambda: None)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: None)
    flat = rollout._replace(**{name: getattr(rollout, name).flatten(0, 1) for name in rollout._fields[:-1]})
    nothing = torch.zeros(len(frames))
    _, measured, _ = trainer._step_actor(flat._replace(log_probs=nothing, advantages=nothing))
    assert measured == pytest.approx(forward.mean().item(), rel=1e-4)
    # Without an advantage the penalty alone pulls, and back towards the cloned policy.
    assert trainer.policy.mean.bias.grad.mean() > 0
    expected = torch.autograd.grad(
        0.5 * kl_divergence(trainer.policy(unit(frames), states), cloned).mean(), trainer.policy.log_std
    )
    torch.testing.assert_close(trainer.policy.log_std.grad, expected[0], rtol=1e-4, atol=1e-6)


def test_the_reference_stays_the_cloned_policy(make_trainer, make_policy):
    trainer = make_trainer(actor_learning_rate=1e-2, log_std_range=(-3.0, 0.0))
    trainer.advance()
    cloned = make_policy().state_dict()
    assert all(torch.equal(value, cloned[name]) for name, value in trainer.reference.state_dict().items())


def test_a_target_divergence_stops_the_actor_at_once_but_not_the_critic(make_trainer):
    def steps(target: float | None) -> tuple[int, int]:
        trainer = make_trainer(
            epochs=6, target_kl=target, actor_learning_rate=1e-2, minibatch_size=10, critic_pretraining_steps=0
        )
        trainer.advance()
        optimizers = (trainer.actor_optimizer, trainer.critic_optimizer)
        actor, critic = (int(optimizer.state_dict()["state"][0]["step"]) for optimizer in optimizers)
        return actor, critic

    assert steps(None) == (18, 18)
    assert steps(1e-6) == (2, 18), "the very first minibatch still has no divergence"


def test_advantages_push_the_actions_that_earned_them(make_trainer):
    trainer = make_trainer(bc_kl_weight=0.0, actor_learning_rate=1e-3, minibatch_size=30, epochs=1, episodes=6)
    rollout = trainer.imagine()
    advantages = torch.where(rollout.actions[..., 1] > 0, 1.0, -1.0)
    frames = unit(rollout.frames.flatten(0, 1))
    before = trainer.policy(frames).mean[:, 1].mean().item()
    trainer.update(rollout._replace(advantages=advantages))
    assert trainer.policy(frames).mean[:, 1].mean().item() > before


def bytes_of(trainer: PPOTrainer) -> list[bytes]:
    tensors = [*trainer.policy.state_dict().values(), *trainer.critic.state_dict().values()]
    return [tensor.numpy().tobytes() for tensor in tensors]


@pytest.mark.parametrize("stop", [1, 3])
def test_goes_on_where_it_was_interrupted(make_trainer, tmp_path, monkeypatch, stop):
    def go(trainer: PPOTrainer, name: str) -> None:
        run(trainer, 4, label="refine", unit="iteration", folder=tmp_path / name, every=1, fingerprint={"seed": 0})

    whole = make_trainer()
    go(whole, "whole")

    class Stop(Exception):
        pass

    broken = make_trainer()
    advance = broken.advance

    def stopping() -> dict[str, float]:
        if broken.step == stop:
            raise Stop
        return advance()

    monkeypatch.setattr(broken, "advance", stopping)
    with pytest.raises(Stop):
        go(broken, "broken")
    state = load_state(tmp_path / "broken", fingerprint={"seed": 0})
    assert state is not None
    assert state.step == stop
    torch.manual_seed(99)
    later = make_trainer()
    go(later, "broken")
    assert bytes_of(later) == bytes_of(whole)
    assert later.curve == whole.curve
    assert [row[0] for row in later.curve] == [1, 2, 3, 4]
