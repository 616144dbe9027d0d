"""The success classifier (equation 3)."""

import math

import pytest
import torch

from world4rl.errors import DataError
from world4rl.models.classifier import (
    BACKBONES,
    SuccessClassifier,
    checked_thresholds,
    classifier_loss,
    load_imagenet,
)


def test_binary_cross_entropy_by_hand():
    log_odds = torch.tensor([0.0, 2.0, -1.0])
    success = torch.tensor([True, False, False])
    probability = [1 / (1 + math.exp(-v)) for v in log_odds.tolist()]
    expected = -(math.log(probability[0]) + math.log(1 - probability[1]) + math.log(1 - probability[2])) / 3
    assert classifier_loss(log_odds, success).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_gives_one_number_a_frame_and_learns(backbone):
    torch.manual_seed(0)
    classifier = SuccessClassifier(backbone, 32)
    log_odds = classifier(torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8))
    assert log_odds.shape == (2,)
    assert log_odds.dtype == torch.float32
    classifier_loss(log_odds, torch.tensor([True, False])).backward()
    first = next(classifier.backbone.parameters())
    assert first.grad is not None
    assert first.grad.abs().sum() > 0


@pytest.fixture
def classifier() -> SuccessClassifier:
    torch.manual_seed(0)
    return SuccessClassifier("small-cnn", 16).eval()


def test_uint8_and_unit_frames_are_the_same(classifier):
    frames = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8)
    torch.testing.assert_close(classifier(frames), classifier(frames.float() / 255))


def test_success_is_a_probability_at_or_above_the_threshold(classifier):
    frames = torch.randint(0, 256, (33, 3, 16, 16), dtype=torch.uint8)
    probability = classifier.probability(frames)
    seen = classifier.succeeded(frames, float(probability[7]))
    assert seen.dtype == torch.bool
    assert seen[7], "the threshold itself counts"
    assert torch.equal(seen, probability >= probability[7])
    assert 0 < seen.sum() < 33


def test_each_frame_is_judged_by_its_own_tasks_threshold(classifier):
    frames = torch.randint(0, 256, (33, 3, 16, 16), dtype=torch.uint8)
    probability = classifier.probability(frames)
    low, high = float(probability.quantile(0.2)), float(probability.quantile(0.8))
    classifier.thresholds = {"door-open-v3": low, "soccer-v3": high}
    assert classifier.threshold_of("soccer-v3") == high
    tasks = ["soccer-v3", "door-open-v3", "door-open-v3"] * 11
    seen = classifier.succeeded(frames, classifier.thresholds_of(tasks))
    easy = torch.tensor([task == "door-open-v3" for task in tasks])
    assert torch.equal(seen[easy], probability[easy] >= low)
    assert torch.equal(seen[~easy], probability[~easy] >= high)
    assert not torch.equal(seen, classifier.succeeded(frames, low))
    assert not torch.equal(seen, classifier.succeeded(frames, high))


def test_a_task_without_a_threshold_is_named(classifier):
    with pytest.raises(DataError, match="no threshold for 'soccer-v3'; it has none"):
        classifier.threshold_of("soccer-v3")
    classifier.thresholds = {"door-open-v3": 0.3, "drawer-open-v3": 0.5}
    for ask in (lambda: classifier.threshold_of("soccer-v3"), lambda: classifier.thresholds_of(["soccer-v3"])):
        with pytest.raises(DataError, match="no threshold for 'soccer-v3'; it has door-open-v3, drawer-open-v3"):
            ask()


@pytest.mark.parametrize(
    "values",
    [None, {}, 0.5, {"a": "0.5"}, {"a": None}, {"a": True}, {"a": 0.5, "b": 1.01}, {"a": -0.1}, {"a": math.nan}],
)
def test_thresholds_are_probabilities_by_task(values):
    with pytest.raises(ValueError, match=r"^thresholds must .* in \[0, 1\], not "):
        checked_thresholds(values)


def test_the_bounds_themselves_are_probabilities():
    assert checked_thresholds({"a": 0, "b": 1.0, "c": 0.34}) == {"a": 0.0, "b": 1.0, "c": 0.34}


def test_batches_change_nothing(classifier):
    frames = torch.randint(0, 256, (33, 3, 16, 16), dtype=torch.uint8)
    torch.testing.assert_close(
        classifier.probability(frames, batch=8), classifier.probability(frames), rtol=0, atol=1e-2
    )
    assert classifier.probability(frames[:0]).shape == (0,)


def test_an_unknown_backbone_is_refused():
    with pytest.raises(ValueError, match="resnet18, efficientnet-lite0, small-cnn"):
        SuccessClassifier("resnet19", 16)


def test_imagenet_weights_that_a_package_ships_are_loaded():
    torch.manual_seed(0)
    classifier = SuccessClassifier("efficientnet-lite0", 32)
    before = next(classifier.backbone.parameters()).clone()
    assert load_imagenet(classifier) == "imagenet"
    first = next(classifier.backbone.parameters())
    assert not torch.equal(first, before)
    torch.manual_seed(1)
    again = SuccessClassifier("efficientnet-lite0", 32)
    load_imagenet(again)
    assert torch.equal(next(again.backbone.parameters()), first)


def test_without_weights_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert load_imagenet(SuccessClassifier("resnet18", 32)).startswith("none (no file resnet18")
    assert load_imagenet(SuccessClassifier("small-cnn", 32)).startswith("none (this backbone has none")


def test_cached_resnet_weights_are_loaded(tmp_path, monkeypatch):
    from torchvision.models import resnet18

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.manual_seed(3)
    original = resnet18(weights=None)
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(original.state_dict(), tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth")
    classifier = SuccessClassifier("resnet18", 32)
    assert load_imagenet(classifier) == "imagenet"
    assert torch.equal(classifier.backbone.conv1.weight, original.conv1.weight)
