"""Policies on disk: LeRobot pretrained-policy folders, written whole and read strictly.

LeRobot's own loader fills tensors that the file does not name with random weights and says nothing. Here a file
that does not hold exactly the network's tensors is an error. Nothing in this module imports LeRobot, which takes
seconds: its layout is plain JSON and safetensors, and a test holds the two equal.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from world4rl.config import BehaviourCloning
from world4rl.errors import DataError
from world4rl.files import replacing, write_json
from world4rl.models.policy import GaussianPolicy
from world4rl.models.weights import read_weights
from world4rl.provenance.signatures import forget, verify_model

TYPE = "world4rl_gaussian"  # the name that LeRobot knows the policy by
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
PREPROCESSOR = "policy_preprocessor.json"
POSTPROCESSOR = "policy_postprocessor.json"
PREFIX = "network."  # the LeRobot policy holds the network under this name
IMAGES = "observation.images."
STATE = "observation.state"
ACTION = "action"
REMEDY = "restore the folder (`dvc pull` or `dvc checkout`), or train the policy again"


def save_policy(policy: GaussianPolicy, folder: Path) -> None:
    """Writes a policy as a LeRobot pretrained policy; what stood at `folder` is replaced in one step.

    Equal policies give equal bytes, on whatever device they are.

    Raises:
        MachineError: the disk is full.
    """
    forget(Path(folder))
    with replacing(folder) as fresh:
        fresh.mkdir()
        write_json(fresh / CONFIG, config_values(policy))
        write_json(fresh / PREPROCESSOR, preprocessor_values(policy))
        write_json(fresh / POSTPROCESSOR, postprocessor_values(policy))
        weights = {PREFIX + name: tensor.detach().cpu().contiguous() for name, tensor in policy.state_dict().items()}
        save_file(weights, fresh / WEIGHTS, metadata={"format": "pt"})


def load_policy(folder: Path, device: torch.device | str = "cpu") -> GaussianPolicy:
    """Reads a policy that `save_policy` or LeRobot wrote.

    Raises:
        DataError: the policy is not what was signed, or a file is missing, damaged or does not belong to the others;
            the error names it.
    """
    folder = Path(folder)
    file = folder / CONFIG
    if not folder.is_dir():
        raise DataError("there is no such policy folder", where=folder, remedy=REMEDY)
    verify_model(folder)
    try:
        policy = _build(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise DataError("the policy folder lacks a file", where=file, remedy=REMEDY) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"not valid JSON: {error}", where=file, remedy=REMEDY) from None
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise DataError(f"the configuration is wrong: {wrong}", where=file, remedy=REMEDY) from None
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"the configuration is not a {TYPE} policy's: {error}", where=file, remedy=REMEDY) from None
    weights = read_weights(folder / WEIGHTS, {PREFIX + name: t for name, t in policy.state_dict().items()})
    policy.load_state_dict({name.removeprefix(PREFIX): tensor for name, tensor in weights.items()})
    return policy.to(device)


def config_values(policy: GaussianPolicy) -> dict[str, Any]:
    """`config.json`: what differs from the defaults of `World4RLGaussianConfig`."""
    low, high = policy.log_std_range
    return {
        "type": TYPE,
        "n_obs_steps": policy.frames,
        "input_features": _inputs(policy),
        "output_features": _outputs(policy),
        "device": "cpu",  # what it was trained on is no reason to ask for the same again
        "push_to_hub": False,
        "width": policy.settings.width,
        "log_std_range": [low, high],
        "shift_pixels": policy.settings.shift_pixels,
        "optimizer_lr": policy.settings.learning_rate,
        "optimizer_weight_decay": policy.settings.weight_decay,
    }


def preprocessor_values(policy: GaussianPolicy) -> dict[str, Any]:
    """`policy_preprocessor.json`: rename, add a batch dimension, resize, move; the network normalises by itself."""
    return {
        "name": Path(PREPROCESSOR).stem,
        "steps": [
            {"registry_name": "rename_observations_processor", "config": {"rename_map": {}}},
            {"registry_name": "to_batch_processor", "config": {}},
            {"registry_name": "device_processor", "config": {"device": "cpu", "float_dtype": None}},
            {
                "class": "world4rl.policies.processor_world4rl.ResizeFrames",
                "config": {"size": list(policy.image_size)},
            },
            {
                "registry_name": "normalizer_processor",
                "config": {"eps": 1e-8, "features": _inputs(policy) | _outputs(policy), "norm_map": IDENTITY},
            },
        ],
    }


def postprocessor_values(policy: GaussianPolicy) -> dict[str, Any]:
    """`policy_postprocessor.json`: actions leave as they are, on CPU."""
    return {
        "name": Path(POSTPROCESSOR).stem,
        "steps": [
            {
                "registry_name": "unnormalizer_processor",
                "config": {"eps": 1e-8, "features": _outputs(policy), "norm_map": IDENTITY},
            },
            {"registry_name": "device_processor", "config": {"device": "cpu", "float_dtype": None}},
        ],
    }


IDENTITY = {"VISUAL": "IDENTITY", "STATE": "IDENTITY", "ACTION": "IDENTITY"}


def _inputs(policy: GaussianPolicy) -> dict[str, Any]:
    features: dict[str, Any] = {IMAGES + policy.camera: {"type": "VISUAL", "shape": [3, *policy.image_size]}}
    if policy.state_size:
        features[STATE] = {"type": "STATE", "shape": [policy.state_size]}
    return features


def _outputs(policy: GaussianPolicy) -> dict[str, Any]:
    return {ACTION: {"type": "ACTION", "shape": [policy.action_size]}}


def _build(values: Any) -> GaussianPolicy:
    """The network that a configuration describes, with fresh weights."""
    if not isinstance(values, dict) or values["type"] != TYPE:
        raise ValueError(f"type is {values['type'] if isinstance(values, dict) else values!r}")
    inputs = values["input_features"]
    images = {name: feature for name, feature in inputs.items() if feature["type"] == "VISUAL"}
    if len(images) != 1:
        raise ValueError(f"it must see one camera, it names {sorted(images) or 'none'}")
    ((image, feature),) = images.items()
    _, height, width = feature["shape"]
    (action_size,) = values["output_features"][ACTION]["shape"]
    return GaussianPolicy(
        BehaviourCloning(
            state=STATE in inputs,
            frames=values["n_obs_steps"],
            width=values["width"],
            log_std_range=values["log_std_range"],
            shift_pixels=values["shift_pixels"],
            learning_rate=values["optimizer_lr"],
            weight_decay=values["optimizer_weight_decay"],
        ),
        image_size=(height, width),
        action_size=action_size,
        state_size=inputs[STATE]["shape"][0] if STATE in inputs else 0,
        camera=image.removeprefix(IMAGES),
    )
