"""Behaviour cloning: the Gaussian policy's negative log-likelihood of the demonstrations (equation 2).

Windows of frames are drawn uniformly from the stores and shifted at random; the learning rate falls along a cosine;
the weights of the last step are the policy. The likelihood of held-out demonstrations is measured along the way and
decides nothing: it soon rises again while the success rate still climbs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from world4rl import progress
from world4rl.config import BehaviourCloning, Params
from world4rl.demos.store import EpisodeStore, open_stores
from world4rl.demos.windows import Windows, WindowSampler
from world4rl.files import write_json, write_text
from world4rl.machine import select_device
from world4rl.models.augmentation import random_shift
from world4rl.models.policy import GaussianPolicy, negative_log_likelihood
from world4rl.models.precision import bf16_is_native, fast_autocast
from world4rl.paths import Paths
from world4rl.policies.folder import save_policy
from world4rl.training.checkpoint import Generators, State, capture_optimizer, clear_state, restore_optimizer
from world4rl.training.loop import Tensors, cosine_factor, curve_csv, run, stage_seeds

STAGE = "train-bc"
WARMUP_STEPS = 50  # the learning rate rises for so many steps: Adam's first estimates are noise
GRADIENT_CLIP = 10.0
CURVE_POINTS = 25  # rows of the learning curve
HELD_OUT_WINDOWS = 256  # on which the held-out likelihood is measured


def train(params: Params, paths: Paths, task: str) -> None:
    """Trains `task`'s policy and writes it with its metrics and learning curve.

    Killed and started again it goes on from its last checkpoint, and on CPU ends with the same bytes.

    Args:
        params: Reads `seed`, `behaviour_cloning`, `device`.
        paths: Reads the expert's stores; writes `bc`, `bc_metrics`, `bc_curve`.
        task: The task.

    Raises:
        DataError: there is no store, it has no training episodes, or the saved state is damaged.
    """
    settings = params.behaviour_cloning
    device = select_device(params.device)
    stores = open_stores(paths, [task], ["expert"])
    cloning = Cloning(settings, stores, seeds=stage_seeds(params.seed, f"{STAGE}/{task}", 4), device=device)
    state = paths.run_state(STAGE, task)
    seconds = run(
        cloning,
        settings.training_steps,
        label=f"clone {task}",
        unit="step",
        folder=state,
        every=settings.checkpoint_steps,
        fingerprint={
            "behaviour_cloning": settings.model_dump(mode="json"),
            "seed": params.seed,
            "task": task,
            "stores": [store.digest for store in stores],
            "device": device.type,
        },
    )
    metrics = {"seconds": round(seconds, 3), "task": task, **cloning.measure()}
    save_policy(cloning.policy, paths.bc(task))
    write_text(paths.bc_curve(task), curve_csv(("step", "train_nll", "validation_nll"), cloning.curve))
    write_json(paths.bc_metrics(task), metrics)
    clear_state(state)
    progress.metrics(metrics)


class Cloning:
    """A training run, step by step: a `world4rl.training.loop.Trainer`.

    Args:
        settings: The policy and how it is trained.
        stores: Demonstrations: the split `train` to learn from, the split `test`, if there is one, to measure on.
        seeds: Four, for the weights, the windows, the shifts and the held-out windows.
        device: Where to train.

    Attributes:
        policy: What is trained.
        curve: Rows (step, training loss since the last row, held-out loss or None).
        step: Steps completed.

    Raises:
        DataError: the stores have no training episodes.
    """

    def __init__(
        self, settings: BehaviourCloning, stores: list[EpisodeStore], *, seeds: list[int], device: torch.device
    ) -> None:
        weights, windows, shifts, held_out = seeds
        torch.manual_seed(weights)
        self.step = 0
        self.curve: list[tuple[int, float, float | None]] = []
        self._settings = settings
        self._device = device
        self._losses: list[float] = []  # since the curve's last row
        self._windows = np.random.default_rng(windows)
        self._shifts = torch.Generator().manual_seed(shifts)
        store = next((store for store in stores if len(store)), stores[0])
        camera = store.cameras[0]
        self._sampler = WindowSampler(stores, length=settings.frames, history=settings.frames, camera=camera)
        self.policy = GaussianPolicy(
            settings,
            image_size=store.image_size,
            action_size=store.action_size,
            state_size=store.state_size,
            camera=camera,
        ).to(device)
        if self.policy.state_size:
            states = _states(stores, "train")
            self.policy.normalise_states(states.mean(0), states.std(0))
        self._optimizer = torch.optim.AdamW(
            self.policy.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        self._held_out: Windows | None = None
        if any((store.episodes["split"] == "test").any() for store in stores):
            sampler = WindowSampler(
                stores, length=settings.frames, history=settings.frames, camera=camera, splits=("test",)
            )
            self._held_out = sampler.sample(HELD_OUT_WINDOWS, np.random.default_rng(held_out))

    def advance(self) -> dict[str, float]:
        """One optimiser step, and a row of the learning curve when one is due; returns the losses."""
        steps = self._settings.training_steps
        for group in self._optimizer.param_groups:
            group["lr"] = self._settings.learning_rate * cosine_factor(self.step, steps, WARMUP_STEPS)
        frames, state, actions = self._batch(self._sampler.sample(self._settings.batch_size, self._windows))
        frames = random_shift(frames, self._settings.shift_pixels, self._shifts)
        with fast_autocast(self._device):
            distribution = self.policy(_unit(frames), state)
        loss = negative_log_likelihood(distribution, actions)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), GRADIENT_CLIP)
        self._optimizer.step()
        self._losses.append(loss.item())
        self.step += 1
        figures = {"nll": self._losses[-1]}
        if self.step % max(1, steps // CURVE_POINTS) == 0 or self.step == steps:
            held_out, _ = self._measure_held_out()
            self.curve.append((self.step, float(np.mean(self._losses)), held_out))
            self._losses = []
        if self.curve and self.curve[-1][2] is not None:
            figures["held_out_nll"] = self.curve[-1][2]
        return figures

    def measure(self) -> dict[str, Any]:
        """The finished run's metrics."""
        held_out, error = self._measure_held_out()
        log_std = self.policy.log_std.detach().clamp(*self.policy.log_std_range)
        return {
            "steps": self.step,
            "windows": len(self._sampler),
            "parameters": sum(p.numel() for p in self.policy.parameters()),
            "train_nll": self.curve[-1][1],
            "held_out_nll": held_out,
            "held_out_action_error": error,
            "sigma": [round(float(s), 6) for s in log_std.exp()],
            "precision": "bf16" if bf16_is_native(self._device) else "fp32",
        }

    def capture(self) -> tuple[Tensors, Any, Generators]:
        """What a later process needs to go on from here."""
        optimizer, groups = capture_optimizer(self._optimizer)
        tensors = {"policy": self.policy.state_dict(), "optimizer": optimizer}
        meta = {"groups": groups, "losses": self._losses, "curve": self.curve}
        return tensors, meta, {"windows": self._windows, "shifts": self._shifts}

    def restore(self, state: State) -> None:
        """Takes over what `capture` gave, the generators apart."""
        meta = state.meta["trainer"]
        self.policy.load_state_dict(state.tensors["policy"])
        restore_optimizer(self._optimizer, state.tensors["optimizer"], meta["groups"])
        self._losses = meta["losses"]
        self.curve = [(row[0], row[1], row[2]) for row in meta["curve"]]

    def _batch(self, windows: Windows) -> tuple[Tensor, Tensor | None, Tensor]:
        """Frames uint8 (B, F, 3, H, W), the state now (B, S), the action taken now (B, A)."""
        state = windows.states[:, -1].to(self._device) if self.policy.state_size else None
        return windows.frames.to(self._device), state, windows.actions[:, -1].to(self._device)

    @torch.no_grad()
    def _measure_held_out(self) -> tuple[float, float] | tuple[None, None]:
        """Negative log-likelihood and mean absolute error of the clipped mean action on held-out demonstrations."""
        if self._held_out is None:
            return None, None
        frames, state, actions = self._batch(self._held_out)
        distribution = self.policy(_unit(frames), state)
        error = (distribution.mean.clamp(-1, 1) - actions).abs().mean()
        return negative_log_likelihood(distribution, actions).item(), error.item()


def _states(stores: list[EpisodeStore], split: str) -> Tensor:
    """The states (N, S) of a split's episodes."""
    episodes = [(store, int(row)) for store in stores for row in np.flatnonzero(store.episodes["split"] == split)]
    return torch.from_numpy(np.concatenate([store.states(row) for store, row in episodes]))


def _unit(frames: Tensor) -> Tensor:
    """uint8 frames as floats in [0, 1]."""
    return frames.float() / 255
