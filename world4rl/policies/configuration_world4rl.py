"""The Gaussian policy's configuration as LeRobot knows it: registered as `world4rl_gaussian`."""

from __future__ import annotations

from dataclasses import dataclass, field

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.optim import AdamWConfig
from lerobot.utils.constants import ACTION, OBS_IMAGES

from world4rl.config import BehaviourCloning
from world4rl.models.policy import GaussianPolicy
from world4rl.policies.folder import TYPE


@PreTrainedConfig.register_subclass(TYPE)
@dataclass
class World4RLGaussianConfig(PreTrainedConfig):
    """A policy that sees one camera and, where `observation.state` is among its inputs, the state.

    Attributes:
        n_obs_steps: Observation frames that the policy sees.
        width: Channels of the first convolution.
        log_std_range: Bounds of ln sigma.
        shift_pixels: Random-shift augmentation while `lerobot-train` trains.
        optimizer_lr, optimizer_weight_decay: AdamW's, for `lerobot-train`.
    """

    width: int = 32
    log_std_range: tuple[float, float] = (-3.0, 0.0)
    shift_pixels: int = 3
    optimizer_lr: float = 1e-3
    optimizer_weight_decay: float = 1e-4
    push_to_hub: bool = False
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: dict.fromkeys(("VISUAL", "STATE", "ACTION"), NormalizationMode.IDENTITY)
    )

    @property
    def camera_key(self) -> str:
        """The one image feature among the inputs.

        Raises:
            ValueError: there is none, or more than one.
        """
        images = list(self.image_features)
        if len(images) != 1:
            raise ValueError(f"{TYPE} sees exactly one camera, the inputs name {images or 'none'}")
        return images[0]

    def validate_features(self) -> None:
        """Checks the inputs and outputs.

        Raises:
            ValueError: there is not exactly one camera, or no action.
        """
        _ = self.camera_key
        if self.action_feature is None:
            raise ValueError(f"{TYPE} needs the output feature {ACTION!r}")

    def build_network(self) -> GaussianPolicy:
        """The network with fresh weights.

        Raises:
            ValueError: the features do not fit, see `validate_features`.
        """
        self.validate_features()
        assert self.input_features is not None
        assert self.action_feature is not None
        state = self.robot_state_feature
        channels, height, width = self.input_features[self.camera_key].shape
        if channels != 3:
            raise ValueError(f"{self.camera_key} must be (3, H, W), it is {(channels, height, width)}")
        return GaussianPolicy(
            BehaviourCloning(
                state=state is not None,
                frames=self.n_obs_steps,
                width=self.width,
                log_std_range=self.log_std_range,
                shift_pixels=self.shift_pixels,
                learning_rate=self.optimizer_lr,
                weight_decay=self.optimizer_weight_decay,
            ),
            image_size=(height, width),
            action_size=self.action_feature.shape[0],
            state_size=state.shape[0] if state is not None else 0,
            camera=self.camera_key.removeprefix(f"{OBS_IMAGES}."),
        )

    @property
    def observation_delta_indices(self) -> list[int]:
        """Frames that a training sample holds, relative to the one acted on."""
        return list(range(1 - self.n_obs_steps, 1))

    @property
    def action_delta_indices(self) -> None:
        """One action a sample, the one taken on the last frame."""
        return None

    @property
    def reward_delta_indices(self) -> None:
        """No rewards."""
        return None

    def get_optimizer_preset(self) -> AdamWConfig:
        """AdamW, for `lerobot-train`."""
        return AdamWConfig(lr=self.optimizer_lr, weight_decay=self.optimizer_weight_decay, grad_clip_norm=10.0)

    def get_scheduler_preset(self) -> None:
        """A constant learning rate."""
        return None
