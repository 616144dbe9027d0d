"""Meta-World v3 as a gymnasium environment, alone or as a vector of worker processes.

Importing this module imports neither MuJoCo nor Meta-World: an environment builds its simulator at the first reset,
so that the process that owns a vector environment never holds a GL context.
"""

from __future__ import annotations

import multiprocessing
from functools import partial
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode

from world4rl.config import Simulation
from world4rl.envs.tasks import METAWORLD_TASKS
from world4rl.errors import ConfigError

if TYPE_CHECKING:
    from world4rl.envs.simulator import Simulator

STATE_SIZE = 4  # hand x, y, z in metres and gripper opening in [0, 1]
ACTION_SIZE = 4  # hand displacement x, y, z and gripper effort, each in [-1, 1]


class MetaWorldEnv(gymnasium.Env[dict[str, Any], np.ndarray]):
    """One Meta-World task seen through one camera.

    An observation is `{"pixels": uint8 (H, W, 3), "state": float32 (4,)}`; an action is float32 (4,) in [-1, 1],
    held for `simulation.action_repeat` simulator steps at 80 Hz. `reset(seed=s)` draws the goal from `s` alone. The
    reward is Meta-World's dense reward, averaged over the repeat. `info["success"]` says whether the state now shown
    solves the task, and with `expert=True` `info["expert"]` is the scripted expert's next action. An episode never
    ends by itself: it is truncated after `simulation.episode_steps` actions.

    Raises:
        ConfigError: there is no such task.
    """

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012  (gymnasium's way)

    def __init__(self, task: str, simulation: Simulation, *, expert: bool = False) -> None:
        if task not in METAWORLD_TASKS:
            raise ConfigError(f"unknown task {task!r}", remedy=f"choose one of {', '.join(METAWORLD_TASKS)}")
        size = simulation.image_size
        self.render_mode = "rgb_array"
        self.observation_space = spaces.Dict(
            {
                "pixels": spaces.Box(0, 255, (size, size, 3), np.uint8),
                "state": spaces.Box(-np.inf, np.inf, (STATE_SIZE,), np.float32),
            }
        )
        self.action_space = spaces.Box(-1.0, 1.0, (ACTION_SIZE,), np.float32)
        self._task = task
        self._simulation = simulation
        self._wants_expert = expert
        self._simulator: Simulator | None = None
        self._steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begins an episode; `seed` alone decides its goal."""
        super().reset(seed=seed)
        if self._simulator is None:
            from world4rl.envs.simulator import Simulator

            self._simulator = Simulator(self._task, self._simulation)
        self._steps = 0
        return self._seen(self._simulator, self._simulator.reset(seed), success=False)

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Holds an action (4,) for `action_repeat` simulator steps."""
        simulator = self._running()
        vector, reward, success = simulator.step(np.clip(np.asarray(action, np.float64), -1.0, 1.0))
        self._steps += 1
        observation, info = self._seen(simulator, vector, success)
        return observation, reward, False, self._steps >= self._simulation.episode_steps, info

    def render(self) -> np.ndarray:
        """The camera's image now, uint8 (H, W, 3)."""
        return self._running().render()

    def close(self) -> None:
        """Frees the simulator and its renderer."""
        if self._simulator is not None:
            self._simulator.close()
            self._simulator = None

    def _running(self) -> Simulator:
        if self._simulator is None:
            raise gymnasium.error.ResetNeeded("call reset() before step() or render()")
        return self._simulator

    def _seen(
        self, simulator: Simulator, vector: np.ndarray, success: bool
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        info: dict[str, Any] = {"success": success}
        if self._wants_expert:
            info["expert"] = simulator.expert_action(vector)
        return {"pixels": simulator.render(), "state": vector[:STATE_SIZE].astype(np.float32)}, info


def make_vector_env(
    task: str, simulation: Simulation, *, expert: bool = False, num_envs: int | None = None
) -> AsyncVectorEnv:
    """`task` as a gymnasium vector environment, one worker process an environment (default: `simulation.workers`).

    Autoreset is disabled: reset finished environments with `options={"reset_mask": bool (n,)}`.
    """
    make = partial(MetaWorldEnv, task, simulation, expert=expert)
    # Workers are copies of a server that has imported the simulator already: that takes seconds each time.
    multiprocessing.get_context("forkserver").set_forkserver_preload(["__main__", "world4rl.envs.simulator"])
    return AsyncVectorEnv(
        [make] * (num_envs or simulation.workers),
        context="forkserver",  # never fork a process that holds torch's threads
        autoreset_mode=AutoresetMode.DISABLED,
    )
