"""Behaviour cloning: the Gaussian policy's negative log-likelihood of the demonstrations (equation 2).

Windows of frames are drawn uniformly from the store and shifted at random; the learning rate falls along a cosine;
the weights of the last step are the policy. The likelihood of held-out demonstrations is measured along the way and
decides nothing: it soon rises again while the success rate still climbs.
"""

from __future__ import annotations

import csv
import io
import math
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from world4rl import progress
from world4rl.config import BehaviourCloning, Params
from world4rl.demos.store import EpisodeStore
from world4rl.demos.windows import Windows, WindowSampler
from world4rl.files import write_json, write_text
from world4rl.machine import select_device
from world4rl.models.augmentation import random_shift
from world4rl.models.policy import GaussianPolicy, negative_log_likelihood
from world4rl.paths import Paths
from world4rl.policies.folder import save_policy
from world4rl.training.checkpoint import (
    capture_optimizer,
    clear_state,
    load_state,
    restore_optimizer,
    save_state,
)

STAGE = "train-bc"
WARMUP_STEPS = 50  # the learning rate rises for so many steps: Adam's first estimates are noise
GRADIENT_CLIP = 10.0
CURVE_POINTS = 25  # rows of the learning curve
HELD_OUT_WINDOWS = 512  # on which the held-out likelihood is measured


def train(params: Params, paths: Paths, task: str) -> None:
    """Trains `task`'s policy and writes it with its metrics and learning curve.

    Killed and started again it goes on from its last checkpoint, and on CPU ends with the same bytes.

    Args:
        params: Reads `seed`, `behaviour_cloning`, `device`.
        paths: Reads the expert's store; writes `bc`, `bc_metrics`, `bc_curve`.
        task: The task.

    Raises:
        DataError: there is no store, it has no training episodes, or the saved state is damaged.
    """
    settings = params.behaviour_cloning
    device = select_device(params.device)
    store = EpisodeStore.open(paths.store(task, "expert"))
    held_out = bool((store.episodes["split"] == "test").any())
    trainer = _Trainer(settings, store, seed=params.seed, task=task, device=device, held_out=held_out)
    state_folder = paths.run_state(STAGE, task)
    fingerprint = {
        "behaviour_cloning": settings.model_dump(mode="json"),
        "seed": params.seed,
        "task": task,
        "store": store.digest,
        "device": device.type,
    }
    trainer.resume(state_folder, fingerprint)
    with progress.track(f"clone {task}", total=settings.training_steps, start=trainer.step) as bar:
        while trainer.step < settings.training_steps:
            trainer.advance()
            bar.advance(1, **trainer.figures())
            if trainer.step % settings.checkpoint_steps == 0 and trainer.step < settings.training_steps:
                trainer.save(state_folder, fingerprint)
    metrics = trainer.measure()
    save_policy(trainer.policy, paths.bc(task))
    write_text(paths.bc_curve(task), _csv(trainer.curve))
    write_json(paths.bc_metrics(task), metrics)
    clear_state(state_folder)
    progress.metrics(metrics)


@dataclass
class _Trainer:
    """The state of a training run and one step of it."""

    settings: BehaviourCloning
    store: EpisodeStore
    seed: int
    task: str
    device: torch.device
    held_out: bool
    step: int = 0
    seconds: float = 0.0  # spent by earlier processes
    losses: list[float] = field(default_factory=list)  # since the curve's last row
    curve: list[tuple[int, float, float | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.began = time.monotonic()
        entropy = np.random.SeedSequence([self.seed, zlib.crc32(f"{STAGE}/{self.task}".encode())])
        weights, windows, shifts, held_out = (int(n) for n in entropy.generate_state(4))
        torch.manual_seed(weights)
        self.windows = np.random.default_rng(windows)
        self.shifts = torch.Generator().manual_seed(shifts)
        frames, camera = self.settings.frames, self.store.cameras[0]
        self.sampler = WindowSampler([self.store], length=frames, history=frames, camera=camera)
        self.policy = GaussianPolicy(
            self.settings,
            image_size=self.store.image_size,
            action_size=self.store.action_size,
            state_size=self.store.state_size,
            camera=camera,
        ).to(self.device)
        if self.policy.state_size:
            states = self._training_states()
            self.policy.normalise_states(states.mean(0), states.std(0))
        self.optimizer = torch.optim.AdamW(
            self.policy.parameters(),
            lr=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
            fused=True,
        )
        self.held_out_windows: Windows | None = None
        if self.held_out:
            sampler = WindowSampler([self.store], length=frames, history=frames, camera=camera, splits=("test",))
            self.held_out_windows = sampler.sample(HELD_OUT_WINDOWS, np.random.default_rng(held_out))

    def advance(self) -> None:
        """One optimiser step, and a row of the learning curve when one is due."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.settings, self.step)
        frames, state, actions = self._batch(self.sampler.sample(self.settings.batch_size, self.windows))
        frames = random_shift(frames, self.settings.shift_pixels, self.shifts)
        with _autocast(self.device):
            distribution = self.policy(_unit(frames), state)
        loss = negative_log_likelihood(distribution, actions)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), GRADIENT_CLIP)
        self.optimizer.step()
        self.losses.append(loss.item())
        self.step += 1
        every = max(1, self.settings.training_steps // CURVE_POINTS)
        if self.step % every == 0 or self.step == self.settings.training_steps:
            held_out = self._held_out()
            self.curve.append((self.step, float(np.mean(self.losses)), None if held_out is None else held_out[0]))
            self.losses.clear()

    def figures(self) -> dict[str, float]:
        """What the progress bar shows."""
        _, train, held_out = self.curve[-1] if self.curve else (0, math.nan, None)
        figures = {"nll": self.losses[-1] if self.losses else train}
        return figures if held_out is None else figures | {"held_out_nll": held_out}

    def measure(self) -> dict[str, Any]:
        """The finished run's metrics."""
        held_out = self._held_out()
        return {
            "seconds": round(self._elapsed(), 3),
            "task": self.task,
            "steps": self.step,
            "windows": len(self.sampler),
            "parameters": sum(p.numel() for p in self.policy.parameters()),
            "train_nll": self.curve[-1][1],
            "held_out_nll": None if held_out is None else held_out[0],
            "held_out_action_error": None if held_out is None else held_out[1],
            "sigma": [round(float(s), 6) for s in self.policy.log_std.detach().clamp(*self.policy.log_std_range).exp()],
            "precision": "bf16" if _bf16(self.device) else "fp32",
        }

    def save(self, folder: Path, fingerprint: Any) -> None:
        """Writes a checkpoint."""
        optimizer, groups = capture_optimizer(self.optimizer)
        save_state(
            folder,
            self.step,
            {"policy": self.policy.state_dict(), "optimizer": optimizer},
            {"groups": groups, "losses": self.losses, "curve": self.curve, "seconds": self._elapsed()},
            generators={"windows": self.windows, "shifts": self.shifts},
            fingerprint=fingerprint,
        )

    def resume(self, folder: Path, fingerprint: Any) -> None:
        """Goes on from the last checkpoint, if there is one for the same parameters and data."""
        state = load_state(folder, fingerprint=fingerprint)
        if state is None:
            return
        self.policy.load_state_dict(state.tensors["policy"])
        restore_optimizer(self.optimizer, state.tensors["optimizer"], state.meta["groups"])
        state.restore_random({"windows": self.windows, "shifts": self.shifts})
        self.step = state.step
        self.losses = state.meta["losses"]
        self.curve = [(row[0], row[1], row[2]) for row in state.meta["curve"]]
        self.seconds = state.meta["seconds"]
        progress.log(f"goes on from step {self.step}")

    def _elapsed(self) -> float:
        return self.seconds + time.monotonic() - self.began

    def _batch(self, windows: Windows) -> tuple[Tensor, Tensor | None, Tensor]:
        """Frames uint8 (B, F, 3, H, W), the state now (B, S), the action taken now (B, A)."""
        state = windows.states[:, -1].to(self.device) if self.policy.state_size else None
        return windows.frames.to(self.device), state, windows.actions[:, -1].to(self.device)

    @torch.no_grad()
    def _held_out(self) -> tuple[float, float] | None:
        """Negative log-likelihood and mean absolute error of the clipped mean action on held-out demonstrations."""
        if self.held_out_windows is None:
            return None
        frames, state, actions = self._batch(self.held_out_windows)
        distribution = self.policy(_unit(frames), state)
        error = (distribution.mean.clamp(-1, 1) - actions).abs().mean()
        return negative_log_likelihood(distribution, actions).item(), error.item()

    def _training_states(self) -> Tensor:
        episodes = np.flatnonzero(self.store.episodes["split"] == "train")
        return torch.from_numpy(np.concatenate([self.store.states(int(episode)) for episode in episodes]))


def learning_rate(settings: BehaviourCloning, step: int) -> float:
    """The learning rate of a step (counted from 0): a short linear rise, then a cosine down to zero."""
    rise = min(1.0, (step + 1) / WARMUP_STEPS)
    return settings.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * step / settings.training_steps))


def _unit(frames: Tensor) -> Tensor:
    """uint8 frames as floats in [0, 1]."""
    return frames.float() / 255


def _bf16(device: torch.device) -> bool:
    """Whether bf16 is fast here: emulated, it is slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


@contextmanager
def _autocast(device: torch.device) -> Iterator[None]:
    with torch.autocast(device.type, torch.bfloat16, enabled=_bf16(device)):
        yield


def _csv(curve: list[tuple[int, float, float | None]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("step", "train_nll", "validation_nll"))
    writer.writerows((step, f"{train:.6f}", "" if held is None else f"{held:.6f}") for step, train, held in curve)
    return text.getvalue()
