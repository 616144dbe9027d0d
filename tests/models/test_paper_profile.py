"""The paper's recipe is not only a file: its 330M-parameter world model builds and takes its first training step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch

from world4rl.config import load_profile
from world4rl.demos.store import EpisodeStore
from world4rl.demos.windows import WindowSampler
from world4rl.models.denoiser import Denoiser, Shapes, parameter_count
from world4rl.training.denoiser import DenoiserTrainer

PAPER = load_profile("paper")
MEMORY = 8e9  # bytes: weights, gradients, Adam's two moments and the average are five times 1.2 GB


def test_the_denoiser_has_the_papers_size():
    with torch.device("meta"):
        denoiser = Denoiser(PAPER.world_model, Shapes(PAPER.simulation.image_size, 4, 4, len(PAPER.tasks)))
    assert parameter_count(denoiser) == pytest.approx(330e6, rel=0.01)


@pytest.mark.slow
@pytest.mark.skipif(psutil.virtual_memory().available < MEMORY, reason="needs 8 GB of free memory")
def test_its_first_training_step(tmp_path: Path, write_store: Callable[..., None]):
    write_store(tmp_path / "store", size=PAPER.simulation.image_size, action_size=4, state_size=4, lengths=(12, 12, 12))
    settings = PAPER.world_model.model_copy(update={"batch_size": 1})
    stores = [EpisodeStore.open(tmp_path / "store")]
    sampler = WindowSampler(stores, length=settings.history + settings.autoregressive_steps, history=settings.history)
    trainer = DenoiserTrainer(settings, sampler, stores, seed=0, device=torch.device("cpu"))
    figures = trainer.advance()
    assert trainer.step == 1
    assert 0 < figures["loss"] < 10
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trainer.model.parameters())
    assert trainer.model.unet.conv_out.weight.abs().max() > 0, "it began at zero"
