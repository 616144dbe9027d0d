"""A trainer killed at any moment goes on and ends with the same bytes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError, safe_open

from world4rl.errors import DataError, MachineError
from world4rl.training import checkpoint
from world4rl.training.checkpoint import capture_optimizer, clear_state, load_state, restore_optimizer, save_state

TOY = Path(__file__).with_name("toy_trainer.py")


def toy(*arguments: object) -> str:
    result = subprocess.run(
        [sys.executable, str(TOY), *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_a_trainer_killed_again_and_again_ends_with_the_same_bytes(tmp_path):
    died = int(toy("random", tmp_path, 15))
    assert died >= 3, "the trainers finished before they were killed: the test shows nothing"
    assert (tmp_path / "killed").read_bytes() == (tmp_path / "uninterrupted").read_bytes()
    assert not (tmp_path / "state").exists()


@pytest.mark.live
def test_killed_inside_a_save_a_whole_state_is_left_and_the_end_is_the_same(tmp_path):
    step_left = {
        "before save_file": 14,
        "after save_file": 14,
        "before fsync": 14,
        "before replace": 14,
        "after replace": 21,
    }
    assert json.loads(toy("inside", tmp_path, *step_left)) == step_left
    for number in range(len(step_left)):
        assert (tmp_path / f"out{number}").read_bytes() == (tmp_path / "uninterrupted").read_bytes()


def test_no_state_gives_none_and_clearing_twice_is_fine(tmp_path):
    assert load_state(tmp_path / "nothing") is None
    save_state(tmp_path / "s", 1, {})
    clear_state(tmp_path / "s")
    clear_state(tmp_path / "s")
    assert load_state(tmp_path / "s") is None


def test_a_state_of_other_parameters_is_not_continued(tmp_path):
    save_state(tmp_path, 5, {}, fingerprint={"width": 32, "range": (0.1, 1)})
    assert load_state(tmp_path, fingerprint={"width": 64, "range": (0.1, 1)}) is None
    state = load_state(tmp_path, fingerprint={"width": 32, "range": (0.1, 1)})
    assert state is not None
    assert state.step == 5


def test_every_dtype_shape_and_shared_memory_survive(tmp_path):
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    tensors = {
        "a": {"whole": base, "row": base[1], "transposed": base.T, "same": base},
        "b": {"bf16": torch.ones(2, dtype=torch.bfloat16), "flag": torch.tensor(True), "empty": torch.zeros(0, 3)},
        "c": {},
    }
    save_state(tmp_path, 0, tensors)
    state = load_state(tmp_path)
    assert state is not None
    assert list(state.tensors) == ["a", "b", "c"]
    for group, members in tensors.items():
        assert set(state.tensors[group]) == set(members)
        for name, tensor in members.items():
            assert state.tensors[group][name].dtype == tensor.dtype
            assert torch.equal(state.tensors[group][name], tensor)


@pytest.mark.parametrize("kind", [np.random.PCG64, np.random.Philox, np.random.MT19937, np.random.SFC64])
def test_generators_go_on_where_they_were(tmp_path, kind):
    numpy_generator = np.random.Generator(kind(3))
    torch_generator = torch.Generator().manual_seed(4)
    generators = {"n": numpy_generator, "t": torch_generator}
    numpy_generator.integers(0, 10, dtype=np.int32)  # leaves half a word in the bit generator

    def draw():
        return [
            *numpy_generator.normal(size=5),
            numpy_generator.integers(0, 9, dtype=np.int32),
            torch.rand(1, generator=torch_generator).item(),
            torch.rand(1).item(),
        ]

    save_state(tmp_path, 0, {}, generators=generators)
    expected = draw()
    draw()
    state = load_state(tmp_path)
    assert state is not None
    state.restore_random(generators)
    assert draw() == expected


def test_other_generators_than_saved_are_refused(tmp_path):
    save_state(tmp_path, 0, {}, generators={"a": np.random.default_rng(0)})
    state = load_state(tmp_path)
    assert state is not None
    with pytest.raises(DataError, match="random generators"):
        state.restore_random({})


def test_an_optimizer_goes_on_where_it_was(tmp_path):
    def make():
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        optimizer = torch.optim.AdamW(
            [{"params": [model.weight], "lr": 0.1}, {"params": [model.bias], "lr": 0.2, "betas": (0.5, 0.9)}]
        )
        return model, optimizer

    def step(model, optimizer):
        optimizer.zero_grad()
        model(torch.ones(1, 3)).sum().square().backward()
        optimizer.step()

    model, optimizer = make()
    step(model, optimizer)
    tensors, groups = capture_optimizer(optimizer)
    save_state(tmp_path, 1, {"model": model.state_dict(), "optimizer": tensors}, groups)
    step(model, optimizer)

    state = load_state(tmp_path)
    assert state is not None
    again, again_optimizer = make()
    again.load_state_dict(state.tensors["model"])
    restore_optimizer(again_optimizer, state.tensors["optimizer"], state.meta)
    step(again, again_optimizer)
    assert torch.equal(again.weight, model.weight)
    assert torch.equal(again.bias, model.bias)


def test_the_file_holds_no_pickle_and_readable_json(tmp_path):
    save_state(tmp_path, 3, {"model": {"w": torch.ones(2)}}, {"note": "hello"})
    with safe_open(tmp_path / checkpoint.STATE_FILE, framework="pt") as stream:
        header = json.loads(stream.metadata()["world4rl"])
    assert (header["step"], header["meta"]) == (3, {"note": "hello"})


@pytest.mark.parametrize("damage", ["truncated", "garbage", "foreign"])
def test_a_damaged_state_is_named_with_its_remedy(tmp_path, damage):
    save_state(tmp_path, 3, {"model": {"w": torch.ones(1000)}})
    path = tmp_path / checkpoint.STATE_FILE
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-10])
    elif damage == "garbage":
        path.write_bytes(b"\xff" * 100)
    else:
        checkpoint.save_file({"w": torch.ones(1)}, path)
    with pytest.raises(DataError, match="delete this file") as caught:
        load_state(tmp_path)
    assert caught.value.where == str(path)


def test_on_a_full_disk_the_previous_state_stays(tmp_path, monkeypatch):
    save_state(tmp_path, 1, {"model": {"w": torch.ones(4)}})

    def full(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(MachineError, match="disk is full"):
        save_state(tmp_path, 2, {"model": {"w": torch.zeros(4)}})
    state = load_state(tmp_path)
    assert state is not None
    assert state.step == 1
    assert [p.name for p in tmp_path.iterdir()] == [checkpoint.STATE_FILE]
