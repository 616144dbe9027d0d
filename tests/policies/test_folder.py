from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from world4rl.errors import DataError
from world4rl.models.policy import GaussianPolicy
from world4rl.policies.folder import load_policy, save_policy

Make = Callable[..., GaussianPolicy]


@pytest.mark.parametrize("settings", [{}, {"state": True, "frames": 3}, {"log_std_range": (-2.5, -0.25), "width": 4}])
def test_round_trip_is_exact(make_policy: Make, tmp_path: Path, settings: dict[str, object]) -> None:
    policy = make_policy(image_size=(24, 32), **settings)
    if policy.state_size:
        policy.normalise_states(torch.rand(4), torch.rand(4))
    save_policy(policy, tmp_path / "policy")
    loaded = load_policy(tmp_path / "policy")
    assert loaded.state_dict().keys() == policy.state_dict().keys()
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in policy.state_dict().items())
    assert loaded.settings == policy.settings
    assert (loaded.camera, loaded.image_size, loaded.log_std_range) == ("corner2", (24, 32), policy.log_std_range)
    frames, state = torch.rand(2, policy.frames, 3, 24, 32), torch.rand(2, 4)
    assert torch.equal(loaded(frames, state).mean, policy(frames, state).mean)
    assert torch.equal(loaded(frames, state).stddev, policy(frames, state).stddev)


def test_a_tightened_sigma_is_saved(make_policy: Make, tmp_path: Path) -> None:
    policy = make_policy()
    policy.log_std_range = (-3.0, -1.75)
    save_policy(policy, tmp_path / "policy")
    assert load_policy(tmp_path / "policy").log_std_range == (-3.0, -1.75)


def test_equal_policies_give_equal_bytes_and_replace_whole_folders(make_policy: Make, tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_policy(make_policy(), tmp_path / name)
    (tmp_path / "two" / "left-over.txt").write_text("from another time")
    save_policy(make_policy(), tmp_path / "two")
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert names == {path.name for path in (tmp_path / "two").iterdir()}
    assert names == {"config.json", "model.safetensors", "policy_preprocessor.json", "policy_postprocessor.json"}
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such policy folder") as caught:
        load_policy(tmp_path / "absent")
    assert caught.value.where == str(tmp_path / "absent")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(make_policy: Make, tmp_path: Path, name: str) -> None:
    save_policy(make_policy(), tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match="lacks a file") as caught:
        load_policy(tmp_path)
    assert caught.value.where == str(tmp_path / name)
    assert caught.value.remedy


def _rename(weights: dict[str, torch.Tensor]) -> None:
    weights["network.renamed"] = weights.pop("network.mean.bias")


def _drop(weights: dict[str, torch.Tensor]) -> None:
    del weights["network.mean.bias"]


def _reshape(weights: dict[str, torch.Tensor]) -> None:
    weights["network.mean.bias"] = torch.zeros(4)


def _retype(weights: dict[str, torch.Tensor]) -> None:
    weights["network.mean.bias"] = weights["network.mean.bias"].double()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_rename, "network.mean.bias is missing; network.renamed does not belong"),
        (_drop, "network.mean.bias is missing"),
        (_reshape, r"network.mean.bias is torch.float32 \(4,\) instead of torch.float32 \(3,\)"),
        (_retype, "network.mean.bias is torch.float64"),
    ],
)
def test_weights_of_another_network_are_refused(
    make_policy: Make, tmp_path: Path, damage: Callable[[dict[str, torch.Tensor]], None], said: str
) -> None:
    save_policy(make_policy(), tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    damage(weights)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match=said) as caught:
        load_policy(tmp_path)
    assert caught.value.where == str(tmp_path / "model.safetensors")


@pytest.mark.parametrize("keep", [0, 5, 300, -100])
def test_truncated_weights_are_refused(make_policy: Make, tmp_path: Path, keep: int) -> None:
    save_policy(make_policy(), tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DataError, match="damaged") as caught:
        load_policy(tmp_path)
    assert caught.value.where == str(file)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("type", "act", "type is 'act'"),
        ("width", -1, "width"),
        ("n_obs_steps", "many", "frames"),
        ("input_features", {}, "one camera"),
        ("output_features", {}, "action"),
        ("optimizer_lr", None, "learning_rate"),
    ],
)
def test_a_wrong_configuration_is_one_clear_error(
    make_policy: Make, tmp_path: Path, key: str, value: object, said: str
) -> None:
    save_policy(make_policy(), tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    with pytest.raises(DataError, match=said) as caught:
        load_policy(tmp_path)
    assert caught.value.where == str(file)


def test_a_configuration_that_is_no_json(make_policy: Make, tmp_path: Path) -> None:
    save_policy(make_policy(), tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DataError, match="not valid JSON"):
        load_policy(tmp_path)
