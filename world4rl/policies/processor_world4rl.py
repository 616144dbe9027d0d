"""What happens to an observation before the Gaussian policy, and to its action after it, in LeRobot's pipelines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lerobot.processor import (
    ObservationProcessorStep,
    PolicyAction,
    PolicyProcessorPipeline,
    make_default_policy_processor_steps,
    make_policy_processor_pipelines,
)
from torch import Tensor
from torch.nn import functional

from world4rl.policies.configuration_world4rl import World4RLGaussianConfig


@dataclass
class ResizeFrames(ObservationProcessorStep):
    """Brings every camera image to the size that the policy was trained at, as the store did with the data.

    Attributes:
        size: Height and width in pixels.
    """

    size: tuple[int, int]

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        """The observation with its images (..., 3, H, W), float in [0, 1], resized; padding masks stay as they are."""
        return {
            name: _resize(value, (self.size[0], self.size[1]))
            if name.startswith("observation.image") and isinstance(value, Tensor) and value.is_floating_point()
            else value
            for name, value in observation.items()
        }

    def get_config(self) -> dict[str, Any]:
        """What is saved."""
        return {"size": list(self.size)}

    def transform_features(self, features: Any) -> Any:
        """Names and types stay as they are."""
        return features


def make_world4rl_gaussian_pre_post_processors(
    config: World4RLGaussianConfig, dataset_stats: dict[str, dict[str, Tensor]] | None = None
) -> tuple[
    PolicyProcessorPipeline[dict[str, Any], dict[str, Any]], PolicyProcessorPipeline[PolicyAction, PolicyAction]
]:
    """The pre- and the post-processor; LeRobot finds this function by its name.

    Args:
        config: The policy's configuration.
        dataset_stats: Unused: the network keeps its own statistics. LeRobot's loaders pass it by name.
    """
    assert config.input_features is not None
    steps = make_default_policy_processor_steps(config, dataset_stats)
    _, height, width = config.input_features[config.camera_key].shape
    return make_policy_processor_pipelines(
        input_steps=[
            steps.rename_observations,
            steps.add_batch_dim,
            steps.to_device,
            ResizeFrames((height, width)),
            steps.normalize,
        ],
        output_steps=[steps.unnormalize, steps.to_cpu],
    )


def _resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (..., 3, H, W) in [0, 1] at the given height and width, antialiased."""
    if images.shape[-2:] == size:
        return images
    flat = images.reshape(-1, *images.shape[-3:])
    resized = functional.interpolate(flat, size=size, mode="bilinear", antialias=True, align_corners=False)
    return resized.reshape(*images.shape[:-2], *size)
