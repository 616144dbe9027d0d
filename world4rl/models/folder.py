"""World model and success classifier on disk: `config.json` and `model.safetensors`, loaded strictly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import nn

from world4rl.config import WorldModel
from world4rl.errors import DataError
from world4rl.files import read_json, replacing, write_json
from world4rl.models.classifier import SuccessClassifier, checked_thresholds
from world4rl.models.denoiser import Denoiser, Shapes
from world4rl.models.weights import read_weights
from world4rl.provenance.signatures import forget, verify_model

CONFIG = "config.json"
WEIGHTS = "model.safetensors"


class LoadedWorldModel(NamedTuple):
    """A world model and the tasks that it was trained on, in the order of its task index."""

    denoiser: Denoiser
    tasks: tuple[str, ...]


def save_denoiser(denoiser: Denoiser, folder: Path, tasks: Sequence[str]) -> None:
    """Writes a world model's folder atomically."""
    config = {
        "type": "world4rl_denoiser",
        "world_model": denoiser.settings.model_dump(mode="json"),
        "shapes": denoiser.shapes._asdict(),
        "tasks": list(tasks),
    }
    _save(denoiser, folder, config)


def load_denoiser(folder: Path, device: torch.device | str = "cpu") -> LoadedWorldModel:
    """Reads a world model, frozen and in evaluation mode.

    Raises:
        DataError: the model is not what was signed, a file is missing or damaged, or the weights are not those of the
            configuration.
    """
    verify_model(Path(folder))
    config = _config(folder, "world4rl_denoiser", "world4rl train-world-model")
    try:
        denoiser = Denoiser(WorldModel.model_validate(config["world_model"]), Shapes(**config["shapes"]))
        tasks = tuple(config["tasks"])
    except (KeyError, TypeError, ValidationError) as error:
        raise _damaged(folder, error) from None
    return LoadedWorldModel(_load(denoiser, folder, device), tasks)


def save_classifier(classifier: SuccessClassifier, folder: Path) -> None:
    """Writes a success classifier's folder atomically."""
    config = {
        "type": "world4rl_success_classifier",
        "backbone": classifier.backbone_name,
        "image_size": classifier.image_size,
        "thresholds": classifier.thresholds,
    }
    _save(classifier, folder, config)


def load_classifier(folder: Path, device: torch.device | str = "cpu") -> SuccessClassifier:
    """Reads a success classifier, frozen and in evaluation mode.

    Raises:
        DataError: the model is not what was signed, a file is missing or damaged, or the weights are not those of the
            configuration.
    """
    verify_model(Path(folder))
    config = _config(folder, "world4rl_success_classifier", "world4rl train-classifier")
    try:
        classifier = SuccessClassifier(config["backbone"], config["image_size"])
        classifier.thresholds = checked_thresholds(config.get("thresholds"))
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(folder, error) from None
    return _load(classifier, folder, device)


def _save(model: nn.Module, folder: Path, config: dict[str, Any]) -> None:
    forget(Path(folder))
    with replacing(folder) as fresh:
        fresh.mkdir()
        write_json(fresh / CONFIG, config)
        save_file({name: value.contiguous() for name, value in model.state_dict().items()}, fresh / WEIGHTS)


def _config(folder: Path, kind: str, command: str) -> dict[str, Any]:
    file = Path(folder) / CONFIG
    try:
        config = read_json(file)
    except FileNotFoundError:
        raise DataError("there is no such model", where=file, remedy=f"run `{command}`") from None
    except ValueError as error:
        raise _damaged(folder, error) from None
    if not isinstance(config, dict) or config.get("type") != kind:
        raise DataError(f"this is not a {kind}", where=file, remedy=f"give a folder that `{command}` wrote")
    return config


def _load[M: nn.Module](model: M, folder: Path, device: torch.device | str) -> M:
    model.load_state_dict(read_weights(Path(folder) / WEIGHTS, model.state_dict()))
    return model.to(device).eval().requires_grad_(False)


def _damaged(folder: Path, error: Exception) -> DataError:
    return DataError(
        f"the model's configuration is damaged: {error}",
        where=Path(folder) / CONFIG,
        remedy="restore the folder (`dvc checkout`) or train it again",
    )
