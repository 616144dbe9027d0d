"""The success classifier as a LeRobot reward model: reward 1 for a frame that shows its task solved, else 0."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lerobot.rewards.pretrained import PreTrainedRewardModel
from lerobot.utils.constants import OBS_IMAGES
from torch import Tensor

from lerobot_policy_world4rl.configuration_success import World4RLSuccessConfig
from world4rl.models.classifier import SuccessClassifier, checked_thresholds
from world4rl.models.folder import save_classifier
from world4rl.models.weights import read_weights
from world4rl.provenance.signatures import verify_model


class World4RLSuccessRewardModel(PreTrainedRewardModel):
    """The reward r = [C(x) >= threshold] of the paper's section III-C. Trained by `world4rl train-classifier` alone.

    Raises:
        ValueError: the configuration has no thresholds, or one of them is no number in [0, 1].
    """

    config_class = World4RLSuccessConfig
    name = "world4rl_success_classifier"

    def __init__(self, config: World4RLSuccessConfig, **_: Any) -> None:
        super().__init__(config)
        self.config: World4RLSuccessConfig = config
        self.network = SuccessClassifier(config.backbone, config.image_size)
        self.network.thresholds = checked_thresholds(config.thresholds)

    @classmethod
    def _load_as_safetensor(
        cls, model: World4RLSuccessRewardModel, model_file: str, map_location: str, strict: bool
    ) -> World4RLSuccessRewardModel:
        # Always strict: stock LeRobot would fill what the file does not name with random weights.
        verify_model(Path(model_file).parent)
        model.network.load_state_dict(read_weights(Path(model_file), model.network.state_dict()))
        return model

    def _save_pretrained(self, save_directory: Path) -> None:
        save_classifier(self.network, save_directory)

    def compute_reward(self, batch: dict[str, Any]) -> Tensor:
        """Rewards float32 (B,), 0 or 1.

        Args:
            batch: One camera's frames (B, 3, H, W), or (B, T, 3, H, W) of which the last counts, float in [0, 1]; of
                several cameras the one that `input_features` names. Where the classifier knows several tasks and the
                configuration names none, also `task`: one name, or one a frame.

        Raises:
            ValueError: it is not clear which camera to look at, or which task a frame belongs to.
            DataError: the classifier does not know the task.
        """
        frames: Tensor = batch[self._camera(batch)]
        now = frames if frames.ndim == 4 else frames[:, -1]
        tasks = self._tasks(batch)
        if len(tasks) not in (1, len(now)):
            raise ValueError(f"{len(tasks)} tasks are named for {len(now)} frames: name one, or one a frame")
        return self.network.succeeded(now, self.network.thresholds_of(tasks)).float()

    def _tasks(self, batch: dict[str, Any]) -> list[str]:
        """The task of each frame, or one for all."""
        known = list(self.network.thresholds)
        named = self.config.task or batch.get("task") or known
        if named is known and len(known) > 1:
            raise ValueError(
                f"the success classifier has a threshold for each of {', '.join(known)}: name one as `task` in its "
                "configuration or in the batch"
            )
        return [named] if isinstance(named, str) else list(named)

    def _camera(self, batch: dict[str, Any]) -> str:
        named = list(self.config.input_features)
        cameras = [
            name for name, value in batch.items() if name.startswith(OBS_IMAGES) and torch.is_floating_point(value)
        ]
        chosen = named or cameras
        if len(chosen) != 1:
            raise ValueError(f"the success classifier looks at one camera: name one of {cameras} in input_features")
        return chosen[0]
