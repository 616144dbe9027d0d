"""The stage `refined`: PPO inside the frozen world model (the paper's equations 8 and 9)."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal

from world4rl import progress
from world4rl.config import Params, Refinement
from world4rl.demos.store import open_stores
from world4rl.envs.imagination import StartStates
from world4rl.envs.imagined import ImaginedVectorEnv, Observation
from world4rl.files import write_json, write_text
from world4rl.machine import select_device
from world4rl.models.critic import Critic
from world4rl.models.folder import load_classifier, load_denoiser
from world4rl.models.policy import GaussianPolicy, entropy, kl_divergence, log_prob
from world4rl.models.precision import fast_autocast
from world4rl.paths import Paths
from world4rl.policies.folder import load_policy, save_policy
from world4rl.provenance.digests import digest_folder
from world4rl.training.advantages import advantages_and_returns
from world4rl.training.checkpoint import Generators, State, capture_optimizer, clear_state, restore_optimizer
from world4rl.training.loop import Tensors, curve_csv, run, stage_seeds

STAGE = "refine"
COLUMNS = (
    "iteration",
    "imagined_success",
    "approx_kl",
    "bc_kl",
    "clip_fraction",
    "value_loss",
    "sigma",
)
CRITIC_BATCH = 256


def refine(params: Params, paths: Paths, task: str) -> None:
    """Refines `task`'s cloned policy and writes it with its metrics and learning curve.

    Raises:
        DataError: a model or a store is missing or damaged, or the saved training state is.
    """
    settings = params.refinement
    device = select_device(params.device)
    world = load_denoiser(paths.world_model, device)
    classifier = load_classifier(paths.classifier, device)
    policy = load_policy(paths.bc(task), device)
    starts = StartStates(open_stores(paths, (task,)), history=world.denoiser.settings.history, tasks=world.tasks)
    environment_seed, *seeds = stage_seeds(params.seed, f"{STAGE}/{task}", 4)
    env = ImaginedVectorEnv(
        world.denoiser,
        classifier,
        starts,
        num_envs=settings.episodes,
        horizon=settings.horizon,
        mid_trajectory=settings.mid_trajectory,
        seed=environment_seed,
    )
    trainer = PPOTrainer(settings, policy, env, starts, seeds=seeds)
    folder = paths.run_state(STAGE, task)
    seconds = run(
        trainer,
        settings.iterations,
        label=f"refine {task}",
        unit="iteration",
        folder=folder,
        every=settings.checkpoint_iterations,
        fingerprint={
            "refinement": settings.model_dump(mode="json"),
            "seed": params.seed,
            "task": task,
            "inputs": [digest_folder(f) for f in (paths.world_model, paths.classifier, paths.bc(task))],
            "device": device.type,
        },
    )
    save_policy(trainer.policy, paths.refined(task))
    metrics = {"seconds": round(seconds, 3), "task": task, "iterations": trainer.step} | trainer.summary()
    write_text(paths.refined_curve(task), curve_csv(COLUMNS, trainer.curve))
    write_json(paths.refined_metrics(task), metrics)
    clear_state(folder)
    progress.metrics(metrics)


class Rollout(NamedTuple):
    """T steps of B imagined episodes; row t is what was seen before action t and what came of it.

    Attributes:
        frames: uint8 (T, B, F, 3, H, W).
        states: (T, B, S).
        actions: (T, B, A), before clipping.
        log_probs: (T, B), under the policy that acted.
        reference: (T, B, A), the BC policy's mean.
        advantages: (T, B).
        returns: (T, B), the critic's targets.
        success_rate: Of the B first episodes.
    """

    frames: Tensor
    states: Tensor
    actions: Tensor
    log_probs: Tensor
    reference: Tensor
    advantages: Tensor
    returns: Tensor
    success_rate: float


@dataclass
class PPOTrainer:
    """Policy, critic and imagined environment; a step is an iteration: imagine, then several epochs of updates."""

    settings: Refinement
    policy: GaussianPolicy
    env: ImaginedVectorEnv
    starts: StartStates
    seeds: list[int]
    step: int = 0
    curve: list[tuple[float | int, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        s = self.settings
        weights, sampling, batches = self.seeds
        torch.manual_seed(weights)
        self.device = self.env.device
        self.sampling = torch.Generator(self.device).manual_seed(sampling)
        self.batches = np.random.default_rng(batches)
        # A clone's sigma is what it misses its demonstrations by, far too little to explore with.
        self.policy.log_std_range = s.log_std_range
        self.policy.log_std.data.clamp_(*s.log_std_range)
        self.reference = copy.deepcopy(self.policy).requires_grad_(False)
        self.critic = Critic(self.policy).to(self.device)
        self.actor_optimizer = torch.optim.AdamW(
            self.policy.parameters(), lr=s.actor_learning_rate, weight_decay=0.0, fused=True
        )
        self.critic_optimizer = torch.optim.AdamW(
            self.critic.parameters(), lr=s.critic_learning_rate, weight_decay=0.0, fused=True
        )

    def advance(self) -> dict[str, float]:
        """One iteration."""
        if self.step == 0:
            self.fit_critic_to_data()
        rollout = self.imagine()
        figures = self.update(rollout)
        self.step += 1
        figures = {"imagined_success": rollout.success_rate} | figures
        self.curve.append((self.step, *figures.values()))
        return {name: figures[name] for name in ("imagined_success", "bc_kl", "sigma")}

    def fit_critic_to_data(self) -> None:
        """Regresses the critic on the discounted returns of the real episodes, before it guides anything."""
        if not self.settings.critic_pretraining_steps:
            return
        frames, states, returns = self.starts.returns(self.settings.discount)
        if self.policy.frames > 1:
            frames = frames.unsqueeze(1).expand(-1, self.policy.frames, -1, -1, -1)
        else:
            frames = frames.unsqueeze(1)
        for _ in range(self.settings.critic_pretraining_steps):
            rows = torch.from_numpy(self.batches.integers(0, len(returns), CRITIC_BATCH))
            self._step_critic(frames[rows].to(self.device), states[rows].to(self.device), returns[rows].to(self.device))

    @torch.no_grad()
    def imagine(self) -> Rollout:
        """Imagines `episodes` x `horizon` steps with the policy's own samples."""
        observation, _ = self.env.reset()
        columns: dict[str, list[Tensor]] = {
            name: [] for name in (*Rollout._fields[:5], "values", "next", "rewards", "terminated", "finished")
        }
        # Each row's first episode alone gives the success rate: of the later ones the failures would not end in time.
        first = torch.ones(self.env.num_envs, dtype=torch.bool, device=self.device)
        solved = torch.zeros_like(first)
        for _ in range(self.settings.horizon):
            frames, states = self._seen(observation)
            distribution = self._act(self.policy, frames, states)
            noise = torch.randn(distribution.mean.shape, generator=self.sampling, device=self.device)
            actions = distribution.mean + distribution.stddev * noise
            observation, rewards, terminated, truncated, info = self.env.step(actions)
            following = info.get("final_obs", observation)
            row = (
                frames,
                states,
                actions,
                log_prob(distribution, actions),
                self._act(self.reference, frames, states).mean,
                self._value(frames, states),
                self._value(*self._seen(following)),
                rewards,
                terminated if self.settings.bootstrap_at_horizon else terminated | truncated,
                terminated | truncated,
            )
            for column, value in zip(columns.values(), row, strict=True):
                column.append(value)
            solved |= first & terminated
            first &= ~(terminated | truncated)
        stacked = {name: torch.stack(values) for name, values in columns.items()}
        advantages, returns = advantages_and_returns(
            stacked["rewards"],
            stacked["values"],
            stacked["next"],
            terminated=stacked["terminated"],
            finished=stacked["finished"],
            discount=self.settings.discount,
            gae_lambda=self.settings.gae_lambda,
        )
        return Rollout(
            frames=stacked["frames"],
            states=stacked["states"],
            actions=stacked["actions"],
            log_probs=stacked["log_probs"],
            reference=stacked["reference"],
            advantages=advantages,
            returns=returns,
            success_rate=float(solved.float().mean()),
        )

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Several epochs of minibatch updates; the actor waits during the critic's warm-up.

        It also stops as soon as a minibatch finds it further than `target_kl` from the policy that acted: a whole
        epoch later may be ten times too far, above all in its first iteration, when Adam's steps are largest.
        """
        s = self.settings
        flat = rollout._replace(**{name: getattr(rollout, name).flatten(0, 1) for name in Rollout._fields[:-1]})
        spread = flat.advantages.std() + 1e-8
        flat = flat._replace(advantages=(flat.advantages - flat.advantages.mean()) / spread)
        actor_learns = self.step >= s.critic_warmup_iterations
        totals: list[tuple[float, float, float]] = []
        value_losses: list[float] = []
        for _ in range(s.epochs):
            order = torch.from_numpy(self.batches.permutation(len(flat.returns))).to(self.device)
            for rows in order.split(s.minibatch_size):
                batch = flat._replace(**{name: getattr(flat, name)[rows] for name in Rollout._fields[:-1]})
                value_losses.append(self._step_critic(batch.frames, batch.states, batch.returns))
                if actor_learns:
                    totals.append(self._step_actor(batch))
                    actor_learns = s.target_kl is None or totals[-1][0] <= s.target_kl
        approx_kl, bc_kl, clipped = (float(v) for v in np.mean(totals, axis=0)) if totals else (0.0, 0.0, 0.0)
        return {
            "approx_kl": approx_kl,
            "bc_kl": bc_kl,
            "clip_fraction": clipped,
            "value_loss": float(np.mean(value_losses)),
            "sigma": self._sigma(),
        }

    def _step_critic(self, frames: Tensor, states: Tensor, returns: Tensor) -> float:
        loss = F.mse_loss(self._value(frames, states), returns)  # equation 9
        self.critic_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.critic.parameters(), self.settings.gradient_clip)
        self.critic_optimizer.step()
        return float(loss.detach())

    def _step_actor(self, batch: Rollout) -> tuple[float, float, float]:
        """One actor update; returns the approximate KL to the acting policy, the KL to BC, and the clipped share."""
        s = self.settings
        distribution = self._act(self.policy, batch.frames, batch.states)
        log_ratio = log_prob(distribution, batch.actions) - batch.log_probs
        bc_kl = kl_divergence(distribution, self._reference_at(batch.reference)).mean()
        loss = clipped_surrogate(log_ratio.exp(), batch.advantages, s.clip) + s.bc_kl_weight * bc_kl
        loss = loss - s.entropy_weight * entropy(distribution).mean()
        self.actor_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.policy.parameters(), s.gradient_clip)
        self.actor_optimizer.step()
        with torch.no_grad():
            ratio = log_ratio.exp()
            approx_kl = (ratio - 1 - log_ratio).mean()  # Schulman's low-variance estimate
            clipped = ((ratio - 1).abs() > s.clip).float().mean()
        return float(approx_kl), float(bc_kl.detach()), float(clipped)

    def summary(self) -> dict[str, Any]:
        """Figures of the finished run."""
        first, last = self.curve[0], self.curve[-1]
        names = COLUMNS[1:]
        return {"first_iteration": dict(zip(names, first[1:], strict=True))} | dict(zip(names, last[1:], strict=True))

    def capture(self) -> tuple[Tensors, Any, Generators]:
        """What a later process needs to go on from here."""
        actor, actor_groups = capture_optimizer(self.actor_optimizer)
        critic, critic_groups = capture_optimizer(self.critic_optimizer)
        tensors = {
            "policy": self.policy.state_dict(),
            "critic": self.critic.state_dict(),
            "actor_optimizer": actor,
            "critic_optimizer": critic,
        }
        meta = {"actor": actor_groups, "critic": critic_groups, "curve": self.curve}
        return tensors, meta, {"sampling": self.sampling, "batches": self.batches, **self.env.generators}

    def restore(self, state: State) -> None:
        """Takes over what `capture` gave, the generators apart."""
        meta = state.meta["trainer"]
        self.policy.load_state_dict(state.tensors["policy"])
        self.critic.load_state_dict(state.tensors["critic"])
        restore_optimizer(self.actor_optimizer, state.tensors["actor_optimizer"], meta["actor"])
        restore_optimizer(self.critic_optimizer, state.tensors["critic_optimizer"], meta["critic"])
        self.curve = [tuple(row) for row in meta["curve"]]

    def _act(self, policy: GaussianPolicy, frames: Tensor, states: Tensor) -> Normal:
        with fast_autocast(self.device):
            distribution: Normal = policy(unit(frames), states)
        return distribution

    def _value(self, frames: Tensor, states: Tensor) -> Tensor:
        with fast_autocast(self.device):
            values: Tensor = self.critic(unit(frames), states)
        return values

    def _reference_at(self, mean: Tensor) -> Normal:
        """The BC policy's distribution with a mean that was computed when the rollout was made."""
        sigma = self.reference.log_std.exp()
        return Normal(mean, sigma.expand_as(mean), validate_args=False)

    def _seen(self, observation: Observation) -> tuple[Tensor, Tensor]:
        return observation["pixels"][:, -self.policy.frames :], observation["state"]

    def _sigma(self) -> float:
        low, high = self.policy.log_std_range
        return float(self.policy.log_std.detach().clamp(low, high).exp().mean())


def clipped_surrogate(ratio: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """PPO's loss, the negative of equation 8: -mean(min(r A, clip(r, 1 - e, 1 + e) A)); a scalar."""
    return -torch.min(ratio * advantages, ratio.clamp(1.0 - clip, 1.0 + clip) * advantages).mean()


def unit(frames: Tensor) -> Tensor:
    """uint8 frames as floats in [0, 1]."""
    return frames.float() / 255.0
