"""World-model training: the unrolled loss, the weights' average, and going on after an interruption."""

from __future__ import annotations

import copy
import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from world4rl.config import Params, Simulation, TaskParameters, WorldModel, dump_params
from world4rl.demos.store import EpisodeStore
from world4rl.demos.windows import Windows, WindowSampler
from world4rl.envs.imagination import StartStates
from world4rl.errors import DataError
from world4rl.models.denoiser import Context, Denoiser, Shapes, to_uint8, to_unit
from world4rl.models.folder import load_denoiser
from world4rl.models.preconditioning import coefficients
from world4rl.paths import SOURCES, Paths
from world4rl.training.checkpoint import STATE_FILE
from world4rl.training.denoiser import (
    DenoiserTrainer,
    open_stores,
    train,
    training_rows,
    unrolled_loss,
    update_average,
)

TASKS = ("handle-press-v3", "button-press-topdown-v3")  # not in the sampler's order
Settings = Callable[..., WorldModel]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def windows(length: int, batch: int = 2) -> Windows:
    random = generator()
    return Windows(
        frames=torch.randint(0, 256, (batch, length, 3, 16, 16), dtype=torch.uint8, generator=random),
        actions=torch.rand(batch, length, 2, generator=random) * 2 - 1,
        states=torch.randn(batch, length, 3, generator=random),
        success=torch.zeros(batch, length, dtype=torch.bool),
        valid=torch.ones(batch, length, dtype=torch.bool),
        task=torch.zeros(batch, dtype=torch.long),
        success_episode=torch.zeros(batch, dtype=torch.bool),
        reference=torch.randint(0, 256, (batch, 3, 16, 16), dtype=torch.uint8, generator=random),
    )


def denoiser(settings: WorldModel) -> Denoiser:
    torch.manual_seed(0)
    model = Denoiser(settings, Shapes(16, 2, 3, 1))
    nn.init.normal_(model.unet.conv_out.weight, std=0.05)
    return model


class Spy:
    """Records every call of a denoiser's network and what it gave."""

    def __init__(self, model: Denoiser, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[torch.Tensor, torch.Tensor, Context, torch.Tensor, torch.Tensor]] = []
        forward = model.forward

        def record(noised, sigma, context, level):
            output = forward(noised, sigma, context, level)
            self.calls.append((noised, sigma, context, level, output))
            return output

        monkeypatch.setattr(model, "forward", record)


@pytest.mark.parametrize("predict_state", [False, True])
@pytest.mark.parametrize("residual", [False, True])
def test_a_predicted_frame_takes_the_true_ones_place_without_gradient(
    small_world_model: Settings, monkeypatch: pytest.MonkeyPatch, residual: bool, predict_state: bool
):
    settings = small_world_model(
        autoregressive_steps=3, history_noise=0.0, residual=residual, predict_state=predict_state
    )
    model, data = denoiser(settings), windows(5)
    spy = Spy(model, monkeypatch)
    unrolled_loss(model, data, generator())
    truth = to_unit(data.frames)
    assert len(spy.calls) == 3
    predicted, predicted_states = [], []
    for step, (noised, sigma, context, level, output) in enumerate(spy.calls):
        known = [truth[:, row] for row in (0, 1)] + predicted
        torch.testing.assert_close(context.frames, torch.stack(known[step : step + 2], dim=1))
        assert torch.equal(context.actions, data.actions[:, step : step + 2])
        assert not context.frames.requires_grad
        if predict_state:
            states = [data.states[:, row] for row in (0, 1)] + predicted_states
            torch.testing.assert_close(context.states, torch.stack(states[step : step + 2], dim=1))
            assert not context.states.requires_grad
        assert (level == 0).all()
        frames, states = model.decode(model.estimate(noised, sigma, output.detach()), context)
        predicted.append(to_unit(to_uint8(frames)))
        predicted_states.append(states)
    assert not torch.allclose(predicted[0], truth[:, 2], atol=0.05), "the prediction is not the truth"


def test_frames_that_are_gone_on_from_are_predicted_as_the_sampler_does(
    small_world_model: Settings, monkeypatch: pytest.MonkeyPatch
):
    model = denoiser(small_world_model(autoregressive_steps=3))
    spy = Spy(model, monkeypatch)
    unrolled_loss(model, windows(5, batch=8), generator())
    sigmas = [call[1] for call in spy.calls]
    assert (torch.stack(sigmas[:2]) == 5.0).all()
    assert len(set(sigmas[2].tolist())) == 8, "the last one has a random level a row"


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_of_the_rows_is_noised_as_the_samplers_start(
    small_world_model: Settings, monkeypatch: pytest.MonkeyPatch, share: float
):
    model = denoiser(small_world_model(autoregressive_steps=1, sampler_start_share=share, sampling_initial_noise=0.0))
    spy = Spy(model, monkeypatch)
    unrolled_loss(model, windows(3, batch=200), generator())
    noised, sigma, *_ = spy.calls[0]
    started = sigma == 5.0
    assert torch.equal(started, (noised == 0).flatten(1).all(dim=1))
    assert started.float().mean().item() == pytest.approx(share, abs=0.12)


def test_the_gradient_is_the_sum_of_each_steps_own(small_world_model: Settings, monkeypatch: pytest.MonkeyPatch):
    settings = small_world_model(autoregressive_steps=2)
    model, data = denoiser(settings), windows(4)
    plain = copy.deepcopy(model)
    with monkeypatch.context() as patch:
        spy = Spy(model, patch)
        total = unrolled_loss(model, data, generator())
    losses = []
    for row, (noised, sigma, context, level, _) in enumerate(spy.calls):
        target = plain.target(to_unit(data.frames[:, 2 + row]), None, context)
        c = coefficients(sigma, settings.sigma_data, settings.sigma_offset_noise)
        wanted = (target - c.skip.reshape(-1, 1, 1, 1) * noised) / c.out.reshape(-1, 1, 1, 1)
        losses.append(((plain(noised, sigma, context, level) - wanted) ** 2).mean())
    mean = torch.stack(losses).mean()
    mean.backward()
    assert total == pytest.approx(mean.item(), rel=1e-5)
    for mine, expected in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, expected.grad, rtol=1e-4, atol=1e-6)


def test_the_history_carries_noise_of_the_level_that_is_told(
    small_world_model: Settings, monkeypatch: pytest.MonkeyPatch
):
    model = denoiser(small_world_model(autoregressive_steps=1, history_noise=0.4))
    data = windows(3, batch=64)
    spy = Spy(model, monkeypatch)
    unrolled_loss(model, data, generator())
    ((_, _, context, level, _),) = spy.calls
    assert level.min() >= 0
    assert 0.3 < level.max() <= 0.4
    noise = context.frames - to_unit(data.frames[:, :2])
    torch.testing.assert_close(noise.flatten(1).std(1), level, rtol=0.1, atol=1e-3)


def test_the_task_is_told_only_on_request(small_world_model: Settings, monkeypatch: pytest.MonkeyPatch):
    for told in (False, True):
        model = denoiser(small_world_model(autoregressive_steps=1, task_conditioning=told))
        spy = Spy(model, monkeypatch)
        unrolled_loss(model, windows(3), generator())
        assert (spy.calls[0][2].task is not None) == told


def test_the_episodes_first_frame_is_shown_without_noise_and_on_request_only(
    small_world_model: Settings, monkeypatch: pytest.MonkeyPatch
):
    data = windows(4)
    for shown in (False, True):
        model = denoiser(small_world_model(autoregressive_steps=2, reference_frame=shown, history_noise=0.4))
        spy = Spy(model, monkeypatch)
        unrolled_loss(model, data, generator())
        references = [context.reference for _, _, context, *_ in spy.calls]
        assert len(references) == 2
        for reference in references:
            assert torch.equal(reference, to_unit(data.reference)) if shown else reference is None


def test_the_average_moves_by_one_minus_the_decay():
    torch.manual_seed(0)
    average, model = nn.Linear(3, 2), nn.Linear(3, 2)
    expected = {
        name: 0.9 * a + 0.1 * m for (name, a), m in zip(average.state_dict().items(), model.parameters(), strict=True)
    }
    update_average(average, model, 0.9)
    for name, value in average.state_dict().items():
        torch.testing.assert_close(value, expected[name])
    update_average(average, model, 0.0)
    assert torch.equal(average.weight, model.weight)


@pytest.fixture
def trainer(write_store: Callable[..., None], small_world_model: Settings, tmp_path: Path) -> DenoiserTrainer:
    write_store(tmp_path / "store")
    stores = [EpisodeStore.open(tmp_path / "store")]
    settings = small_world_model(training_steps=200, learning_rate=2e-3, ema_decay=0.95)
    sampler = WindowSampler(stores, length=4, history=2)
    return DenoiserTrainer(settings, sampler, stores, seed=0, device=torch.device("cpu"))


def test_the_first_share_of_the_training_is_not_unrolled(
    write_store: Callable[..., None], small_world_model: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_store(tmp_path / "store")
    stores = [EpisodeStore.open(tmp_path / "store")]
    settings = small_world_model(autoregressive_steps=3, single_step_share=0.5, training_steps=4)
    sampler = WindowSampler(stores, length=5, history=2)
    trainer = DenoiserTrainer(settings, sampler, stores, seed=0, device=torch.device("cpu"))
    spy = Spy(trainer.model, monkeypatch)
    calls = []
    for _ in range(4):
        trainer.advance()
        calls.append(len(spy.calls))
    assert calls == [1, 2, 5, 8]
    assert [trainer.work(steps) for steps in range(1, 5)] == calls, "what the time left is estimated from"


def test_ranges_come_from_training_episodes_alone(trainer: DenoiserTrainer):
    (store,) = trainer.stores
    actions, states = training_rows(trainer.stores)
    assert len(actions) == 9 + 7
    assert states is not None
    np.testing.assert_array_equal(actions, np.concatenate([store.actions(0), store.actions(1)]))
    torch.testing.assert_close(trainer.model.get_buffer("action_low"), actions.amin(0))
    torch.testing.assert_close(trainer.average.get_buffer("action_high"), actions.amax(0))


def test_training_lowers_the_loss_and_the_average_follows(trainer: DenoiserTrainer):
    losses = [trainer.advance()["loss"] for _ in range(60)]
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:5])
    distance = (trainer.average.unet.conv_in.weight - trainer.model.unet.conv_in.weight).abs().max()
    assert 0 < distance < 0.1
    assert not any(p.grad is not None for p in trainer.average.parameters())


def params(settings: WorldModel) -> Params:
    return Params(
        tasks=TASKS,
        task_parameters={task: TaskParameters() for task in TASKS},
        simulation=Simulation(image_size=16),
        world_model=settings,
        device="cpu",
    )


@pytest.fixture
def make_root(write_store: Callable[..., None], tmp_path: Path) -> Callable[[str], Paths]:
    def make(name: str) -> Paths:
        paths = Paths(tmp_path / name)
        for number, (task, source) in enumerate((task, source) for task in TASKS for source in SOURCES):
            write_store(paths.store(task, source) / "collected", task=task, source=source, seed=number)
        return paths

    return make


def content(paths: Paths) -> dict[str, bytes]:
    files = [*sorted(paths.world_model.iterdir()), paths.world_model_curve]
    return {file.name: file.read_bytes() for file in files}


class Stop(Exception):
    pass


def test_goes_on_where_it_was_interrupted(
    make_root: Callable[[str], Paths], small_world_model: Settings, monkeypatch: pytest.MonkeyPatch
):
    settings = params(small_world_model(autoregressive_steps=2, history_noise=0.1))
    whole, broken = make_root("whole"), make_root("broken")
    train(settings, whole)
    advance, steps = DenoiserTrainer.advance, []

    def stopping(trainer: DenoiserTrainer) -> dict[str, float]:
        if len(steps) == 8:
            steps.append(-1)
            raise Stop
        steps.append(trainer.step)
        return advance(trainer)

    monkeypatch.setattr(DenoiserTrainer, "advance", stopping)
    with pytest.raises(Stop):
        train(settings, broken)
    assert not broken.world_model.exists()
    torch.manual_seed(99)  # what ran in the process before does not matter
    train(settings, broken)
    assert steps[9:] == list(range(5, 12)), "from the last checkpoint, not from the beginning"
    assert content(broken) == content(whole)
    assert not broken.run_state("train-world-model").exists()


def test_what_training_writes(make_root: Callable[[str], Paths], small_world_model: Settings):
    paths = make_root("run")
    train(params(small_world_model()), paths)
    loaded, tasks = load_denoiser(paths.world_model)
    assert tasks == tuple(sorted(TASKS)), "in the order in which the windows number them"
    metrics = json.loads(paths.world_model_metrics.read_text())
    assert metrics["steps"] == 12
    assert metrics["parameters"] == sum(p.numel() for p in loaded.parameters())
    assert metrics["windows"] == 2 * 3 * (7 + 5)
    rows = list(csv.DictReader(paths.world_model_curve.open()))
    assert list(rows[0]) == ["step", "loss", "learning_rate"]
    assert [int(row["step"]) for row in rows] == list(range(1, 13))
    assert float(rows[-1]["loss"]) == pytest.approx(metrics["loss"], rel=1e-5)
    rates = [float(row["learning_rate"]) for row in rows]
    assert rates[0] == pytest.approx(1.5e-4)
    assert max(rates) == pytest.approx(3e-4)
    assert rates[-1] < 3e-5


def test_the_task_index_is_the_one_that_was_trained_on(make_root: Callable[[str], Paths], small_world_model: Settings):
    paths = make_root("run")
    train(params(small_world_model(task_conditioning=True, training_steps=1)), paths)
    _, tasks = load_denoiser(paths.world_model)
    stores = open_stores(paths, TASKS)
    sampler = WindowSampler(stores, length=2, history=2)
    starts = StartStates(stores, history=2, tasks=tasks)
    assert starts.starts().task.tolist() == [sampler.tasks.index(task) for task in TASKS for _ in range(3 * 2)]


SCRIPT = """
import sys
from pathlib import Path
from world4rl.config import load_params
from world4rl.paths import Paths
from world4rl.training.denoiser import train
root = Path(sys.argv[1])
train(load_params(root / "params.yaml"), Paths(root))
"""


@pytest.mark.live
@pytest.mark.slow
def test_survives_sigkill_with_the_same_bytes(make_root: Callable[[str], Paths], small_world_model: Settings):
    settings = params(small_world_model(training_steps=16, checkpoint_steps=4))
    whole, killed = make_root("whole"), make_root("killed")
    for paths in (whole, killed):
        (paths.root / "params.yaml").write_text(dump_params(settings))
    # Both in processes of their own: what other tests did to this one's threads must not tell them apart.
    assert subprocess.run([sys.executable, "-c", SCRIPT, str(whole.root)], timeout=200, check=False).returncode == 0
    command = [sys.executable, "-c", SCRIPT, str(killed.root)]
    state = killed.run_state("train-world-model") / STATE_FILE

    process = subprocess.Popen(command)
    while process.poll() is None and not state.exists():
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was killed before it was done"
    assert not killed.world_model.exists()

    assert subprocess.run(command, timeout=200, check=False).returncode == 0
    assert content(killed) == content(whole)
    assert not state.exists()


def test_a_missing_store_is_one_clear_error(make_root: Callable[[str], Paths], small_world_model: Settings):
    paths = make_root("run")
    shutil.rmtree(paths.store(TASKS[1], "random"))
    with pytest.raises(DataError) as caught:
        train(params(small_world_model()), paths)
    assert str(paths.store(TASKS[1], "random")) in str(caught.value)
    assert not paths.world_model.exists()
