"""The stage `world_model`: trains the denoiser on expert, policy and random rollouts of all tasks."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from world4rl import progress
from world4rl.config import Params, WorldModel
from world4rl.demos.store import EpisodeStore, open_stores
from world4rl.demos.windows import Windows, WindowSampler
from world4rl.files import write_json, write_text
from world4rl.machine import select_device
from world4rl.models.denoiser import Context, Denoiser, Shapes, parameter_count, to_uint8, to_unit
from world4rl.models.folder import save_denoiser
from world4rl.paths import Paths
from world4rl.training.checkpoint import Generators, State, capture_optimizer, clear_state, restore_optimizer
from world4rl.training.loop import Tensors, cosine_factor, curve_csv, run, stage_seeds

STAGE = "train-world-model"
CURVE_POINTS = 50
BETAS = (0.9, 0.99)  # a short memory of the squared gradient: runs here have thousands of steps, not millions


def train(params: Params, paths: Paths) -> None:
    """Trains the world model and writes it with its metrics and learning curve.

    Raises:
        DataError: a store is missing or damaged, or the saved training state is.
    """
    settings = params.world_model
    stores = open_stores(paths, params.tasks)
    length = settings.history + settings.autoregressive_steps
    sampler = WindowSampler(stores, length=length, history=settings.history, reference=settings.reference_frame)
    device = select_device(params.device)
    trainer = DenoiserTrainer(settings, sampler, stores, seed=params.seed, device=device)
    folder = paths.run_state(STAGE)
    seconds = run(
        trainer,
        settings.training_steps,
        label="train the world model",
        unit="step",
        folder=folder,
        every=settings.checkpoint_steps,
        fingerprint={
            "world_model": settings.model_dump(mode="json"),
            "seed": params.seed,
            "stores": [store.digest for store in stores],
            "device": device.type,
        },
        work=trainer.work,
    )
    save_denoiser(trainer.average, paths.world_model, sampler.tasks)
    metrics = {
        "seconds": round(seconds, 3),
        "parameters": parameter_count(trainer.model),
        "windows": len(sampler),
        "steps": trainer.step,
        "loss": trainer.curve[-1][1],
    }
    write_text(paths.world_model_curve, curve_csv(("step", "loss", "learning_rate"), trainer.curve))
    write_json(paths.world_model_metrics, metrics)
    clear_state(folder)
    progress.metrics(metrics)


@dataclass
class DenoiserTrainer:
    """The denoiser, the moving average of its weights, and one training step."""

    settings: WorldModel
    sampler: WindowSampler
    stores: list[EpisodeStore]
    seed: int
    device: torch.device
    step: int = 0
    losses: list[float] = field(default_factory=list)  # since the curve's last row
    curve: list[tuple[int, float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        weights, windows, noise = stage_seeds(self.seed, STAGE, 3)
        torch.manual_seed(weights)
        self.windows = np.random.default_rng(windows)
        self.noise = torch.Generator(self.device).manual_seed(noise)
        stores = [store for store in self.stores if len(store)]  # nothing is collected where there is no simulator
        first = stores[0]
        shapes = Shapes(first.image_size[0], first.action_size, first.state_size, len(self.sampler.tasks))
        self.model = Denoiser(self.settings, shapes).to(self.device)
        self.model.fit(*training_rows(stores))
        self.average = copy.deepcopy(self.model).eval()
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=self.settings.learning_rate,
            betas=BETAS,
            weight_decay=self.settings.weight_decay,
            fused=True,
        )

    def advance(self) -> dict[str, float]:
        """One optimiser step."""
        s = self.settings
        rate = s.learning_rate * cosine_factor(self.step, s.training_steps, s.warmup_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        unrolled = self.step >= self._single_steps
        rows = s.history + (s.autoregressive_steps if unrolled else 1)
        windows = to_device(first_rows(self.sampler.sample(s.batch_size, self.windows), rows), self.device)
        self.optimizer.zero_grad(set_to_none=True)
        self.losses.append(unrolled_loss(self.model, windows, self.noise))
        nn.utils.clip_grad_norm_(self.model.parameters(), s.gradient_clip)
        self.optimizer.step()
        self.step += 1
        # The average forgets the random start at once and reaches its full memory after some hundred steps.
        update_average(self.average, self.model, min(s.ema_decay, self.step / (self.step + 10)))
        every = max(1, s.training_steps // CURVE_POINTS)
        if self.step % every == 0 or self.step == s.training_steps:
            self.curve.append((self.step, float(np.mean(self.losses)), rate))
            self.losses.clear()
        return {"loss": self.losses[-1] if self.losses else self.curve[-1][1]}

    def work(self, steps: int) -> float:
        """Predictions a row in the first so many steps: an unrolled step makes several."""
        unrolled = max(0.0, steps - self._single_steps)
        return steps + unrolled * (self.settings.autoregressive_steps - 1)

    @property
    def _single_steps(self) -> float:
        return self.settings.single_step_share * self.settings.training_steps

    def capture(self) -> tuple[Tensors, Any, Generators]:
        """What a later process needs to go on from here."""
        optimizer, groups = capture_optimizer(self.optimizer)
        tensors = {"model": self.model.state_dict(), "average": self.average.state_dict(), "optimizer": optimizer}
        meta = {"groups": groups, "losses": self.losses, "curve": self.curve}
        return tensors, meta, {"windows": self.windows, "noise": self.noise}

    def restore(self, state: State) -> None:
        """Takes over what `capture` gave, the generators apart."""
        meta = state.meta["trainer"]
        self.model.load_state_dict(state.tensors["model"])
        self.average.load_state_dict(state.tensors["average"])
        restore_optimizer(self.optimizer, state.tensors["optimizer"], meta["groups"])
        self.losses = meta["losses"]
        self.curve = [(int(row[0]), row[1], row[2]) for row in meta["curve"]]


def training_rows(stores: list[EpisodeStore]) -> tuple[Tensor, Tensor | None]:
    """Actions (N, A) and, where there are any, states (N, S) of all training episodes."""
    actions, states = [], []
    for store in stores:
        for episode in np.flatnonzero(store.episodes["split"] == "train"):
            actions.append(store.actions(int(episode)))
            if store.state_size:
                states.append(store.states(int(episode)))
    return torch.from_numpy(np.concatenate(actions)), torch.from_numpy(np.concatenate(states)) if states else None


def to_device(windows: Windows, device: torch.device) -> Windows:
    """The same windows on another device."""
    moved: dict[str, Any] = {n: v if v is None else v.to(device, non_blocking=True) for n, v in vars(windows).items()}
    return Windows(**moved)


def first_rows(windows: Windows, count: int) -> Windows:
    """The windows cut short after `count` rows."""
    rows = ("frames", "actions", "states", "success", "valid")
    return replace(windows, **{name: getattr(windows, name)[:, :count] for name in rows})


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Moves an exponential moving average of the weights towards the model's."""
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1.0 - decay)


def unrolled_loss(denoiser: Denoiser, windows: Windows, noise: torch.Generator) -> float:
    """The loss of windows of `history + k` rows, unrolled for k steps; its gradient is added to the denoiser's.

    The first `history` frames are real. From then on each frame that the model predicts takes the real one's place
    in the history, without gradient through it: the model learns to go on from its own output. A frame that will be
    gone on from is predicted as the sampler would, from where the sampler starts; the last one has a random level
    (log-normal, EDM section 5), but a share of the rows starts there too. The history carries noise of a level that
    the model is told.

    Args:
        denoiser: In training mode.
        windows: On the denoiser's device.
        noise: Draws all noise.

    Returns:
        The loss, averaged over the unrolled steps.
    """
    s = denoiser.settings
    truth = to_unit(windows.frames)
    states = windows.states if denoiser.state_size else None
    reference = to_unit(windows.reference) if s.reference_frame and windows.reference is not None else None
    seen, seen_states = truth, states
    total = 0.0
    steps = truth.shape[1] - s.history
    for start in range(steps):
        now = start + s.history
        task = windows.task if s.task_conditioning else None
        past = slice(start, now)
        context = Context(seen[:, past], windows.actions[:, past], _rows(seen_states, past), task, reference)
        level = s.history_noise * torch.rand(len(seen), generator=noise, device=noise.device)
        blurred = context.frames + level.reshape(-1, 1, 1, 1, 1) * torch.randn(
            context.frames.shape, generator=noise, device=noise.device
        )
        noisy = context._replace(frames=blurred)
        last = start == steps - 1
        target = denoiser.target(truth[:, now], _row(states, now), noisy)
        noised, sigma = _noised(denoiser, target, noise) if last else denoiser.sampler_start(target.shape, noise)
        with torch.autocast(truth.device.type, torch.bfloat16, enabled=s.bf16):
            output = denoiser(noised, sigma, noisy, level)
        loss = denoiser.loss(target, noised, sigma, output) / steps
        loss.backward()
        total += float(loss.detach())
        if not last:
            frames, predicted = denoiser.decode(denoiser.estimate(noised, sigma, output.detach()), noisy)
            seen = _with(seen, now, to_unit(to_uint8(frames)))
            seen_states = None if seen_states is None or predicted is None else _with(seen_states, now, predicted)
    return total


def _noised(denoiser: Denoiser, target: Tensor, noise: torch.Generator) -> tuple[Tensor, Tensor]:
    """Canvases to denoise and their levels: random, but in `sampler_start_share` of the rows the sampler's start."""
    random, levels = denoiser.add_noise(target, noise)
    first, first_levels = denoiser.sampler_start(target.shape, noise)
    rows = torch.rand(len(target), generator=noise, device=noise.device) < denoiser.settings.sampler_start_share
    return torch.where(rows.reshape(-1, 1, 1, 1), first, random), torch.where(rows, first_levels, levels)


def _rows(states: Tensor | None, rows: slice) -> Tensor | None:
    return None if states is None else states[:, rows]


def _row(states: Tensor | None, row: int) -> Tensor | None:
    return None if states is None else states[:, row]


def _with(values: Tensor, row: int, replacement: Tensor) -> Tensor:
    return torch.cat((values[:, :row], replacement.unsqueeze(1), values[:, row + 1 :]), dim=1)
