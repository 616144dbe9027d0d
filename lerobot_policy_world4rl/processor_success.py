"""What happens to an observation before the success classifier in LeRobot's pipelines."""

from __future__ import annotations

from typing import Any

from lerobot.processor import (
    DeviceProcessorStep,
    IdentityProcessorStep,
    PolicyAction,
    PolicyProcessorPipeline,
    make_policy_processor_pipelines,
)
from torch import Tensor

from lerobot_policy_world4rl.configuration_success import World4RLSuccessConfig
from world4rl.policies.processor_world4rl import ResizeFrames


def make_world4rl_success_classifier_pre_post_processors(
    config: World4RLSuccessConfig, dataset_stats: dict[str, dict[str, Tensor]] | None = None
) -> tuple[
    PolicyProcessorPipeline[dict[str, Any], dict[str, Any]],
    PolicyProcessorPipeline[PolicyAction, PolicyAction],
]:
    """The pre- and the post-processor; LeRobot finds this function by its name.

    Args:
        config: The classifier's configuration.
        dataset_stats: Unused: the network normalises by itself. LeRobot passes it by name.
    """
    size = (config.image_size, config.image_size)
    return make_policy_processor_pipelines(
        input_steps=[DeviceProcessorStep(device=config.device), ResizeFrames(size)],
        output_steps=[IdentityProcessorStep()],
    )
