"""The stage `fidelity`: what the world model makes of held-out real episodes.

Imagined success of real successes and failures, replayed with their own actions, bounds what refinement can reach in
the model; errors are compared with the cheapest forecast (nothing moves) and with the model's own under wrong actions.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from world4rl import progress
from world4rl.config import Params
from world4rl.envs.imagination import advance, replay
from world4rl.errors import DataError
from world4rl.evaluation.held_out import HeldOut, batches, exchange
from world4rl.evaluation.strips import columns, write_strip
from world4rl.files import replacing, write_json
from world4rl.machine import select_device
from world4rl.models.classifier import SuccessClassifier
from world4rl.models.denoiser import Denoiser
from world4rl.models.folder import load_classifier, load_denoiser
from world4rl.paths import Paths
from world4rl.provenance.digests import digest_folder
from world4rl.training.loop import stage_seeds

STAGE = "evaluate-world-model"
WINDOWS = 512  # that the one-step error is taken over
RANDOM = 64  # episodes, at most, that are also imagined with random actions
BATCH = 32  # episodes imagined side by side
EXACT = 1e-9  # mean squared error below which a model counts as exact
KINDS = (("expert", True), ("policy", True), ("policy", False))  # source and outcome of what replays must foretell


def evaluate(params: Params, paths: Paths) -> None:
    """Measures the world model and writes metrics, a table of episodes and film strips.

    Raises:
        DataError: a model or a store is missing or damaged, a model does not know a task, or the held-out episodes are
            too few or too short.
    """
    began = time.monotonic()
    horizons = tuple(sorted(params.evaluation.open_loop_horizons))
    device = select_device(params.device)
    world = load_denoiser(paths.world_model, device)
    classifier = load_classifier(paths.classifier, device)
    held_out = HeldOut.open(paths, params.tasks, known=world.tasks, history=world.denoiser.settings.history)
    windows_seed, exchange_seed, actions_seed, noise_seed = stage_seeds(params.seed, STAGE, 4)
    partners = exchange(held_out.table["task"].tolist(), np.random.default_rng(exchange_seed))
    exchanged = held_out.longer_than(horizons[-1])
    exchanged = exchanged[partners[exchanged] >= 0]
    if not len(exchanged):
        raise DataError(
            f"no task has two held-out episodes, one of them longer than {horizons[-1]} steps",
            where=paths.root / "data" / "store",
            remedy="raise rollouts.held_out, or lower evaluation.open_loop_horizons, in params.yaml",
        )
    # Evenly over all tasks and sources, which follow each other.
    randomised = exchanged[np.unique(np.linspace(0, len(exchanged) - 1, RANDOM).round().astype(np.int64))]
    shape = (len(randomised), *held_out.actions.shape[1:])
    noise_actions = np.random.default_rng(actions_seed).uniform(-1.0, 1.0, shape).astype(np.float32)
    comparison = Comparison(world.denoiser, classifier, held_out, torch.Generator(device).manual_seed(noise_seed))
    shown = to_show(held_out.table)
    with progress.track(
        "imagine held-out episodes", total=len(held_out) + len(exchanged) + len(randomised), unit="episode"
    ) as bar:
        one_step, still_step, windows = comparison.one_step(np.random.default_rng(windows_seed))
        foretold = comparison.replays(horizons, {row for _, row in shown}, bar)
        others = held_out.actions[partners[exchanged]]
        wrong = comparison.wrong_actions(exchanged, others, horizons[-1], bar)
        noisy = comparison.wrong_actions(randomised, torch.from_numpy(noise_actions), horizons[-1], bar)
    table = held_out.table.assign(imagined_success=foretold.success)
    right = foretold.errors[horizons[-1]]
    with replacing(paths.fidelity) as fresh:
        fresh.mkdir()
        episode_table(table, foretold).to_csv(
            fresh / "episodes.csv", index=False, lineterminator="\n", float_format="%.6g"
        )
        strips = _write_strips(fresh, shown, table, held_out, foretold.kept)
    for strip in strips:
        strip["path"] = (paths.fidelity / strip["path"]).relative_to(paths.root).as_posix()
    everything = np.ones(len(table), bool)
    metrics = {
        "seconds": round(time.monotonic() - began, 3),
        "one_step_mse": one_step,
        "one_step_copy_last_mse": still_step,
        "one_step_windows": windows,
        **_errors(foretold, everything),
        "replay": replay_recall(table),
        "action_controllability": controllability(right[exchanged], wrong),
        "random_action_ratio": controllability(right[randomised], noisy),
        "tasks": {
            task: {
                **_errors(foretold, (table["task"] == task).to_numpy()),
                "replay": replay_recall(table[table["task"] == task]),
            }
            for task in params.tasks
        },
        "strips": strips,
    }
    write_json(paths.fidelity_metrics, metrics)
    # Beside the stage's outputs, which the next world model replaces: generations are compared episode by episode.
    write_json(paths.generation(digest_folder(paths.world_model)), by_episode(table, foretold))
    progress.metrics(_headline(metrics))


@dataclass
class Foretold:
    """What N replays came to.

    Attributes:
        success: bool (N,): the classifier saw a success in an imagined frame.
        errors: By horizon, (N,) mean squared error of the frame so many steps ahead; NaN where an episode is shorter.
        still: The same for the first frame, held.
        kept: Imagined frames uint8 (rows + 1, 3, H, W), first frame included, of the episodes that were asked for.
    """

    success: np.ndarray
    errors: dict[int, np.ndarray]
    still: dict[int, np.ndarray]
    kept: dict[int, Tensor] = field(default_factory=dict)


@dataclass
class Comparison:
    """Compares a world model with held-out episodes; all frames are uint8, errors are of pixels in [0, 1]."""

    denoiser: Denoiser
    classifier: SuccessClassifier
    held_out: HeldOut
    noise: torch.Generator

    def one_step(self, rng: np.random.Generator) -> tuple[float, float, int]:
        """Error of the next frame after a real history and the true action.

        Returns:
            The mean over at most `WINDOWS` places drawn without replacement, that of the last frame held, their number.
        """
        lengths = self.held_out.lengths
        places = np.array([(e, row) for e, length in enumerate(lengths) for row in range(length - 1)]).reshape(-1, 2)
        drawn = rng.permutation(len(places))[:WINDOWS]
        errors, still = [], []
        for chosen in batches(places[np.sort(drawn)], 4 * BATCH):
            episodes, rows = chosen.T
            moment = self.held_out.starts.take(chosen).to(self.noise.device)
            actions = self.held_out.actions[episodes, rows].to(self.noise.device)
            imagined = advance(self.denoiser, moment, actions, self.noise).frames[:, -1]
            truth = self.held_out.real(episodes, rows + 1)
            errors.append(squared_error(imagined, truth))
            still.append(squared_error(moment.frames[:, -1], truth))
        return float(np.concatenate(errors).mean()), float(np.concatenate(still).mean()), len(drawn)

    def replays(self, horizons: Sequence[int], keep: set[int], bar: progress.Bar) -> Foretold:
        """Imagines every held-out episode open loop, from its first frame with its own actions."""
        count = len(self.held_out)
        thresholds = self.classifier.thresholds_of(self.held_out.table["task"].tolist())
        foretold = Foretold(
            np.zeros(count, bool),
            {horizon: np.full(count, np.nan) for horizon in horizons},
            {horizon: np.full(count, np.nan) for horizon in horizons},
        )
        for episodes in batches(np.arange(count), BATCH):
            lengths = self.held_out.lengths[episodes]
            imagined = self._imagine(episodes, self.held_out.actions[episodes, : lengths.max()])
            # Frame 0 is real. The frame after the last action has no real counterpart, but it may be the success.
            steps = imagined.shape[1] - 1
            own = thresholds[torch.from_numpy(episodes)].repeat_interleave(steps)
            seen = self.classifier.succeeded(imagined[:, 1:].flatten(0, 1), own).cpu().numpy()
            within = np.arange(1, steps + 1) <= lengths[:, None]
            foretold.success[episodes] = (seen.reshape(within.shape) & within).any(axis=1)
            for horizon in horizons:
                rows = np.flatnonzero(lengths > horizon)
                if len(rows):
                    truth = self.held_out.real(episodes[rows], horizon)
                    foretold.errors[horizon][episodes[rows]] = squared_error(imagined[rows, horizon], truth)
                    foretold.still[horizon][episodes[rows]] = squared_error(imagined[rows, 0], truth)
            for row, episode in enumerate(episodes.tolist()):
                if episode in keep:
                    foretold.kept[episode] = imagined[row, : lengths[row] + 1].cpu()
            bar.advance(len(episodes))
        return foretold

    def wrong_actions(self, episodes: np.ndarray, actions: Tensor, horizon: int, bar: progress.Bar) -> np.ndarray:
        """Error (B,) so many steps ahead when episodes (B,) are imagined with actions (B, T, A) that are not theirs."""
        errors = []
        for rows in batches(np.arange(len(episodes)), BATCH):
            imagined = self._imagine(episodes[rows], actions[rows, :horizon])
            errors.append(squared_error(imagined[:, horizon], self.held_out.real(episodes[rows], horizon)))
            bar.advance(len(rows))
        return np.concatenate(errors)

    def _imagine(self, episodes: np.ndarray, actions: Tensor) -> Tensor:
        device = self.noise.device
        start = self.held_out.starts.take(np.stack((episodes, np.zeros_like(episodes)), axis=1)).to(device)
        return replay(self.denoiser, start, actions.to(device), self.noise)


def squared_error(one: Tensor, other: Tensor) -> np.ndarray:
    """Mean squared difference of uint8 frames (B, 3, H, W), in units of the whole range of a pixel: float64 (B,)."""
    difference = (one.cpu().double() - other.cpu().double()) / 255.0
    return difference.square().mean((-3, -2, -1)).numpy()


def controllability(right: np.ndarray, wrong: np.ndarray) -> float:
    """How many times larger the error gets with wrong actions; 1: the model does not heed them, or they differ little.

    Episodes of one policy on one task act much alike. Exchanged actions ask whether the model tells them apart; random
    ones whether it heeds actions at all.
    """
    return float(max(wrong.mean(), EXACT) / max(right.mean(), EXACT))


def replay_recall(table: pd.DataFrame) -> dict[str, Any]:
    """Share of real outcomes that the replays foretell, and the counts behind it.

    Args:
        table: A row an episode: source, success, imagined_success.

    Returns:
        `expert_success_recall`, `policy_success_recall`, `policy_failure_recall` (None without such an episode), and
        `counts` with the episodes of each kind and how many of them were foretold.
    """
    recalls: dict[str, Any] = {}
    counts = {}
    for source, outcome in KINDS:
        kind = f"{source}_{'success' if outcome else 'failure'}"
        own = table[(table["source"] == source) & (table["success"] == outcome)]
        right = int((own["imagined_success"] == outcome).sum())
        recalls[f"{kind}_recall"] = right / len(own) if len(own) else None
        counts[kind] = {"foretold": right, "episodes": len(own)}
    return {**recalls, "counts": counts}


def episode_table(table: pd.DataFrame, foretold: Foretold) -> pd.DataFrame:
    """What `episodes.csv` holds; an error is empty where an episode is shorter than the horizon."""
    rows = table[["task", "source", "episode", "seed"]].copy()
    rows["real_success"] = table["success"].astype(int)
    rows["imagined_success"] = table["imagined_success"].astype(int)
    for name, errors in (("open_loop_mse", foretold.errors), ("copy_last_mse", foretold.still)):
        for horizon, values in errors.items():
            rows[f"{name}_{horizon}"] = values
    return rows


def by_episode(table: pd.DataFrame, foretold: Foretold) -> dict[str, Any]:
    """What each held-out episode says about a world model: {`episodes`: an entry by the episode's digest}.

    An entry holds task, source, `success` (the real outcome), `foretold` (whether the replay came to the same) and
    `open_loop_mse` by horizon, None where the episode is shorter.
    """
    episodes = {}
    for row, entry in enumerate(table.to_dict("records")):
        errors = {str(horizon): float(values[row]) for horizon, values in foretold.errors.items()}
        episodes[entry["digest"]] = {
            "task": entry["task"],
            "source": entry["source"],
            "success": bool(entry["success"]),
            "foretold": bool(entry["success"] == entry["imagined_success"]),
            "open_loop_mse": {horizon: error if np.isfinite(error) else None for horizon, error in errors.items()},
        }
    return {"format": 1, "episodes": episodes}


def to_show(table: pd.DataFrame) -> list[tuple[str, int]]:
    """Names and rows of the episodes that get a film strip: of each task the first of every kind, none hand-picked."""
    shown = []
    for task in table["task"].unique():
        for source, outcomes in (("policy", (True,)), ("policy", (False,)), ("expert", (True, False))):
            rows = np.flatnonzero(
                (table["task"] == task) & (table["source"] == source) & table["success"].isin(outcomes)
            )
            if len(rows):
                kind = source if len(outcomes) == 2 else f"{source}_{_outcome(outcomes[0])}"
                shown.append((f"strip_{task}_{kind}.png", int(rows[0])))
    return shown


def _write_strips(
    folder: Path, shown: list[tuple[str, int]], table: pd.DataFrame, held_out: HeldOut, kept: dict[int, Tensor]
) -> list[dict[str, Any]]:
    strips = []
    for name, row in shown:
        entry = table.iloc[row]
        moments = columns(int(entry["length"]))
        real = held_out.real(np.full(len(moments), row), moments)
        write_strip(folder / name, _channels_last(real), _channels_last(kept[row][moments]))
        strips.append(
            {
                "task": entry["task"],
                "policy": "bc" if entry["source"] == "policy" else entry["source"],
                "outcome": _outcome(entry["success"]),
                "imagined_outcome": _outcome(entry["imagined_success"]),
                "path": name,
            }
        )
    return strips


def _channels_last(frames: Tensor) -> np.ndarray:
    return frames.permute(0, 2, 3, 1).numpy()


def _outcome(success: bool) -> str:
    return "success" if success else "failure"


def _errors(foretold: Foretold, rows: np.ndarray) -> dict[str, dict[str, float | None]]:
    """Mean errors over the selected episodes that are long enough, None where none is."""

    def mean(values: np.ndarray) -> float | None:
        known = values[rows & np.isfinite(values)]
        return float(known.mean()) if len(known) else None

    return {
        "open_loop_mse": {str(horizon): mean(values) for horizon, values in foretold.errors.items()},
        "copy_last_mse": {str(horizon): mean(values) for horizon, values in foretold.still.items()},
    }


def _headline(metrics: dict[str, Any]) -> dict[str, float]:
    """The figures that matter, flat."""
    figures = {name: metrics[name] for name in ("one_step_mse", "action_controllability", "random_action_ratio")}
    for horizon, error in metrics["open_loop_mse"].items():
        figures[f"open_loop_mse {horizon}"] = error
        figures[f"copy_last_mse {horizon}"] = metrics["copy_last_mse"][horizon]
    figures |= {name: value for name, value in metrics["replay"].items() if isinstance(value, float)}
    return figures
