"""The success classifier, seen from stock LeRobot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.configs.rewards import RewardModelConfig
from lerobot.rewards.factory import make_reward_model, make_reward_pre_post_processors
from lerobot.utils.import_utils import register_third_party_plugins
from safetensors.torch import load_file, save_file

from world4rl.errors import DataError
from world4rl.models.classifier import SuccessClassifier
from world4rl.models.folder import load_classifier, save_classifier

CAMERA = "observation.images.corner2"
BUTTON, FAUCET = "button-press-topdown-v3", "faucet-open-v3"


@pytest.fixture
def classifier(tmp_path: Path) -> SuccessClassifier:
    """Saved at tmp_path / "classifier"; of random frames about half are above one task's threshold, few the other's."""
    register_third_party_plugins()
    torch.manual_seed(0)
    network = SuccessClassifier("small-cnn", 24)
    chance = network.probability(torch.rand(64, 3, 24, 24))
    network.thresholds = {BUTTON: float(chance.median()), FAUCET: float(chance.quantile(0.9))}
    save_classifier(network, tmp_path / "classifier")
    return network


def _load(folder: Path, task: str | None = None) -> torch.nn.Module:
    config = RewardModelConfig.from_pretrained(folder)
    config.pretrained_path, config.device, config.task = str(folder), "cpu", task
    return make_reward_model(config)


def _expected(classifier: SuccessClassifier, frames: torch.Tensor, *tasks: str) -> torch.Tensor:
    return classifier.succeeded(frames, classifier.thresholds_of(tasks)).float()


def test_rewards_are_the_classifiers_verdicts(classifier: SuccessClassifier, tmp_path: Path) -> None:
    model = _load(tmp_path / "classifier", BUTTON)
    frames = torch.rand(32, 3, 24, 24)
    rewards = model.compute_reward({CAMERA: frames, "observation.state": torch.rand(32, 4)})
    assert rewards.dtype == torch.float32
    assert torch.equal(rewards, _expected(classifier, frames, BUTTON))
    assert set(rewards.tolist()) == {0.0, 1.0}
    history = torch.stack([1 - frames, frames], dim=1)
    assert torch.equal(model.compute_reward({CAMERA: history}), rewards)


def test_each_frame_is_judged_for_the_task_that_the_batch_names(classifier: SuccessClassifier, tmp_path: Path) -> None:
    model = _load(tmp_path / "classifier")
    frames = torch.rand(32, 3, 24, 24)
    rewards = {
        task: model.compute_reward({CAMERA: frames, "task": named})
        for task, named in ((BUTTON, BUTTON), (FAUCET, [FAUCET]), ("both", [BUTTON, FAUCET] * 16))
    }
    for task in (BUTTON, FAUCET):
        assert torch.equal(rewards[task], _expected(classifier, frames, task))
    assert rewards[FAUCET].sum() < rewards[BUTTON].sum()
    assert torch.equal(rewards["both"][::2], rewards[BUTTON][::2])
    assert torch.equal(rewards["both"][1::2], rewards[FAUCET][1::2])
    assert not torch.equal(rewards["both"], rewards[FAUCET])


def test_the_configured_task_goes_before_the_batchs(classifier: SuccessClassifier, tmp_path: Path) -> None:
    """A robot's dataset may describe the task in other words."""
    model = _load(tmp_path / "classifier", FAUCET)
    frames = torch.rand(32, 3, 24, 24)
    rewards = model.compute_reward({CAMERA: frames, "task": ["open the tap"] * 32})
    assert torch.equal(rewards, _expected(classifier, frames, FAUCET))


def test_a_task_must_be_named_where_there_are_several(classifier: SuccessClassifier, tmp_path: Path) -> None:
    model = _load(tmp_path / "classifier")
    batch = {CAMERA: torch.rand(4, 3, 24, 24)}
    for unnamed in (batch, {**batch, "task": ""}):  # LeRobot says "" where an environment names no task
        with pytest.raises(ValueError, match=f"{BUTTON}, {FAUCET}: name one as `task`"):
            model.compute_reward(unnamed)
    with pytest.raises(DataError, match=f"no threshold for 'open the tap'; it has {BUTTON}, {FAUCET}"):
        model.compute_reward({**batch, "task": "open the tap"})
    with pytest.raises(ValueError, match="2 tasks are named for 4 frames"):
        model.compute_reward({**batch, "task": [BUTTON, FAUCET]})
    classifier.thresholds = {BUTTON: classifier.thresholds[BUTTON]}
    save_classifier(classifier, tmp_path / "one")
    rewards = _load(tmp_path / "one").compute_reward(batch)
    assert torch.equal(rewards, _expected(classifier, batch[CAMERA], BUTTON))


def test_thresholds_that_are_none_are_refused(classifier: SuccessClassifier, tmp_path: Path) -> None:
    file = tmp_path / "classifier" / "config.json"
    config = json.loads(file.read_text())
    for thresholds in ({}, {BUTTON: 1.5}):
        file.write_text(json.dumps({**config, "thresholds": thresholds}))
        with pytest.raises(ValueError, match="thresholds must"):
            _load(tmp_path / "classifier")


def test_looks_at_the_camera_that_is_named(classifier: SuccessClassifier, tmp_path: Path) -> None:
    model = _load(tmp_path / "classifier", BUTTON)
    frames = {"observation.images.a": torch.rand(8, 3, 24, 24), "observation.images.b": torch.rand(8, 3, 24, 24)}
    with pytest.raises(ValueError, match="name one of"):
        model.compute_reward(frames)
    model.config.input_features = {"observation.images.b": PolicyFeature(FeatureType.VISUAL, (3, 24, 24))}
    expected = _expected(classifier, frames["observation.images.b"], BUTTON)
    assert torch.equal(model.compute_reward(frames), expected)


def test_bigger_frames_are_shrunk_first(classifier: SuccessClassifier, tmp_path: Path) -> None:
    model = _load(tmp_path / "classifier")
    preprocessor, _ = make_reward_pre_post_processors(model.config)
    out = preprocessor({CAMERA: torch.rand(2, 3, 96, 80), "task": [BUTTON, FAUCET]})
    assert out[CAMERA].shape == (2, 3, 24, 24)
    assert out["task"] == [BUTTON, FAUCET]
    assert model.compute_reward({name: out[name] for name in (CAMERA, "task")}).shape == (2,)


def test_round_trip_through_lerobot(classifier: SuccessClassifier, tmp_path: Path) -> None:
    _load(tmp_path / "classifier").save_pretrained(tmp_path / "again")
    again = load_classifier(tmp_path / "again")
    assert again.thresholds == classifier.thresholds
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in classifier.state_dict().items())


def test_weights_of_another_network_are_refused(classifier: SuccessClassifier, tmp_path: Path) -> None:
    file = tmp_path / "classifier" / "model.safetensors"
    weights = load_file(file)
    weights["renamed"] = weights.pop("head.bias")
    save_file(weights, file)
    with pytest.raises(DataError, match=r"head\.bias is missing") as caught:
        _load(tmp_path / "classifier")
    assert caught.value.where == str(file)
