"""Meta-World tasks as a LeRobot environment, drawn exactly as World4RL's data and trials are."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs import EnvConfig
from lerobot.envs.utils import freeze_after_episode_end
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE

from world4rl.config import Simulation
from world4rl.envs.metaworld import ACTION_SIZE, STATE_SIZE, MetaWorldEnv
from world4rl.machine import use_rendering_backend

CONTROL_HZ = 80
VIDEO_PIXELS = 256  # frames are enlarged to at least this for LeRobot's videos


class LeRobotMetaWorld(gymnasium.Env[dict[str, Any], np.ndarray]):
    """World4RL's Meta-World environment in LeRobot's words.

    An observation is `{"pixels": {camera: uint8 (H, W, 3)}, "agent_pos": float64 (4,)}`, which LeRobot turns into
    `observation.images.<camera>` and `observation.state`. The first success ends an episode, as in World4RL's trials;
    `info["is_success"]` is what LeRobot counts.

    Args:
        task: A Meta-World v3 task.
        simulation: Camera, image size, action repeat and length of an episode.
    """

    def __init__(self, task: str, simulation: Simulation) -> None:
        self._env = MetaWorldEnv(task, simulation)
        self._camera = simulation.camera
        self._frame = np.zeros((simulation.image_size, simulation.image_size, 3), np.uint8)
        self._max_episode_steps = simulation.episode_steps  # LeRobot asks for it by this name
        self.task = task
        self.task_description = task
        self.render_mode = "rgb_array"
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ // simulation.action_repeat}
        self.action_space = self._env.action_space
        self.observation_space = spaces.Dict(
            {
                "pixels": spaces.Dict({self._camera: spaces.Box(0, 255, self._frame.shape, np.uint8)}),
                "agent_pos": spaces.Box(-np.inf, np.inf, (STATE_SIZE,), np.float64),
            }
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begins an episode whose goal is drawn from `seed`."""
        super().reset(seed=seed)
        observation, info = self._env.reset(seed=seed)
        return self._seen(observation), {"is_success": info["success"]}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Takes an action (4,), clipped to [-1, 1]."""
        observation, reward, _, truncated, info = self._env.step(action)
        return self._seen(observation), reward, info["success"], truncated, {"is_success": info["success"]}

    def render(self) -> np.ndarray:
        """The last frame, its pixels enlarged: uint8 (H, W, 3)."""
        scale = -(-VIDEO_PIXELS // len(self._frame))
        return self._frame.repeat(scale, axis=0).repeat(scale, axis=1)

    def close(self) -> None:
        """Ends the simulator."""
        self._env.close()

    def _seen(self, observation: dict[str, np.ndarray]) -> dict[str, Any]:
        self._frame = observation["pixels"]
        return {"pixels": {self._camera: self._frame}, "agent_pos": observation["state"].astype(np.float64)}


@EnvConfig.register_subclass("world4rl_metaworld")
@dataclass
class World4RLMetaWorld(EnvConfig):
    """`--env.type=world4rl_metaworld`: one Meta-World task.

    Attributes:
        task: Any of Meta-World's fifty v3 tasks.
        camera: Also the name in `observation.images.<camera>`.
        camera_target: Where the camera looks, x, y, z in metres; as Meta-World's model has it where there is none.
        field_of_view: The camera's, in degrees; likewise.
        image_size: Pixels, square.
        action_repeat: Simulator steps an action is held for.
        episode_length: Actions an episode.
    """

    task: str = "button-press-topdown-v3"
    camera: str = "corner2"
    camera_target: list[float] | None = None
    field_of_view: float | None = None
    image_size: int = 48
    action_repeat: int = 2
    episode_length: int = 50
    features: dict[str, PolicyFeature] = field(default_factory=dict)
    features_map: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.simulation = Simulation.model_validate(
            {
                "camera": self.camera,
                "camera_target": self.camera_target,
                "field_of_view": self.field_of_view,
                "image_size": self.image_size,
                "action_repeat": self.action_repeat,
                "episode_steps": self.episode_length,
            }
        )
        self.fps = CONTROL_HZ // self.action_repeat
        image = PolicyFeature(FeatureType.VISUAL, (self.image_size, self.image_size, 3))
        self.features = {
            ACTION: PolicyFeature(FeatureType.ACTION, (ACTION_SIZE,)),
            "agent_pos": PolicyFeature(FeatureType.STATE, (STATE_SIZE,)),
            f"pixels/{self.camera}": image,
        }
        self.features_map = {
            ACTION: ACTION,
            "agent_pos": OBS_STATE,
            f"pixels/{self.camera}": f"{OBS_IMAGES}.{self.camera}",
        }

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        """Unused: `create_envs` makes the environments without gymnasium's registry."""
        return {}

    def create_envs(self, n_envs: int, use_async_envs: bool = False) -> dict[str, dict[int, VectorEnv]]:
        """`n_envs` copies of the task, in worker processes where LeRobot asks for them and there are several."""
        use_rendering_backend()
        # An environment whose episode has ended costs nothing until all of the batch have.
        make = freeze_after_episode_end(partial(LeRobotMetaWorld, self.task, self.simulation))
        env: VectorEnv
        if use_async_envs and n_envs > 1:
            env = AsyncVectorEnv([make] * n_envs, context="forkserver", autoreset_mode=AutoresetMode.NEXT_STEP)
        else:
            env = SyncVectorEnv([make] * n_envs, autoreset_mode=AutoresetMode.NEXT_STEP)
        return {self.task: {0: env}}
