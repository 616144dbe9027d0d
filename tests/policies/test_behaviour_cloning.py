from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from world4rl.config import BehaviourCloning, Params, dump_params, load_profile
from world4rl.demos.store import EpisodeStore
from world4rl.errors import DataError
from world4rl.paths import Paths
from world4rl.policies.folder import load_policy
from world4rl.runner import visible_params
from world4rl.stages import STAGES
from world4rl.training.behaviour_cloning import Cloning, train
from world4rl.training.checkpoint import STATE_FILE

TASK = "button-press-topdown-v3"
SETTINGS = {"width": 8, "batch_size": 16, "training_steps": 120, "checkpoint_steps": 18, "learning_rate": 3e-3}
Write = Callable[..., None]


def _params(**settings: object) -> Params:
    values = BehaviourCloning.model_validate({**SETTINGS, **settings})
    params = load_profile("ci").model_copy(update={"behaviour_cloning": values, "device": "cpu"})
    return visible_params(params, STAGES["train-bc"], TASK)


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def paths(tmp_path: Path, write_demonstrations: Write) -> Paths:
    paths = Paths(tmp_path / "run")
    write_demonstrations(paths.store(TASK, "expert") / "collected")
    return paths


def _copy(paths: Paths, tmp_path: Path, write_demonstrations: Write, name: str) -> Paths:
    other = Paths(tmp_path / name)
    write_demonstrations(other.store(TASK, "expert") / "collected")
    assert (
        EpisodeStore.open(other.store(TASK, "expert") / "collected").digest
        == EpisodeStore.open(paths.store(TASK, "expert") / "collected").digest
    )
    return other


def test_learns_what_the_demonstrations_show(paths: Paths) -> None:
    train(_params(training_steps=300, shift_pixels=0), paths, TASK)
    policy = load_policy(paths.bc(TASK))
    store = EpisodeStore.open(paths.store(TASK, "expert") / "collected")
    (held_out, *_) = np.flatnonzero(store.episodes["split"] == "test")
    frames = torch.from_numpy(store.frames(int(held_out))).permute(0, 3, 1, 2)[:, None].float() / 255
    actions = torch.from_numpy(store.actions(int(held_out)))
    error = (policy(frames).mean - actions).abs().mean()
    constant = (actions - actions.mean(0)).abs().mean()
    assert error < 0.6 * constant
    assert policy.camera == "corner2"

    metrics = json.loads(paths.bc_metrics(TASK).read_text())
    assert metrics["steps"] == 300
    assert metrics["windows"] == 48
    assert metrics["seconds"] > 0
    assert metrics["held_out_action_error"] < 0.6 * constant
    rows = list(csv.DictReader(paths.bc_curve(TASK).open()))
    assert list(rows[0]) == ["step", "train_nll", "validation_nll"]
    assert int(rows[-1]["step"]) == 300
    assert float(rows[-1]["train_nll"]) < float(rows[0]["train_nll"]) - 1
    assert float(rows[-1]["validation_nll"]) < float(rows[0]["validation_nll"])
    assert float(rows[-1]["validation_nll"]) == pytest.approx(metrics["held_out_nll"], abs=1e-5)
    assert not paths.run_state("train-bc", TASK).exists()


def test_normalises_the_state_by_the_training_episodes(paths: Paths) -> None:
    train(_params(state=True, training_steps=2), paths, TASK)
    policy = load_policy(paths.bc(TASK))
    store = EpisodeStore.open(paths.store(TASK, "expert") / "collected")
    states = np.concatenate([store.states(episode) for episode in np.flatnonzero(store.episodes["split"] == "train")])
    np.testing.assert_allclose(policy.get_buffer("state_mean"), states.mean(0), rtol=1e-4)
    np.testing.assert_allclose(policy.get_buffer("state_std"), states.std(0, ddof=1), rtol=1e-4)


def test_without_held_out_episodes(tmp_path: Path, write_demonstrations: Write) -> None:
    paths = Paths(tmp_path)
    write_demonstrations(paths.store(TASK, "expert") / "collected", test=0)
    train(_params(training_steps=3), paths, TASK)
    assert json.loads(paths.bc_metrics(TASK).read_text())["held_out_nll"] is None
    assert next(csv.DictReader(paths.bc_curve(TASK).open()))["validation_nll"] == ""


def test_the_seed_decides(paths: Paths, tmp_path: Path, write_demonstrations: Write) -> None:
    train(_params(training_steps=5), paths, TASK)
    first = _bytes(paths.bc(TASK))
    torch.manual_seed(99)  # what ran before in the process does not matter
    other = _copy(paths, tmp_path, write_demonstrations, "other")
    train(_params(training_steps=5), other, TASK)
    assert _bytes(other.bc(TASK)) == first
    params = load_profile("ci").model_copy(update={"seed": 1, "behaviour_cloning": _params().behaviour_cloning})
    train(params, paths, TASK)
    assert _bytes(paths.bc(TASK))["model.safetensors"] != first["model.safetensors"]


class _Stop(Exception):
    pass


@pytest.mark.parametrize("frames", [1, 2])
def test_goes_on_where_it_was_interrupted(
    paths: Paths, tmp_path: Path, write_demonstrations: Write, monkeypatch: pytest.MonkeyPatch, frames: int
) -> None:
    params = _params(state=True, frames=frames)
    train(params, paths, TASK)
    other = _copy(paths, tmp_path, write_demonstrations, "interrupted")
    original = Cloning.advance
    steps: list[int] = []

    def advance(cloning: Cloning) -> dict[str, float]:
        if cloning.step == 70 and len(steps) == 70:
            raise _Stop
        steps.append(cloning.step)
        return original(cloning)

    monkeypatch.setattr(Cloning, "advance", advance)
    with pytest.raises(_Stop):
        train(params, other, TASK)
    assert not other.bc(TASK).exists()
    train(params, other, TASK)
    assert steps[70:] == list(range(54, 120)), "from the last checkpoint, not from the beginning"
    assert _bytes(other.bc(TASK)) == _bytes(paths.bc(TASK))
    assert other.bc_curve(TASK).read_bytes() == paths.bc_curve(TASK).read_bytes()


def test_other_parameters_or_data_begin_anew(
    paths: Paths, tmp_path: Path, write_demonstrations: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(_params(learning_rate=1e-3), paths, TASK)
    other = _copy(paths, tmp_path, write_demonstrations, "interrupted")
    with monkeypatch.context() as patch:
        original = Cloning.advance

        def advance(cloning: Cloning) -> dict[str, float]:
            if cloning.step == 30:
                raise _Stop
            return original(cloning)

        patch.setattr(Cloning, "advance", advance)
        with pytest.raises(_Stop):
            train(_params(), other, TASK)
    assert (other.run_state("train-bc", TASK) / STATE_FILE).is_file()
    train(_params(learning_rate=1e-3), other, TASK)
    assert _bytes(other.bc(TASK)) == _bytes(paths.bc(TASK))


SCRIPT = """
import sys
from pathlib import Path
from world4rl.config import load_params
from world4rl.paths import Paths
from world4rl.training.behaviour_cloning import train
root = Path(sys.argv[1])
train(load_params(root / "params.yaml"), Paths(root), sys.argv[2])
"""


@pytest.mark.live
def test_survives_sigkill_with_the_same_bytes(paths: Paths, tmp_path: Path, write_demonstrations: Write) -> None:
    params = load_profile("ci").model_copy(update={"behaviour_cloning": _params(training_steps=400).behaviour_cloning})
    train(params, paths, TASK)
    other = _copy(paths, tmp_path, write_demonstrations, "killed")
    (other.root / "params.yaml").write_text(dump_params(params))
    command = [sys.executable, "-c", SCRIPT, str(other.root), TASK]
    state = other.run_state("train-bc", TASK) / STATE_FILE

    killed = subprocess.Popen(command)
    while killed.poll() is None and not state.exists():
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL, "it was killed before it was done"
    assert not other.bc(TASK).exists()

    assert subprocess.run(command, timeout=200, check=False).returncode == 0
    assert _bytes(other.bc(TASK)) == _bytes(paths.bc(TASK))
    assert other.bc_curve(TASK).read_bytes() == paths.bc_curve(TASK).read_bytes()
    assert not state.exists()


def test_no_store_is_one_clear_error(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    with pytest.raises(DataError) as caught:
        train(_params(), paths, TASK)
    assert str(paths.store(TASK, "expert")) in str(caught.value)
    assert not paths.bc(TASK).exists()


def test_a_store_without_training_episodes_is_one_clear_error(tmp_path: Path, write_demonstrations: Write) -> None:
    paths = Paths(tmp_path)
    write_demonstrations(paths.store(TASK, "expert") / "collected", train=0)
    with pytest.raises(DataError, match="train"):
        train(_params(), paths, TASK)
