"""Collection in the simulator: the scripted expert's demonstrations, rollouts of a policy, and random ones.

Every episode is a function of the parameters and of its seed alone, whatever the number of simulator workers, so
that collecting again gives the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from world4rl import machine, progress
from world4rl.config import Params
from world4rl.demos.recording import Recording, write_dataset
from world4rl.demos.seeds import episode_seeds
from world4rl.envs.episodes import Controller, Episode, disturbed, expert_controller, random_controller, roll_out
from world4rl.envs.simulator import CONTROL_HZ, describe_simulation
from world4rl.files import write_json
from world4rl.paths import Paths, Source
from world4rl.provenance.digests import digest_folder

STATE_NAMES = ("hand_x", "hand_y", "hand_z", "gripper_opening")
ACTION_NAMES = ("hand_dx", "hand_dy", "hand_dz", "gripper_effort")


def collect_demos(params: Params, paths: Paths, task: str) -> None:
    """The stage `demos@task`: the scripted expert, `demonstrations` episodes to learn from and some to test with."""
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
    odd episodes that it learns from go further astray; held-out ones never do, they are what figures are about.

    Raises:
        DataError: there is no cloned policy.
    """
    from world4rl.policies.acting import policy_controller  # torch: seconds that the other collectors do not need
    from world4rl.policies.folder import load_policy

    rollouts = params.rollouts
    counts = _shares(rollouts.policy, rollouts.validation) | {"test": rollouts.held_out}
    policy = load_policy(paths.bc(task), machine.select_device(params.device))
    controllers = {}
    for split in counts:
        sampled = policy_controller(policy, sample_seed=_noise_seed(params.seed, task, "policy", split))
        if rollouts.disturbance and split != "test":
            seed = _noise_seed(params.seed, task, "policy", split, stream=1)
            sampled = disturbed(sampled, rollouts.disturbance, rollouts.random_hold, seed)
        controllers[split] = alternating(policy_controller(policy), sampled)
    extra = {
        "policy": digest_folder(paths.bc(task)),
        "policy_acts": "mean in even episodes, sampled in odd ones",
        "disturbance": rollouts.disturbance,
    }
    _collect(params, task, "policy", counts, controllers, paths, extra)


def collect_random(params: Params, paths: Paths, task: str) -> None:
    """The stage `random_rollouts@task`: actions uniform in [-1, 1], each held for `random_hold` steps."""
    counts = _shares(params.rollouts.random, params.rollouts.validation)
    hold = params.rollouts.random_hold
    controllers = {split: random_controller(_noise_seed(params.seed, task, "random", split), hold) for split in counts}
    _collect(params, task, "random", counts, controllers, paths)


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


def _shares(episodes: int, validation: float) -> dict[str, int]:
    """Splits a number of episodes; a share above zero gets at least one of several episodes."""
    held = min(max(round(episodes * validation), 1 if validation > 0 else 0), max(episodes - 1, 0))
    return {"train": episodes - held, "validation": held}


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
) -> None:
    simulation = params.simulation
    side = {
        "source": source,
        "operator": "scripted" if source == "expert" else source,
        "robot_id": "metaworld-sawyer",
        "session": f"seed {params.seed}",
        "licence": "Apache-2.0",
        "consent": "not needed: simulated",
        "simulation": describe_simulation(simulation, task),
        "policy": None,
        **(extra or {}),
    }
    recording = Recording(
        task, simulation.camera, CONTROL_HZ / simulation.action_repeat, STATE_NAMES, ACTION_NAMES, side
    )
    size = (simulation.image_size, simulation.image_size)
    successes = 0
    began = time.perf_counter()
    with progress.track(f"collect {source}", sum(counts.values()), unit="episode") as bar:

        def episodes() -> Iterator[tuple[str, Episode]]:
            nonlocal successes
            for split, count in counts.items():
                seeds = episode_seeds(params.seed, task, source, split, count)
                for episode in roll_out(task, simulation, seeds, controllers[split], stop_at_success=False):
                    successes += episode.success
                    yield split, episode
                    bar.advance(1, success_rate=successes / (bar.done + 1))

        write_dataset(paths.raw(task, source), episodes(), recording, image_size=size)
    figures = {"episodes": sum(counts.values()), "successful": successes}
    # Beside the dataset, not in it: collecting again must give the same bytes.
    write_json(paths.collect_metrics(task, source), {**figures, "seconds": time.perf_counter() - began})
    progress.metrics(figures)
