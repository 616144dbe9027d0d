"""The success classifier, seen from stock LeRobot."""

from __future__ import annotations

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


@pytest.fixture
def classifier(tmp_path: Path) -> SuccessClassifier:
    """Saved at tmp_path / "classifier"; about half of random frames are above its threshold."""
    register_third_party_plugins()
    torch.manual_seed(0)
    network = SuccessClassifier("small-cnn", 24)
    network.threshold = float(network.probability(torch.rand(64, 3, 24, 24)).median())
    save_classifier(network, tmp_path / "classifier")
    return network


def _load(folder: Path) -> torch.nn.Module:
    config = RewardModelConfig.from_pretrained(folder)
    config.pretrained_path, config.device = str(folder), "cpu"
    return make_reward_model(config)


def test_rewards_are_the_classifiers_verdicts(classifier: SuccessClassifier, tmp_path: Path) -> None:
    model = _load(tmp_path / "classifier")
    frames = torch.rand(32, 3, 24, 24)
    rewards = model.compute_reward({CAMERA: frames, "observation.state": torch.rand(32, 4)})
    assert rewards.dtype == torch.float32
    assert torch.equal(rewards, classifier.succeeded(frames).float())
    assert set(rewards.tolist()) == {0.0, 1.0}
    history = torch.stack([1 - frames, frames], dim=1)
    assert torch.equal(model.compute_reward({CAMERA: history}), rewards)


def test_looks_at_the_camera_that_is_named(classifier: SuccessClassifier, tmp_path: Path) -> None:
    model = _load(tmp_path / "classifier")
    frames = {"observation.images.a": torch.rand(8, 3, 24, 24), "observation.images.b": torch.rand(8, 3, 24, 24)}
    with pytest.raises(ValueError, match="name one of"):
        model.compute_reward(frames)
    model.config.input_features = {"observation.images.b": PolicyFeature(FeatureType.VISUAL, (3, 24, 24))}
    expected = classifier.succeeded(frames["observation.images.b"]).float()
    assert torch.equal(model.compute_reward(frames), expected)


def test_bigger_frames_are_shrunk_first(classifier: SuccessClassifier, tmp_path: Path) -> None:
    model = _load(tmp_path / "classifier")
    preprocessor, _ = make_reward_pre_post_processors(model.config)
    out = preprocessor({CAMERA: torch.rand(2, 3, 96, 80)})
    assert out[CAMERA].shape == (2, 3, 24, 24)


def test_round_trip_through_lerobot(classifier: SuccessClassifier, tmp_path: Path) -> None:
    _load(tmp_path / "classifier").save_pretrained(tmp_path / "again")
    again = load_classifier(tmp_path / "again")
    assert again.threshold == classifier.threshold
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in classifier.state_dict().items())


def test_weights_of_another_network_are_refused(classifier: SuccessClassifier, tmp_path: Path) -> None:
    file = tmp_path / "classifier" / "model.safetensors"
    weights = load_file(file)
    weights["renamed"] = weights.pop("head.bias")
    save_file(weights, file)
    with pytest.raises(DataError, match=r"head\.bias is missing") as caught:
        _load(tmp_path / "classifier")
    assert caught.value.where == str(file)
