"""The success classifier's configuration as LeRobot knows it: registered as `world4rl_success_classifier`."""

from __future__ import annotations

from dataclasses import dataclass, field

from lerobot.configs.rewards import RewardModelConfig


@RewardModelConfig.register_subclass("world4rl_success_classifier")
@dataclass
class World4RLSuccessConfig(RewardModelConfig):
    """What `models/success_classifier/config.json` holds, and the task to judge by.

    Attributes:
        backbone: `resnet18`, `efficientnet-lite0` or `small-cnn`.
        image_size: Pixels, square.
        thresholds: By task, the probability from which a frame counts as a success.
        task: Whose threshold judges every frame, whatever the batch says; None: each frame's own task's, which the
            batch names as LeRobot's datasets and environments do.
    """

    backbone: str = "resnet18"
    image_size: int = 48
    thresholds: dict[str, float] = field(default_factory=dict)
    task: str | None = None
