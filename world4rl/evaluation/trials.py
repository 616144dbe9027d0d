"""The stage `evaluation`: BC and refined policy in the simulator on the same seeds, and in imagination from there."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from itertools import batched
from typing import Any

import numpy as np
import pandas as pd
import torch

from world4rl import progress
from world4rl.config import Params, Simulation
from world4rl.demos.seeds import episode_seeds
from world4rl.envs.episodes import Controller, Episode, roll_out
from world4rl.envs.imagination import Moment, advance
from world4rl.envs.simulator import CONTROL_HZ
from world4rl.envs.tasks import is_simulated
from world4rl.evaluation.held_out import task_numbers
from world4rl.evaluation.robot import evaluate_on_robot
from world4rl.evaluation.tables import POLICIES, check_trials, compare_trials
from world4rl.evaluation.videos import choose, write_video
from world4rl.files import replacing, write_json
from world4rl.machine import select_device
from world4rl.models.classifier import SuccessClassifier
from world4rl.models.denoiser import Denoiser
from world4rl.models.folder import load_classifier, load_denoiser
from world4rl.models.policy import GaussianPolicy
from world4rl.paths import Paths
from world4rl.policies.acting import policy_controller
from world4rl.policies.folder import load_policy
from world4rl.training.loop import stage_seeds

STAGE = "evaluate"
BATCH = 64  # episodes imagined side by side


def evaluate(params: Params, paths: Paths, task: str) -> None:
    """Tries both policies of `task` with their mean actions and writes metrics, a table of trials and videos.

    The seeds are those of the source `evaluation`, which no dataset has. Both policies get the same ones; imagination
    starts from the first frames of the first `imagined_trials` of them. What no simulator has, a robot judges.

    Raises:
        DataError: a model is missing or damaged, or the world model or the classifier does not know the task.
    """
    if not is_simulated(task):
        evaluate_on_robot(params, paths, task)
        return
    began = time.monotonic()
    settings, simulation = params.evaluation, params.simulation
    device = select_device(params.device)
    world = load_denoiser(paths.world_model, device)
    (number,) = task_numbers((task,), world.tasks, paths.world_model)
    classifier = load_classifier(paths.classifier, device)
    threshold = classifier.threshold_of(task)
    folders = dict(zip(POLICIES, (paths.bc(task), paths.refined(task)), strict=True))
    policies = {name: load_policy(folder, device).eval() for name, folder in folders.items()}
    seeds = episode_seeds(params.seed, task, "evaluation", "test", settings.trials)

    episodes = try_out(task, simulation, seeds, policies)
    trials = check_trials(trial_table(episodes), paths.evaluation(task) / "trials.csv")
    (noise_seed,) = stage_seeds(params.seed, f"{STAGE}/{task}", 1)
    count = min(settings.imagined_trials, len(seeds))
    imagined: dict[str, Any] = {"trials": count}
    with progress.track("imagine the same trials", total=count * len(policies), unit="trial") as bar:
        for name, policy in policies.items():
            start = first_moment(episodes[name][:count], world.denoiser.settings.history, number).to(device)
            noise = torch.Generator(device).manual_seed(noise_seed)
            outcomes = imagine(world.denoiser, classifier, threshold, policy, start, simulation.episode_steps, noise)
            imagined[name] = float(outcomes.mean())
            bar.advance(count, **{name: imagined[name]})

    with replacing(paths.evaluation(task)) as fresh:
        fresh.mkdir()
        trials.to_csv(fresh / "trials.csv", index=False, lineterminator="\n")
        for name, tried in episodes.items():
            for row in choose([episode.success for episode in tried], settings.videos):
                episode = tried[row]
                outcome = "success" if episode.success else "failure"
                file = fresh / f"{name}_{outcome}_{episode.seed}.mp4"
                write_video(file, watched(episode), CONTROL_HZ / simulation.action_repeat)
    compared = compare_trials(trials, settings.confidence)
    metrics = {
        "seconds": round(time.monotonic() - began, 3),
        "task": task,
        **{name: summary(tried) for name, tried in episodes.items()},
        "gain_points": compared.gain_points,
        "gain_interval": list(compared.gain_interval),
        "p_value": compared.p_value,
        "gained": compared.gained,
        "lost": compared.lost,
        "imagined": imagined,
    }
    write_json(paths.evaluation_metrics(task), metrics)
    progress.metrics(
        {
            "bc": f"{compared.first_successes}/{compared.trials}",
            "refined": f"{compared.second_successes}/{compared.trials}",
            "gain (points)": compared.gain_points,
            "p_value": compared.p_value,
            **{f"{name} imagined": imagined[name] for name in POLICIES},
        }
    )


def try_out(
    task: str, simulation: Simulation, seeds: Sequence[int], policies: Mapping[str, GaussianPolicy]
) -> dict[str, list[Episode]]:
    """Episodes of every policy, one a seed in their order, each up to the first success."""
    tried: dict[str, list[Episode]] = {name: [] for name in policies}
    with progress.track(f"try policies on {task}", total=len(seeds), unit="seed") as bar:
        for episodes in try_in_turn(task, simulation, seeds, policies):
            for name, episode in episodes.items():
                tried[name].append(episode)
            bar.advance(1, **{name: sum(e.success for e in own) / len(own) for name, own in tried.items()})
    return tried


def try_in_turn(
    task: str, simulation: Simulation, seeds: Sequence[int], policies: Mapping[str, GaussianPolicy]
) -> Generator[dict[str, Episode], None, None]:
    """Has every policy try one seed after the other, each up to the first success, and yields {policy: episode}.

    All of it is one go, so that simulator processes start once. Whoever has seen enough closes the generator.
    """
    controller = in_turn([policy_controller(policy) for policy in policies.values()])
    repeated = [seed for seed in seeds for _ in policies]
    with closing(roll_out(task, simulation, repeated, controller, stop_at_success=True)) as episodes:
        for together in batched(episodes, len(policies)):
            yield dict(zip(policies, together, strict=True))


def in_turn(controllers: Sequence[Controller]) -> Controller:
    """A controller that gives the first episode to the first controller, the next to the second, ..., and again."""

    def act(
        frames: np.ndarray, states: np.ndarray, expert: np.ndarray, episodes: np.ndarray, steps: np.ndarray
    ) -> np.ndarray:
        actions = np.zeros_like(expert, np.float32)
        count = len(controllers)
        for number, controller in enumerate(controllers):
            own = episodes % count == number
            if own.any():
                actions[own] = controller(frames[own], states[own], expert[own], episodes[own] // count, steps[own])
        return actions

    return act


def trial_table(episodes: Mapping[str, Sequence[Episode]]) -> pd.DataFrame:
    """A row a trial: policy, seed, success (0/1), steps to success (empty where it failed)."""
    rows = [
        {"policy": name, "seed": episode.seed, "success": int(episode.success), "steps": episode.steps_to_success}
        for name, tried in episodes.items()
        for episode in tried
    ]
    return pd.DataFrame(rows).astype({"steps": "Int64"})


def summary(tried: Sequence[Episode]) -> dict[str, Any]:
    """Successes, trials, and the mean number of actions to success (None where there is none)."""
    steps = [episode.steps_to_success for episode in tried if episode.steps_to_success is not None]
    return {"successes": len(steps), "trials": len(tried), "steps_mean": float(np.mean(steps)) if steps else None}


def watched(episode: Episode) -> np.ndarray:
    """Everything there was to see, uint8 (T + 1, H, W, 3): also what the last action led to, where it is known."""
    return episode.frames if episode.outcome is None else np.concatenate((episode.frames, episode.outcome[None]))


def first_moment(episodes: Sequence[Episode], history: int, task: int) -> Moment:
    """How episodes begin, as an imagined one does: the first frame and state repeated, actions zero."""
    frames = torch.from_numpy(np.stack([episode.frames[0] for episode in episodes])).permute(0, 3, 1, 2)
    states = torch.from_numpy(np.stack([episode.states[0] for episode in episodes]).astype(np.float32))
    return Moment(
        frames.unsqueeze(1).repeat(1, history, 1, 1, 1),
        torch.zeros(len(episodes), history - 1, episodes[0].actions.shape[1]),
        states.unsqueeze(1).repeat(1, history, 1),
        torch.full((len(episodes),), task),
        frames,
    )


@torch.no_grad()
def imagine(
    denoiser: Denoiser,
    classifier: SuccessClassifier,
    threshold: float,
    policy: GaussianPolicy,
    start: Moment,
    horizon: int,
    noise: torch.Generator,
) -> np.ndarray:
    """Runs the policy with its mean actions inside the world model.

    Args:
        denoiser: The world model.
        classifier: Judges every imagined frame; an episode ends with its first success.
        threshold: Of the task.
        policy: On the same device.
        start: B real moments.
        horizon: Steps after which an episode without success is a failure.
        noise: Draws the sampler's noise.

    Returns:
        bool (B,): where the classifier saw a success.
    """
    succeeded = np.zeros(len(start.task), bool)
    for first in range(0, len(succeeded), BATCH):
        rows = torch.arange(first, min(first + BATCH, len(succeeded)))
        moment = select(start, rows.to(start.task.device))
        for _ in range(horizon):
            pixels = moment.frames[:, -policy.frames :].float() / 255.0
            moment = advance(denoiser, moment, policy(pixels, moment.states[:, -1]).mean, noise)
            seen = classifier.succeeded(moment.frames[:, -1], threshold)
            succeeded[rows[seen.cpu()].numpy()] = True
            rows, moment = rows[~seen.cpu()], select(moment, ~seen)
            if not len(rows):
                break
    return succeeded


def select(moment: Moment, rows: torch.Tensor) -> Moment:
    """The given rows (indices or bool) of a moment."""
    return Moment(**{name: value[rows] for name, value in vars(moment).items()})
