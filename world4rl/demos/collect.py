"""Collection in the simulator: the scripted expert's demonstrations, rollouts of a policy, and random ones.

Every episode is a function of the parameters and of its seed alone, whatever the number of simulator workers, so
that collecting again gives the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from world4rl import machine, progress
from world4rl.config import Params
from world4rl.demos.recording import Recording, write_dataset
from world4rl.demos.seeds import episode_seeds
from world4rl.envs.episodes import Controller, Episode, disturbed, expert_controller, random_controller, roll_out
from world4rl.envs.simulator import CONTROL_HZ, describe_simulation
from world4rl.envs.tasks import is_simulated
from world4rl.files import write_json
from world4rl.paths import Paths, Source
from world4rl.provenance.digests import digest_folder

STATE_NAMES = ("hand_x", "hand_y", "hand_z", "gripper_opening")
ACTION_NAMES = ("hand_dx", "hand_dy", "hand_dz", "gripper_effort")


def collect_demos(params: Params, paths: Paths, task: str) -> None:
    """The stage `demos@task`: the scripted expert, `demonstrations` episodes to learn from and some to test with.

    Like the others it records nothing, an empty dataset, where the simulator does not have the task.
    """
    if not is_simulated(task):
        return _collect(params, task, "expert", {}, {}, paths)
    settings = params.task_parameters[task]
    counts = {"train": settings.demonstrations, "test": params.demonstrations.held_out}
    controllers = {
        split: expert_controller(settings.expert_noise, _noise_seed(params.seed, task, "expert", split))
        for split in counts
    }
    _collect(params, task, "expert", counts, controllers, paths)


def collect_policy(params: Params, paths: Paths, task: str) -> None:
    """The stage `policy_rollouts@task`: the cloned policy; every other episode acts with samples of its Gaussian.

    The world model must know both what the policy does and what exploring around it leads to. With `disturbance` the
    episodes that it learns from go further astray; held-out ones never do, they are what figures are about.

    Raises:
        DataError: there is no cloned policy.
    """
    if not is_simulated(task):
        return _collect(params, task, "policy", {}, {}, paths)
    from world4rl.policies.acting import policy_controller  # torch: seconds that the other collectors do not need
    from world4rl.policies.folder import load_policy

    rollouts = params.rollouts
    counts = {"train": rollouts.policy, "test": rollouts.held_out}
    policy = load_policy(paths.bc(task), machine.select_device(params.device))
    controllers = {}
    for split in counts:
        sampled = policy_controller(policy, sample_seed=_noise_seed(params.seed, task, "policy", split))
        controllers[split] = alternating(policy_controller(policy), sampled)
    if rollouts.disturbance:
        seed = _noise_seed(params.seed, task, "policy", "train", stream=1)
        controllers["train"] = disturbed(controllers["train"], rollouts.disturbance, rollouts.random_hold, seed)
    extra = {
        "policy": digest_folder(paths.bc(task)),
        "policy_acts": "mean in even episodes, sampled in odd ones",
        "disturbance": rollouts.disturbance,
    }
    _collect(params, task, "policy", counts, controllers, paths, extra, validation=rollouts.validation)


def collect_random(params: Params, paths: Paths, task: str) -> None:
    """The stage `random_rollouts@task`: actions uniform in [-1, 1], each held for `random_hold` steps."""
    if not is_simulated(task):
        return _collect(params, task, "random", {}, {}, paths)
    rollouts = params.rollouts
    controllers = {"train": random_controller(_noise_seed(params.seed, task, "random", "train"), rollouts.random_hold)}
    _collect(params, task, "random", {"train": rollouts.random}, controllers, paths, validation=rollouts.validation)


def alternating(even: Controller, odd: Controller) -> Controller:
    """Lets `even` act in episodes 0, 2, … and `odd` in the others."""

    def act(
        frames: np.ndarray, states: np.ndarray, expert: np.ndarray, episodes: np.ndarray, steps: np.ndarray
    ) -> np.ndarray:
        actions = np.empty_like(expert, dtype=np.float32)
        for remainder, controller in enumerate((even, odd)):
            own = episodes % 2 == remainder
            if own.any():
                actions[own] = controller(frames[own], states[own], expert[own], episodes[own], steps[own])
        return actions

    return act


class ValidationShare:
    """Chooses episodes for validation as they come: the same share of the successes and of the failures.

    Chance alone may leave a small validation set without successes, and a threshold cannot be tuned without them.

    Args:
        share: Of each kind, in [0, 1]; of n episodes of a kind, n times the share are chosen, rounded half up.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._seen = {True: 0, False: 0}

    def takes(self, success: bool) -> bool:
        """Whether the next episode, which succeeded or not, is one for validation."""
        before = self._seen[success]
        self._seen[success] += 1
        return int((before + 1) * self._share + 0.5) > int(before * self._share + 0.5)


def _noise_seed(run_seed: int, task: str, source: str, split: str, stream: int = 0) -> int:
    """What a controller draws from: the seeds of a source and split name as many streams of noise."""
    return episode_seeds(run_seed, task, source, split, stream + 1)[stream]


def _collect(
    params: Params,
    task: str,
    source: Source,
    counts: Mapping[str, int],
    controllers: Mapping[str, Controller],
    paths: Paths,
    extra: Mapping[str, Any] | None = None,
    validation: float = 0.0,
) -> None:
    """Records episodes of the splits in `counts`; a share of the training ones, `validation`, is for validation."""
    parts = {
        split: (controllers[split], episode_seeds(params.seed, task, source, split, count))
        for split, count in counts.items()
    }
    side = {"source": source, "session": f"seed {params.seed}", **(extra or {})}
    began = time.perf_counter()
    figures = record(paths.raw(task, source), params, task, parts, side, validation=validation)
    # Beside the dataset, not in it: collecting again must give the same bytes.
    write_json(paths.collect_metrics(task, source), {**figures, "seconds": time.perf_counter() - began})
    progress.metrics(figures)


def record(
    target: Path,
    params: Params,
    task: str,
    parts: Mapping[str, tuple[Controller, Sequence[int]]],
    side: Mapping[str, Any],
    *,
    validation: float = 0.0,
) -> dict[str, int]:
    """Records episodes in the simulator as a LeRobot dataset.

    Args:
        target: Its root folder.
        params: The simulation.
        task: The task.
        parts: Who acts, and the seeds of the episodes, by split.
        side: What the side file says beside the simulation; `source` at least.
        validation: Share of the training episodes that is for validation.

    Returns:
        The numbers of `episodes` and of `successful` ones.
    """
    simulation, source = params.simulation, side["source"]
    said = {
        "operator": "scripted" if source == "expert" else source,
        "robot_id": "metaworld-sawyer" if is_simulated(task) else None,
        "licence": "Apache-2.0",
        "consent": "not needed: simulated",
        "simulation": describe_simulation(simulation, task) if is_simulated(task) else None,
        "policy": None,
        **side,
    }
    recording = Recording(
        task, simulation.camera, CONTROL_HZ / simulation.action_repeat, STATE_NAMES, ACTION_NAMES, said
    )
    size = (simulation.image_size, simulation.image_size)
    count = sum(len(seeds) for _, seeds in parts.values())
    successes = 0
    held = ValidationShare(validation)
    with progress.track(f"collect {source}", count, unit="episode") as bar:

        def episodes() -> Iterator[tuple[str, Episode]]:
            nonlocal successes
            for split, (controller, seeds) in parts.items():
                for episode in roll_out(task, simulation, seeds, controller, stop_at_success=False):
                    successes += episode.success
                    yield "validation" if split == "train" and held.takes(episode.success) else split, episode
                    bar.advance(1, success_rate=successes / (bar.done + 1))

        write_dataset(target, episodes(), recording, image_size=size)
    return {"episodes": count, "successful": successes}
