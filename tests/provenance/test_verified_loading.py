"""Whatever loads a model verifies it first, and a model that is trained anew is loaded until it is signed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from world4rl.config import BehaviourCloning
from world4rl.errors import DataError
from world4rl.models.classifier import SuccessClassifier
from world4rl.models.folder import load_classifier, save_classifier
from world4rl.models.policy import GaussianPolicy
from world4rl.paths import Paths
from world4rl.policies.folder import load_policy, save_policy
from world4rl.provenance.digests import digest_folder
from world4rl.provenance.keys import ensure_key
from world4rl.provenance.signatures import sign_model, verify_model


def save_a_policy(folder: Path) -> None:
    settings = BehaviourCloning(width=4)
    save_policy(GaussianPolicy(settings, image_size=(16, 16), action_size=2, state_size=0, camera="corner2"), folder)


def save_a_classifier(folder: Path) -> None:
    classifier = SuccessClassifier("small-cnn", 16)
    classifier.thresholds = {"reach-v3": 0.5}
    save_classifier(classifier, folder)


def load_with_lerobot(folder: Path) -> Any:
    from world4rl.policies.modeling_world4rl import World4RLGaussianPolicy

    return World4RLGaussianPolicy.from_pretrained(folder)


CASES = [
    pytest.param(save_a_policy, load_policy, id="policy"),
    pytest.param(save_a_classifier, load_classifier, id="classifier"),
    pytest.param(save_a_policy, load_with_lerobot, id="policy, by LeRobot"),
]


@pytest.mark.parametrize(("save", "load"), CASES)
def test_a_changed_byte_is_not_loaded(
    tmp_path: Path, save: Callable[[Path], None], load: Callable[[Path], Any]
) -> None:
    paths = Paths(tmp_path)
    folder = paths.bc("reach-v3")
    save(folder)
    sign_model(folder, digest_folder(folder), ensure_key(paths), paths)
    load(folder)
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1  # a weight: the file is as well-formed as before
    weights.write_bytes(content)
    with pytest.raises(DataError, match=r"not what was signed.*model\.safetensors") as caught:
        load(folder)
    assert caught.value.where == str(folder)
    save(folder)  # trained anew
    assert verify_model(folder) is None
    load(folder)
