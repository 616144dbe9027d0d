"""The success classifier's configuration as LeRobot knows it: registered as `world4rl_success_classifier`."""

from __future__ import annotations

from dataclasses import dataclass

from lerobot.configs.rewards import RewardModelConfig


@RewardModelConfig.register_subclass("world4rl_success_classifier")
@dataclass
class World4RLSuccessConfig(RewardModelConfig):
    """What `models/success_classifier/config.json` holds.

    Attributes:
        backbone: `resnet18`, `efficientnet-lite0` or `small-cnn`.
        image_size: Pixels, square.
        threshold: Probability from which a frame counts as a success.
    """

    backbone: str = "resnet18"
    image_size: int = 48
    threshold: float = 0.5
