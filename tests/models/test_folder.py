"""World model and success classifier on disk: the same back, or one error that names what differs."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from world4rl.errors import DataError
from world4rl.models.classifier import SuccessClassifier
from world4rl.models.folder import CONFIG, WEIGHTS, load_classifier, load_denoiser, save_classifier, save_denoiser

TASKS = ("handle-press-v3", "button-press-topdown-v3")
THRESHOLDS = {"handle-press-v3": 0.34, "button-press-topdown-v3": 0.8}


@pytest.fixture
def world(make_denoiser, tmp_path):
    denoiser = make_denoiser(predict_state=True, task_conditioning=True)
    save_denoiser(denoiser, tmp_path / "world", TASKS)
    return tmp_path / "world"


@pytest.fixture
def judge(tmp_path):
    classifier = SuccessClassifier("small-cnn", 16)
    classifier.thresholds = THRESHOLDS
    save_classifier(classifier, tmp_path / "judge")
    return tmp_path / "judge"


def test_a_world_model_comes_back_frozen_and_equal(make_denoiser, make_context, world):
    original = make_denoiser(predict_state=True, task_conditioning=True)
    loaded, tasks = load_denoiser(world)
    assert tasks == TASKS
    assert loaded.settings == original.settings
    assert loaded.shapes == original.shapes
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    context, noised, sigma = make_context(original), torch.randn(3, 15, 8, 8), torch.ones(3)
    assert torch.equal(loaded.denoise(noised, sigma, context), original.denoise(noised, sigma, context))
    assert torch.equal(loaded.get_buffer("state_mean"), original.get_buffer("state_mean"))


def test_equal_models_are_equal_bytes(make_denoiser, world, tmp_path):
    save_denoiser(make_denoiser(predict_state=True, task_conditioning=True), tmp_path / "again", TASKS)
    for name in (CONFIG, WEIGHTS):
        assert (world / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert sorted(path.name for path in world.iterdir()) == [CONFIG, WEIGHTS]


def test_a_classifier_comes_back_with_its_thresholds(judge):
    classifier = load_classifier(judge)
    assert classifier.thresholds == THRESHOLDS
    assert not classifier.training
    again = judge.parent / "again"
    save_classifier(classifier, again)
    for name in (CONFIG, WEIGHTS):
        assert (again / name).read_bytes() == (judge / name).read_bytes()


@pytest.mark.parametrize(
    ("load", "command"), [(load_denoiser, "train-world-model"), (load_classifier, "train-classifier")]
)
def test_no_folder(tmp_path, load, command):
    with pytest.raises(DataError, match=f"world4rl {command}") as caught:
        load(tmp_path / "absent")
    assert str(tmp_path / "absent" / CONFIG) in str(caught.value)


def test_the_other_models_folder(world, judge):
    with pytest.raises(DataError, match="not a world4rl_success_classifier"):
        load_classifier(world)
    with pytest.raises(DataError, match="not a world4rl_denoiser"):
        load_denoiser(judge)


def edit(folder, change):
    config = json.loads((folder / CONFIG).read_text())
    change(config)
    (folder / CONFIG).write_text(json.dumps(config))


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config.pop("shapes"),
        lambda config: config["world_model"].update(chanels=[16]),
        lambda config: config["world_model"].update(history=0),
        lambda config: config["shapes"].update(depth=3),
        lambda config: config.update(tasks=None),
    ],
)
def test_a_damaged_configuration(world, change):
    edit(world, change)
    with pytest.raises(DataError, match="configuration is damaged") as caught:
        load_denoiser(world)
    assert str(world / CONFIG) in str(caught.value)


def test_a_configuration_that_is_no_json(world):
    (world / CONFIG).write_text('{"type": ')
    with pytest.raises(DataError, match="configuration is damaged"):
        load_denoiser(world)


def test_a_classifier_of_an_unknown_backbone(judge):
    edit(judge, lambda config: config.update(backbone="vgg"))
    with pytest.raises(DataError, match="unknown backbone 'vgg'"):
        load_classifier(judge)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda config: config.pop("thresholds"), "thresholds must give every task a number .* not None"),
        (lambda config: config.update(thresholds={}), "thresholds must give every task a number"),
        (
            lambda config: config["thresholds"].update({"soccer-v3": 1.2}),
            "thresholds must be .* not {'soccer-v3': 1.2}",
        ),
        (lambda config: config["thresholds"].update({"soccer-v3": "0.5"}), "thresholds must be numbers"),
    ],
)
def test_a_classifier_without_proper_thresholds(judge, change, problem):
    edit(judge, change)
    with pytest.raises(DataError, match=problem) as caught:
        load_classifier(judge)
    assert caught.value.where == str(judge / CONFIG)
    assert "train it again" in caught.value.remedy


@pytest.mark.parametrize("kind", ["world", "judge"])
def test_weights_of_another_model(request, kind):
    folder = request.getfixturevalue(kind)
    load = load_denoiser if kind == "world" else load_classifier
    weights = load_file(folder / WEIGHTS)
    first, second, third = sorted(weights)[:3]
    weights["extra.weight"] = torch.zeros(1)
    del weights[first]
    weights[second] = weights[second].double()
    weights[third] = torch.zeros(1, 2, 3)
    save_file(weights, folder / WEIGHTS)
    with pytest.raises(DataError) as caught:
        load(folder)
    message = str(caught.value)
    assert f"{first} is missing" in message
    assert "extra.weight does not belong" in message
    assert f"{second} is torch.float64" in message
    assert f"{third} is torch.float32 (1, 2, 3)" in message
    assert str(folder / WEIGHTS) in message


def test_settings_that_are_not_the_weights(world):
    edit(world, lambda config: config["world_model"].update(action_bins=7))
    with pytest.raises(DataError, match=r"condition\.0\.weight is"):
        load_denoiser(world)


def test_truncated_and_missing_weights(world):
    content = (world / WEIGHTS).read_bytes()
    (world / WEIGHTS).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="damaged"):
        load_denoiser(world)
    (world / WEIGHTS).unlink()
    with pytest.raises(DataError, match="lacks a file"):
        load_denoiser(world)
