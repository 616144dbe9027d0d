"""A finished run in miniature: every file that the report reads, made by code."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pandas as pd
import pytest

from world4rl.config import Params, TaskParameters, load_profile
from world4rl.evaluation.statistics import calibration, compare_paired
from world4rl.files import write_json
from world4rl.paths import SOURCES, Paths

BUTTON, HANDLE = "button-press-topdown-v3", "faucet-open-v3"


@dataclass(frozen=True)
class Outcome:
    """Pairs of trials of a task, and what imagination said."""

    both: int
    gained: int
    lost: int
    neither: int
    imagined_bc: float
    imagined_refined: float


GOOD = {BUTTON: Outcome(39, 36, 12, 13, 0.52, 0.8), HANDLE: Outcome(45, 24, 7, 24, 0.58, 0.71)}
POOR = {BUTTON: Outcome(39, 14, 18, 29, 0.52, 0.83), HANDLE: Outcome(35, 10, 25, 30, 0.75, 0.71)}


def build_run(root: Path, outcomes: dict[str, Outcome] = GOOD, *, poor: bool = False) -> tuple[Params, Paths]:
    """Writes a run's files below `root`.

    Args:
        root: An empty folder.
        outcomes: The trials of each task; its tasks are the run's.
        poor: Whether the world model and the classifier miss their bounds, and episodes were quarantined.
    """
    rng = np.random.default_rng(7)
    demo = load_profile("demo")
    tasks = tuple(outcomes)
    params = demo.model_copy(
        update={"tasks": tasks, "task_parameters": {task: TaskParameters(demonstrations=1) for task in tasks}}
    )
    paths = Paths(root)
    for task, outcome in outcomes.items():
        _data(paths, task, poor)
        _policies(paths, task, outcome, rng)
        _trials(paths, task, outcome, rng)
    _world_model(paths, poor, rng)
    _classifier(paths, tasks, poor, rng)
    _fidelity(paths, tasks, poor)
    return params, paths


def _data(paths: Paths, task: str, poor: bool) -> None:
    refused = {
        "expert": [],
        "policy": [{"episode": 103, "check": "not_finite", "reason": "action holds NaN", "evidence": "row 12"}],
        "random": [{"episode": 17, "check": "frozen", "reason": "camera <corner2> stands still", "evidence": ""}],
    }
    parts = {
        source: {
            "seconds": accepted / 17,
            "accepted": accepted,
            "quarantined": refused[source] if poor else [],
            "frames": 50 * accepted,
            "successes": successes,
            "digest": "a1" * 32,
        }
        for source, accepted, successes in (("expert", 24, 24), ("policy", 150, 81), ("random", 30, 0))
    }
    write_json(paths.store_report(task, "expert"), parts["expert"])
    for source in SOURCES:
        figures = {key: parts[source][key] for key in ("accepted", "successes")}
        write_json(paths.collect_metrics(task, source), {"seconds": 2 * parts[source]["seconds"], **figures})
    rollouts = {source: parts[source] for source in ("policy", "random")}
    write_json(
        paths.store_report(task, "rollouts"),
        {
            **{key: sum(part[key] for part in rollouts.values()) for key in ("seconds", "accepted", "frames")},
            "quarantined": [
                {**entry, "source": source} for source, part in rollouts.items() for entry in part["quarantined"]
            ],
            "digest": "b2" * 32,
            "sources": rollouts,
        },
    )


def _policies(paths: Paths, task: str, outcome: Outcome, rng: np.random.Generator) -> None:
    write_json(paths.bc_metrics(task), {"seconds": 38.5, "validation_nll": -3.1})
    steps = np.arange(10, 1001, 10)
    train = -4.2 + 8 * np.exp(-steps / 150) + rng.normal(0, 0.15, len(steps))
    held_out = np.where(steps % 100 == 0, -3.2 + 7 * np.exp(-steps / 180) + 0.0004 * steps, np.nan)
    paths.bc_curve(task).parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame({"step": steps, "train_nll": train, "validation_nll": held_out}).to_csv(
        paths.bc_curve(task), index=False
    )
    write_json(paths.refined_metrics(task), {"seconds": 131.0})
    iterations = np.arange(1, 31)
    rise = outcome.imagined_refined - outcome.imagined_bc
    curve = {
        "iteration": iterations,
        "imagined_success": np.clip(
            outcome.imagined_bc + rise * (1 - np.exp(-iterations / 9)) + rng.normal(0, 0.03, 30), 0, 1
        ),
        "approx_kl": 0.012 + 0.006 * rng.random(30),
        "bc_kl": 0.4 * (1 - np.exp(-iterations / 15)),
        "clip_fraction": 0.2 + 0.05 * rng.random(30),
        "value_loss": 0.1 * np.exp(-iterations / 10),
        "sigma": 0.16 - 0.001 * iterations,
        "seconds": np.full(30, 4.3),
    }
    paths.refined_curve(task).parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(curve).to_csv(paths.refined_curve(task), index=False)


def _trials(paths: Paths, task: str, outcome: Outcome, rng: np.random.Generator) -> None:
    pairs = np.repeat(
        [[1, 1], [0, 1], [1, 0], [0, 0]], [outcome.both, outcome.gained, outcome.lost, outcome.neither], axis=0
    )
    rng.shuffle(pairs)
    rows, steps_mean = [], {}
    for column, policy in enumerate(("bc", "refined")):
        steps = np.where(pairs[:, column] == 1, rng.integers(22, 48, len(pairs)) - 4 * column, 0)
        steps_mean[policy] = float(steps[steps > 0].mean()) if (steps > 0).any() else None
        for seed, (pair, taken) in enumerate(zip(pairs.tolist(), steps.tolist(), strict=True)):
            rows.append(
                {"policy": policy, "seed": 90_000 + seed, "success": pair[column], "steps": taken if taken else None}
            )
    folder = paths.evaluation(task)
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).astype({"steps": "Int64"}).to_csv(folder / "trials.csv", index=False)
    compared = compare_paired(pairs[:, 0], pairs[:, 1])
    write_json(
        paths.evaluation_metrics(task),
        {
            "seconds": 49.0,
            "task": task,
            "bc": {
                "successes": compared.first_successes,
                "trials": compared.trials,
                "steps_mean": steps_mean["bc"],
            },
            "refined": {
                "successes": compared.second_successes,
                "trials": compared.trials,
                "steps_mean": steps_mean["refined"],
            },
            "gain_points": compared.gain_points,
            "gain_interval": list(compared.gain_interval),
            "p_value": compared.p_value,
            "gained": compared.gained,
            "lost": compared.lost,
            "imagined": {"bc": outcome.imagined_bc, "refined": outcome.imagined_refined, "trials": 100},
        },
    )
    for name, success in (("bc_failure_90003", False), ("bc_success_90001", True), ("refined_success_90001", True)):
        frames = np.stack([np.kron(scene(step / 24, success), np.ones((2, 2, 1), np.uint8)) for step in range(25)])
        imageio.imwrite(folder / f"{name}.mp4", frames, fps=12, codec="libx264")


def _world_model(paths: Paths, poor: bool, rng: np.random.Generator) -> None:
    write_json(paths.world_model_metrics, {"seconds": 205.0, "parameters": 2_700_000})
    steps = np.arange(1, 1501, 5)
    loss = 0.02 + 0.5 * np.exp(-steps / 120)
    pd.DataFrame(
        {"step": steps, "loss": loss * rng.lognormal(0, 0.25, len(steps)), "learning_rate": 3e-4 * (1 - steps / 1501)}
    ).to_csv(paths.world_model_curve, index=False)


def _classifier(paths: Paths, tasks: tuple[str, ...], poor: bool, rng: np.random.Generator) -> None:
    said = np.clip(np.concatenate([rng.beta(0.4, 6, 1200), rng.beta(6, 0.5, 300)]), 0, 1)
    happened = rng.random(1500) < (np.clip(said * 1.3 - 0.1, 0, 1) if poor else said)
    measured = calibration(said, happened)
    write_json(
        paths.classifier_metrics,
        {
            "seconds": 41.0,
            "thresholds": dict(zip(tasks, (0.62, 0.34), strict=False)),
            "precision": 0.81 if poor else 0.97,
            "recall": 0.93,
            "ece": measured.ece,
            "generated": {"precision": None if poor else 0.92, "recall": 0.0 if poor else 0.88, "ece": 0.046},
            "tasks": {
                task: {"precision": precision, "recall": 0.91, "generated": {"precision": None, "recall": 0.0}}
                for task, precision in zip(tasks, (0.98, 0.86), strict=False)
            },
            "reliability": measured.bins_as_json(),
            "backbone": "efficientnet-lite0",
        },
    )
    steps = np.arange(1, 401, 2)
    pd.DataFrame({"step": steps, "loss": 0.6 * np.exp(-steps / 60) * rng.lognormal(0, 0.4, 200) + 0.01}).to_csv(
        paths.classifier_curve, index=False
    )


def _fidelity(paths: Paths, tasks: tuple[str, ...], poor: bool) -> None:
    strips = []
    paths.fidelity.mkdir(parents=True, exist_ok=True)
    for task in tasks:
        for outcome in ("success", "failure"):
            foretold = not poor or outcome == "failure"
            times = np.linspace(0, 1, 10)
            rng = np.random.default_rng(1)
            real = np.hstack([scene(time, outcome == "success") for time in times])
            ending = (outcome == "success") == foretold
            imagined = np.hstack([scene(time, ending) for time in times]).astype(np.int16)
            imagined = np.clip(imagined + rng.normal(0, 9, imagined.shape), 0, 255).astype(np.uint8)
            file = paths.fidelity / f"strip_{task}_{outcome}_combined.png"
            imageio.imwrite(file, np.vstack([real, np.full((3, real.shape[1], 3), 255, np.uint8), imagined]))
            strips.append(
                {
                    "task": task,
                    "outcome": outcome,
                    "imagined_outcome": outcome if foretold else "failure",
                    "path": file.relative_to(paths.root).as_posix(),
                    "policy": "expert" if outcome == "success" else "bc",
                }
            )
    still = {"5": 0.0021, "15": 0.0047, "25": 0.0063}
    write_json(
        paths.fidelity_metrics,
        {
            "seconds": 23.0,
            "one_step_mse": 0.00031,
            "open_loop_mse": {"5": 0.0009, "15": 0.0018, "25": 0.0071 if poor else 0.0026},
            "copy_last_mse": still,
            "replay": {
                "expert_success_recall": 0.55 if poor else 0.925,
                "policy_success_recall": 0.9,
                "policy_failure_recall": 0.97,
            },
            "action_controllability": 0.98 if poor else 2.37,
            "random_action_ratio": 1.08 if poor else 5.6,
            "strips": strips,
        },
    )


def scene(time: float, success: bool) -> np.ndarray:
    """A picture (48, 48, 3) of a hand that comes down on a button (or beside it), at `time` in [0, 1]."""
    frame = np.full((48, 48, 3), (196, 178, 150), np.uint8)
    frame[34:] = (120, 92, 66)
    pressed = success and time > 0.85
    frame[30 + 3 * pressed : 34, 19:29] = (200, 40, 40)
    x, y = (24 if success else 10 + round(5 * time)), round(4 + 22 * time)
    frame[:y, x - 2 : x + 2] = (90, 96, 104)
    frame[y : y + 5, x - 4 : x + 4] = (40, 44, 52)
    return frame


@pytest.fixture(scope="session")
def _built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Params, Path]]:
    return {}


@pytest.fixture
def finished_run(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, _built: dict[str, tuple[Params, Path]]
) -> Callable[..., tuple[Params, Paths]]:
    """A run in a folder of the test's own; takes what `build_run` takes after the folder."""

    def build(outcomes: dict[str, Outcome] = GOOD, *, poor: bool = False) -> tuple[Params, Paths]:
        key = f"{outcomes} {poor}"
        if key not in _built:
            root = tmp_path_factory.mktemp("finished")
            _built[key] = build_run(root, outcomes, poor=poor)[0], root
        params, root = _built[key]
        shutil.copytree(root, tmp_path / "run")
        return params, Paths(tmp_path / "run")

    return build
