"""The plugin, seen from stock LeRobot."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lerobot.configs import FeatureType, PolicyFeature, PreTrainedConfig
from lerobot.envs.factory import make_env_config
from lerobot.policies.factory import get_policy_class, make_policy, make_policy_config, make_pre_post_processors
from lerobot.utils.import_utils import register_third_party_plugins
from PIL import Image
from safetensors.torch import load_file, save_file

import lerobot_policy_world4rl
from world4rl.config import Simulation
from world4rl.envs.episodes import roll_out
from world4rl.errors import DataError
from world4rl.models.policy import GaussianPolicy, negative_log_likelihood
from world4rl.policies.acting import policy_controller
from world4rl.policies.folder import load_policy, save_policy
from world4rl.policies.modeling_world4rl import World4RLGaussianPolicy

Make = Callable[..., GaussianPolicy]
TASK = "button-press-topdown-v3"
CAMERA = "observation.images.corner2"


def _load(folder: Path, **env: Any) -> World4RLGaussianPolicy:
    """As lerobot-eval does it."""
    config = PreTrainedConfig.from_pretrained(folder)
    config.pretrained_path = folder
    return make_policy(config, env_cfg=make_env_config("world4rl_metaworld", **({"image_size": 24} | env)))


def test_the_plugin_is_found_by_its_name(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        register_third_party_plugins()
    assert "Imported third-party plugin: lerobot_policy_world4rl" in caplog.text
    assert get_policy_class("world4rl_gaussian") is World4RLGaussianPolicy
    assert isinstance(make_policy_config("world4rl_gaussian"), lerobot_policy_world4rl.World4RLGaussianConfig)


@pytest.mark.parametrize("settings", [{}, {"state": True, "frames": 3, "width": 4, "log_std_range": (-2.0, -0.5)}])
def test_our_files_are_what_lerobot_itself_would_write(
    make_policy: Make, tmp_path: Path, settings: dict[str, object]
) -> None:
    policy = make_policy(**settings)
    save_policy(policy, tmp_path / "ours")
    theirs = World4RLGaussianPolicy.from_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    for pipeline in make_pre_post_processors(theirs.config):
        pipeline.save_pretrained(tmp_path / "theirs")

    assert PreTrainedConfig.from_pretrained(tmp_path / "theirs") == theirs.config
    read = {root: json.loads((tmp_path / root / "config.json").read_text()) for root in ("ours", "theirs")}
    assert read["theirs"] | read["ours"] == read["theirs"], "every value that we write is what LeRobot keeps"
    for name in ("policy_preprocessor.json", "policy_postprocessor.json"):
        ours, stock = (json.loads((tmp_path / root / name).read_text()) for root in ("ours", "theirs"))
        assert ours == stock
    again = load_policy(tmp_path / "theirs")
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in policy.state_dict().items())
    assert again.settings == policy.settings


def test_acts_as_the_network_does(make_policy: Make, tmp_path: Path) -> None:
    network = make_policy(action_size=4, state=True, frames=3)
    with torch.no_grad():
        network.mean.bias.copy_(torch.tensor([5.0, -5.0, 0.1, 0.2]))
    save_policy(network, tmp_path)
    policy = _load(tmp_path)
    frames, states = torch.rand(5, 2, 3, 24, 24), torch.rand(5, 2, 4)
    for episode in range(2):
        policy.reset()
        for step in range(5):
            batch = {CAMERA: frames[step], "observation.state": states[step], "task": ["press"] * 2}
            action = policy.select_action(batch)
            history = torch.stack([frames[max(0, step + back)] for back in (-2, -1, 0)], dim=1)
            expected = network(history, states[step]).mean.clamp(-1, 1)
            torch.testing.assert_close(action, expected, msg=f"episode {episode}, step {step}")
    assert action[:, 0].tolist() == [1.0, 1.0]
    assert action[:, 1].tolist() == [-1.0, -1.0]
    policy.reset()
    assert policy.predict_action_chunk(batch).shape == (2, 1, 4)


def test_trains_on_the_negative_log_likelihood(make_policy: Make, tmp_path: Path) -> None:
    network = make_policy(action_size=4, state=True, shift_pixels=0)
    save_policy(network, tmp_path)
    policy = _load(tmp_path)
    frames, states, actions = torch.rand(6, 1, 3, 24, 24), torch.rand(6, 1, 4), torch.rand(6, 4)
    assert policy.config.observation_delta_indices == [0]
    loss, figures = policy.forward({CAMERA: frames, "observation.state": states, "action": actions})
    torch.testing.assert_close(loss, negative_log_likelihood(network(frames, states[:, 0]), actions))
    assert figures["nll"] == pytest.approx(loss.item())
    loss.backward()
    assert all(parameter.grad is not None for parameter in policy.get_optim_params())


def test_lerobots_own_loader_is_forced_to_be_strict(make_policy: Make, tmp_path: Path) -> None:
    save_policy(make_policy(action_size=4), tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    weights["network.renamed"] = weights.pop("network.mean.weight")
    save_file(weights, file)
    for load in (
        lambda: World4RLGaussianPolicy.from_pretrained(tmp_path, strict=False),
        lambda: _load(tmp_path),
    ):
        with pytest.raises(DataError, match=r"network\.mean\.weight is missing") as caught:
            load()
        assert caught.value.where == str(file)
    file.write_bytes(file.read_bytes()[:400])
    with pytest.raises(DataError, match="damaged"):
        _load(tmp_path)
    file.unlink()
    with pytest.raises(DataError, match="lacks a file"):
        _load(tmp_path)


def test_takes_the_states_statistics_from_the_dataset(make_policy: Make, tmp_path: Path) -> None:
    save_policy(make_policy(state=True), tmp_path)
    stats = {"observation.state": {"mean": np.array([1.0, 2.0, 3.0, 4.0]), "std": np.array([0.5, 1.0, 2.0, 0.0])}}
    fresh = World4RLGaussianPolicy(PreTrainedConfig.from_pretrained(tmp_path), dataset_stats=stats)
    assert fresh.network.get_buffer("state_mean").tolist() == [1.0, 2.0, 3.0, 4.0]
    torch.testing.assert_close(fresh.network.get_buffer("state_std"), torch.tensor([0.5, 1.0, 2.0, 1e-3]))
    loaded = World4RLGaussianPolicy.from_pretrained(tmp_path, dataset_stats=stats)
    assert loaded.network.get_buffer("state_mean").tolist() == [0.0] * 4, "what was trained with counts"


@pytest.mark.parametrize("cameras", [0, 2])
def test_a_policy_with_another_number_of_cameras_is_refused(cameras: int) -> None:
    image = PolicyFeature(FeatureType.VISUAL, (3, 24, 24))
    config = make_policy_config(
        "world4rl_gaussian",
        device="cpu",
        input_features={f"observation.images.{name}": image for name in range(cameras)},
        output_features={"action": PolicyFeature(FeatureType.ACTION, (4,))},
    )
    with pytest.raises(ValueError, match="exactly one camera"):
        World4RLGaussianPolicy(config)


def test_bigger_camera_images_are_shrunk_as_the_store_shrinks_them(make_policy: Make, tmp_path: Path) -> None:
    save_policy(make_policy(), tmp_path)
    config = PreTrainedConfig.from_pretrained(tmp_path)
    preprocessor, postprocessor = make_pre_post_processors(config, pretrained_path=str(tmp_path))
    smooth = np.linspace(0, 255, 96 * 60 * 3).reshape(96, 60, 3).astype(np.uint8)
    seen = torch.from_numpy(smooth).permute(2, 0, 1).float() / 255
    out = preprocessor({CAMERA: seen, "observation.state": torch.zeros(4)})
    assert out[CAMERA].shape == (1, 3, 24, 24)
    stored = np.asarray(Image.fromarray(smooth).resize((24, 24), Image.Resampling.BILINEAR, reducing_gap=None))
    difference = (out[CAMERA][0].permute(1, 2, 0) * 255).numpy() - stored
    assert np.abs(difference).max() <= 1.0
    mask = torch.zeros(1, 2, dtype=torch.bool)  # lerobot-train says which frames are padding under such a name
    assert torch.equal(preprocessor({CAMERA: seen, f"{CAMERA}_is_pad": mask})[f"{CAMERA}_is_pad"], mask)
    same = preprocessor({CAMERA: torch.rand(3, 24, 24), "observation.state": torch.zeros(4)})
    assert same[CAMERA].shape == (1, 3, 24, 24)
    action = torch.tensor([[0.5, -1.0, 1.0]])
    torch.testing.assert_close(postprocessor(action), action)


def test_the_environment_says_what_lerobot_asks_for() -> None:
    config = make_env_config("world4rl_metaworld", task=TASK, image_size=24, action_repeat=4, episode_length=3)
    assert config.fps == 20
    env = config.create_envs(1)[TASK][0]
    try:
        observation, _ = env.reset(seed=[3])
        assert observation["pixels"]["corner2"].shape == (1, 24, 24, 3)
        assert observation["pixels"]["corner2"].dtype == np.uint8
        assert observation["agent_pos"].shape == (1, 4)
        assert env.call("_max_episode_steps") == (3,)
        assert env.call("task_description") == (TASK,)
        assert env.call("render")[0].shape == (264, 264, 3)
        for step in range(3):
            observation, _, terminated, truncated, info = env.step(np.zeros((1, 4), np.float32))
            assert truncated.tolist() == [step == 2]
            assert not terminated.any()
            assert info["is_success"].tolist() == [False]
    finally:
        env.close()


@pytest.mark.parametrize("wrong", [{"image_size": 5}, {"camera": "ceiling"}, {"action_repeat": 0}])
def test_an_impossible_environment_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        make_env_config("world4rl_metaworld", **wrong)


def test_lerobot_eval_sees_what_our_own_trials_see(make_policy: Make, tmp_path: Path) -> None:
    simulation = Simulation(image_size=24, episode_steps=8, workers=1)
    network = make_policy(action_size=4)
    with torch.no_grad():
        network.mean.weight.mul_(10)  # a fresh mean hardly depends on what is seen
    save_policy(network, tmp_path / "policy")
    command = [
        str(Path(sys.executable).parent / "lerobot-eval"),
        f"--policy.path={tmp_path / 'policy'}",
        "--env.type=world4rl_metaworld",
        "--env.task=reach-v3",
        "--env.image_size=24",
        "--env.episode_length=8",
        "--eval.n_episodes=2",
        "--eval.batch_size=1",
        "--seed=71",
        f"--output_dir={tmp_path / 'out'}",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (result,) = json.loads((tmp_path / "out" / "eval_info.json").read_text())["per_task"]
    episodes = list(roll_out("reach-v3", simulation, [71, 72], policy_controller(network), stop_at_success=True))
    rewards = [float(episode.rewards.sum()) for episode in episodes]
    assert result["metrics"]["sum_rewards"] == pytest.approx(rewards, rel=1e-4)
    assert result["metrics"]["successes"] == [episode.success for episode in episodes]
    assert len(set(rewards)) == 2, "different seeds, different goals"
