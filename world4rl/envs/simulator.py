"""The Meta-World simulator itself: task, camera, fast rendering, scripted expert. The only module that imports it.

It imports no torch, so that a worker process starts quickly.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from world4rl.config import Simulation
from world4rl.errors import ConfigError

if "MUJOCO_GL" not in os.environ:
    from world4rl.machine import rendering_backend

    os.environ["MUJOCO_GL"] = rendering_backend()

# A frame is small and every worker draws its own: Mesa's software renderer would only have its threads wait on another.
os.environ.setdefault("LP_NUM_THREADS", "0")

# MuJoCo reads MUJOCO_GL when it is first imported.
import metaworld.policies
import mujoco
from metaworld.env_dict import ALL_V3_ENVIRONMENTS

CONTROL_HZ = 80
# The shipped "corner2" looks past the table's near edge; this position is the one that Meta-World's users share.
CORNER2_POSITION = (0.75, 0.075, 0.7)
# What makes headless drawing slow, and what it is set to: the shadow map and multisampling cost 90 % of a frame.
RENDERING = {"offsamples": 0, "shadowsize": 0, "light_castshadow": 0, "mat_reflectance": 0}
# Experts whose class is not named after the task.
EXPERT_NAMES = {"peg-insert-side-v3": "SawyerPegInsertionSideV3Policy"}


class Simulator:
    """One task with random goals, drawn through one camera.

    Args:
        task: A Meta-World v3 task name.
        simulation: Camera, image size and action repeat.
    """

    def __init__(self, task: str, simulation: Simulation) -> None:
        self._env = _random_goal_env(task)
        self._camera = simulation.camera
        self._flip = stands_on_its_head(simulation)
        self._repeat = simulation.action_repeat
        model = self._env.model
        model.vis.quality.offsamples = RENDERING["offsamples"]
        model.vis.quality.shadowsize = RENDERING["shadowsize"]
        model.light_castshadow[:] = RENDERING["light_castshadow"]
        model.mat_reflectance[:] = RENDERING["mat_reflectance"]
        camera = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, self._camera)
        if self._camera == "corner2":
            model.cam_pos[camera] = CORNER2_POSITION
        if simulation.camera_target is not None:
            model.cam_quat[camera] = look_at(model.cam_pos[camera], simulation.camera_target)
        if simulation.field_of_view is not None:
            model.cam_fovy[camera] = simulation.field_of_view
        self._renderer = mujoco.Renderer(model, height=simulation.image_size, width=simulation.image_size)
        self._culling = Culling(model, camera)
        self._expert = scripted_expert(task)

    def reset(self, seed: int | None) -> np.ndarray:
        """Draws a goal (from `seed` alone where there is one) and returns Meta-World's state vector, float64 (39,)."""
        if seed is not None:
            self._env.seed(seed)
        vector: np.ndarray = self._env.reset()[0]
        # Many tasks move an object after the last forward pass: without another one the first frame and the first
        # state vector show it where the last episode left it.
        mujoco.mj_forward(self._env.model, self._env.data)
        current = self._env._get_curr_obs_combined_no_goal()
        self._env._prev_obs = current
        vector[: 2 * len(current)] = np.concatenate((current, current))
        return vector

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool]:
        """Holds an action for `action_repeat` steps; returns the state vector, the mean reward and the success flag."""
        rewards, success = [], False
        for _ in range(self._repeat):
            self._env.curr_path_length = 0  # Meta-World refuses to step after 500; the episode's length is ours
            vector, reward, _, _, info = self._env.step(action)
            rewards.append(float(reward))
            success = bool(info["success"])
        return vector, float(np.mean(rewards)), success

    def render(self) -> np.ndarray:
        """The camera's image, uint8 (H, W, 3)."""
        self._culling.apply(self._env.data)
        self._renderer.update_scene(self._env.data, camera=self._camera)
        frame = self._renderer.render()
        return np.ascontiguousarray(frame[::-1, ::-1] if self._flip else frame)

    def expert_action(self, vector: np.ndarray) -> np.ndarray:
        """What the scripted expert does in this state, clipped to [-1, 1]: float32 (4,)."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "Constant(s) may be too high": that is why we clip
            return np.clip(self._expert.get_action(vector), -1.0, 1.0).astype(np.float32)

    def close(self) -> None:
        """Frees the renderer's GL context."""
        self._renderer.close()
        self._env.close()


class Culling:
    """Leaves out of the picture what lies outside the camera's square field of view: most of the arm's triangles.

    MuJoCo sends every geom to OpenGL. The picture stays the same to the bit, because nothing casts a shadow here and
    nothing is mirrored.

    Args:
        model: Its geoms' groups are changed: hidden ones go to a group that is not drawn.
        camera: Number of the camera.
    """

    HIDDEN_GROUP = 5  # MuJoCo draws the groups 0 to 2

    def __init__(self, model: Any, camera: int) -> None:
        self._groups = model.geom_group.copy()
        self._model = model
        self._camera = camera

    def apply(self, data: Any) -> None:
        """Hides the geoms whose bounding spheres do not reach into the camera's view as it is in `data` now."""
        model, camera = self._model, self._camera
        radius = model.geom_rbound  # metres; 0 for planes, which have no bounds
        # In the camera's frame: x to the right, y up, the view along -z.
        x, y, z = ((data.geom_xpos - data.cam_xpos[camera]) @ data.cam_xmat[camera].reshape(3, 3)).T
        half = np.deg2rad(model.cam_fovy[camera]) / 2
        sideways = np.maximum(np.abs(x), np.abs(y)) * np.cos(half) + z * np.sin(half)  # distance from the nearest side
        outside = (radius > 0) & ((sideways > radius) | (z > radius))
        model.geom_group[:] = np.where(outside, self.HIDDEN_GROUP, self._groups)


def stands_on_its_head(simulation: Simulation) -> bool:
    """Whether MuJoCo's image must be turned: corner2 hangs upside down in Meta-World's model unless it is aimed."""
    return simulation.camera == "corner2" and simulation.camera_target is None


def look_at(position: Sequence[float], target: Sequence[float]) -> np.ndarray:
    """Orientation of an upright camera at `position` that looks at `target` (both in metres): quaternion (w, x, y, z).

    A MuJoCo camera looks along its own -z, with x to the right and y up.

    Raises:
        ConfigError: the target lies straight above or below the camera, or in it: no direction is up there.
    """
    backwards = np.asarray(position, float) - np.asarray(target, float)
    right = np.cross((0.0, 0.0, 1.0), backwards)
    if np.linalg.norm(right) < 1e-9:
        raise ConfigError(
            f"a camera at {tuple(position)} cannot look at {tuple(target)}: which way is up is not defined",
            remedy="move simulation.camera_target to the side",
        )
    up = np.cross(backwards, right)
    rotation = np.stack([axis / np.linalg.norm(axis) for axis in (right, up, backwards)], axis=1)
    quaternion = np.empty(4)
    mujoco.mju_mat2Quat(quaternion, rotation.ravel())
    return quaternion


def _random_goal_env(task: str) -> Any:
    env = ALL_V3_ENVIRONMENTS[task]()
    env._freeze_rand_vec = False
    env.seeded_rand_vec = True
    env._partially_observable = False  # the scripted experts read the goal
    env._set_task_called = True
    return env


def scripted_expert(task: str) -> Any:
    """Meta-World's scripted expert of `task` (`door-lock-v3` has `SawyerDoorLockV3Policy`)."""
    name = EXPERT_NAMES.get(task) or "Sawyer" + "".join(part.capitalize() for part in task.split("-")) + "Policy"
    return getattr(metaworld.policies, name)()


def describe_simulation(simulation: Simulation, task: str) -> dict[str, Any]:
    """Everything that decides what a frame of `task` looks like and what an action does, to keep with the data."""
    return {
        "simulator": "metaworld",
        "task": task,
        **simulation.model_dump(mode="json", exclude={"workers"}),
        "control_hz": CONTROL_HZ,
        "backend": os.environ["MUJOCO_GL"],
        "rendering": RENDERING,
        "camera_position": list(CORNER2_POSITION) if simulation.camera == "corner2" else None,
        "flipped": stands_on_its_head(simulation),
        "versions": {"mujoco": mujoco.__version__, "metaworld": version("metaworld")},
    }
