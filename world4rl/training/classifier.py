"""The stage `success_classifier`: trains C(x) on real frames and on frames that the world model generated.

In imagination the classifier only ever sees generated frames. Trained on real ones alone it misses most imagined
successes, so training episodes are replayed inside the frozen world model and labelled as the real episode was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from world4rl import progress
from world4rl.config import Classifier, Params
from world4rl.demos.store import EpisodeStore, open_stores
from world4rl.envs.imagination import StartStates, replay
from world4rl.errors import DataError
from world4rl.evaluation.statistics import calibration
from world4rl.files import write_json, write_text
from world4rl.machine import select_device
from world4rl.models.augmentation import random_shift
from world4rl.models.classifier import SuccessClassifier, classifier_loss, load_imagenet
from world4rl.models.folder import LoadedWorldModel, load_denoiser, save_classifier
from world4rl.models.precision import fast_autocast
from world4rl.paths import Paths
from world4rl.provenance.digests import digest_folder
from world4rl.training.checkpoint import Generators, State, capture_optimizer, clear_state, restore_optimizer
from world4rl.training.loop import Tensors, cosine_factor, curve_csv, run, stage_seeds

STAGE = "train-classifier"
WARMUP_STEPS = 20
CURVE_POINTS = 50
SHIFT_PIXELS = 2
REPLAY_BATCH = 64
FALSE_SUCCESS_WEIGHT = 2.0
THRESHOLDS = tuple(round(0.02 * k, 2) for k in range(5, 50))


@dataclass(frozen=True)
class Labels:
    """What is known of N episodes of any lengths, M frames in all; an episode's frames follow one another.

    Attributes:
        success: bool (M,), whether the *real* frame at this place shows a solved task.
        succeeded: bool (N,), whether the episode as a whole is a success.
        lengths: int64 (N,), frames of each episode.
        tasks: N names.
    """

    success: Tensor
    succeeded: Tensor
    lengths: Tensor
    tasks: tuple[str, ...]

    @property
    def owner(self) -> Tensor:
        """int64 (M,): the episode, 0 to N - 1, that each frame belongs to."""
        return torch.arange(len(self.lengths)).repeat_interleave(self.lengths)

    @property
    def shown(self) -> Tensor:
        """bool (N,): whether any frame of each episode shows a solved task."""
        return self.owner[self.success].bincount(minlength=len(self.lengths)) > 0

    @property
    def told(self) -> Tensor:
        """bool (N,): whether the frames tell how each episode ended.

        They do not where its last action solved the task: what that led to was not recorded, nor is it imagined.
        """
        return self.shown | ~self.succeeded

    @classmethod
    def read(cls, episodes: Sequence[tuple[EpisodeStore, int]]) -> Labels:
        """The labels of episodes, each a store and a row of its table."""
        success = [torch.from_numpy(store.success(row)) for store, row in episodes]
        entries = [store.episodes.iloc[row] for store, row in episodes]
        return cls(
            torch.cat(success),
            torch.tensor([bool(entry["success"]) for entry in entries]),
            torch.tensor([len(shows) for shows in success]),
            tuple(entry["task"] for entry in entries),
        )

    def select(self, rows: Tensor) -> Labels:
        """Those of some of the episodes, bool (N,)."""
        tasks = tuple(task for task, kept in zip(self.tasks, rows.tolist(), strict=True) if kept)
        return Labels(self.success[rows[self.owner]], self.succeeded[rows], self.lengths[rows], tasks)


@dataclass(frozen=True)
class Footage:
    """Episodes as they were, or as the world model imagined them.

    Attributes:
        frames: uint8 (M, 3, H, W).
        labels: Of these M frames.
    """

    frames: Tensor
    labels: Labels


@dataclass(frozen=True)
class Judged:
    """What the classifier makes of footage.

    Attributes:
        chance: float32 (M,), the probability of success that it gives each frame.
        labels: Of these M frames.
    """

    chance: Tensor
    labels: Labels

    @property
    def highest(self) -> Tensor:
        """float32 (N,): the highest probability that any frame after an episode's first has; 0 where none follows."""
        labels = self.labels
        later = self.chance.clone()
        later[labels.lengths.cumsum(0) - labels.lengths] = 0.0
        return torch.zeros(len(labels.lengths)).scatter_reduce(0, labels.owner, later, "amax")

    def of(self, task: str) -> Judged:
        """The episodes of one task."""
        rows = torch.tensor([name == task for name in self.labels.tasks], dtype=torch.bool)
        return Judged(self.chance[rows[self.labels.owner]], self.labels.select(rows))


def train(params: Params, paths: Paths) -> None:
    """Trains the classifier, tunes its thresholds, and writes it with its metrics and learning curve.

    Raises:
        DataError: the world model or a store is missing or damaged, or the saved training state is.
    """
    settings = params.classifier
    device = select_device(params.device)
    stores = open_stores(paths, params.tasks)
    world = load_denoiser(paths.world_model, device)
    start_seed, noise_seed = stage_seeds(params.seed, f"{STAGE}/replays", 2)
    rng, noise = np.random.default_rng(start_seed), torch.Generator(device).manual_seed(noise_seed)
    real, generated = {}, {}
    for split, limit in (("train", settings.generated_episodes), ("validation", None), ("test", None)):
        # Expert test episodes are kept for the replay diagnostic; precision is asked of policy rollouts.
        chosen = [s for s in stores if split != "test" or "policy" in s.episodes["source"].values]
        real[split] = footage(chosen, split)
        generated[split] = replayed(chosen, split, world, noise, rng, limit)
    trainer = ClassifierTrainer(settings, real["train"], generated["train"], seed=params.seed, device=device)
    folder = paths.run_state(STAGE)
    seconds = run(
        trainer,
        settings.training_steps,
        label="train the success classifier",
        unit="step",
        folder=folder,
        every=settings.checkpoint_steps,
        fingerprint={
            "classifier": settings.model_dump(mode="json"),
            "seed": params.seed,
            "inputs": [digest_folder(paths.world_model), *(store.digest for store in stores)],
            "device": device.type,
        },
    )
    model = trainer.model.eval()
    model.thresholds = tune_thresholds(
        judge(model, real["validation"], device),
        judge(model, generated["validation"], device),
        params.tasks,
        settings.minimum_precision,
    )
    save_classifier(model, paths.classifier)
    tested, imagined = (judge(model, frames["test"], device) for frames in (real, generated))
    metrics: dict[str, Any] = {
        "seconds": round(seconds, 3),
        "backbone": settings.backbone,
        "pretrained": trainer.pretrained,
        "thresholds": model.thresholds,
        "steps": trainer.step,
        **detection(tested, model.thresholds),
        "generated": detection(imagined, model.thresholds),
        "tasks": {
            task: {
                **recognition(tested.of(task), model.thresholds),
                "generated": recognition(imagined.of(task), model.thresholds),
            }
            for task in params.tasks
        },
    }
    metrics["generated"].pop("reliability")
    write_text(paths.classifier_curve, curve_csv(("step", "loss"), trainer.curve))
    write_json(paths.classifier_metrics, metrics)
    clear_state(folder)
    progress.metrics(_headline(metrics))


def footage(stores: list[EpisodeStore], split: str) -> Footage:
    """The real episodes of a split, all of them whose frames are labelled, each with all its frames.

    Raises:
        DataError: the split has no such episodes.
    """
    rows = [(store, int(row)) for store in stores for row in np.flatnonzero(store.episodes["split"] == split)]
    episodes = [(store, row) for store, row in rows if store.labelled(row)]
    if not episodes:
        raise DataError(
            f"the success classifier needs {split} episodes with labelled frames, and there are none",
            where=", ".join(str(store.path) for store in stores) or None,
            remedy="raise rollouts.validation or rollouts.held_out in params.yaml, or land labelled rollouts",
        )
    frames = [torch.from_numpy(store.frames(row)).permute(0, 3, 1, 2) for store, row in episodes]
    return Footage(torch.cat(frames), Labels.read(episodes))


def replayed(
    stores: list[EpisodeStore],
    split: str,
    world: LoadedWorldModel,
    noise: torch.Generator,
    rng: np.random.Generator,
    limit: int | None,
) -> Footage:
    """The same episodes as the world model imagines them from their first frame and their own actions.

    An imagined episode has as many frames as the real one. Several are imagined side by side; what the model makes of
    the padding behind a shorter one's actions is thrown away.

    Args:
        stores: Where from.
        split: Which episodes.
        world: The frozen world model.
        noise: Draws the sampler's noise.
        rng: Chooses the episodes where there are more than `limit`.
        limit: Episodes a store at most.
    """
    denoiser, device = world.denoiser, noise.device
    frames: list[Tensor] = []
    shown: list[tuple[EpisodeStore, int]] = []
    for store in stores:
        episodes = np.flatnonzero(store.episodes["split"] == split)
        order = np.flatnonzero([store.labelled(int(row)) for row in episodes])
        if not len(order):
            continue
        starts = StartStates([store], history=denoiser.settings.history, tasks=world.tasks, splits=(split,))
        if limit is not None and len(order) > limit:
            order = np.sort(rng.choice(order, limit, replace=False))
        # Those of like length side by side, or much of what is imagined would be thrown away.
        order = order[np.argsort(store.episodes["length"].to_numpy()[episodes[order]], kind="stable")]
        for chunk in np.array_split(order, -(-len(order) // REPLAY_BATCH)):
            rows = [int(row) for row in episodes[chunk]]
            actions = [torch.from_numpy(store.actions(row)[:-1]) for row in rows]
            start = starts.take(np.stack((chunk, np.zeros_like(chunk)), axis=1)).to(device)
            imagined = replay(denoiser, start, pad_sequence(actions, batch_first=True).to(device), noise).cpu()
            frames.extend(own[: len(taken) + 1] for own, taken in zip(imagined, actions, strict=True))
            shown.extend((store, row) for row in rows)
    return Footage(torch.cat(frames), Labels.read(shown))


@dataclass
class ClassifierTrainer:
    """The classifier and one training step, on a mix of real and generated frames."""

    settings: Classifier
    real: Footage
    generated: Footage
    seed: int
    device: torch.device
    step: int = 0
    losses: list[float] = field(default_factory=list)  # since the curve's last row
    curve: list[tuple[int, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        weights, rows, shifts = stage_seeds(self.seed, STAGE, 3)
        torch.manual_seed(weights)
        self.rows = np.random.default_rng(rows)
        self.shifts = torch.Generator().manual_seed(shifts)
        self.model = SuccessClassifier(self.settings.backbone, self.real.frames.shape[-1])
        self.pretrained = load_imagenet(self.model) if self.settings.pretrained else "none (not asked for)"
        self.model.to(self.device).train()
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
            fused=True,
        )

    def advance(self) -> dict[str, float]:
        """One optimiser step."""
        s = self.settings
        for group in self.optimizer.param_groups:
            group["lr"] = s.learning_rate * cosine_factor(self.step, s.training_steps, WARMUP_STEPS)
        imagined = round(s.batch_size * s.generated_fraction)
        counts = (s.batch_size - imagined, imagined)
        drawn = [
            (pool.frames[rows], pool.labels.success[rows])
            for pool, count in zip((self.real, self.generated), counts, strict=True)
            for rows in [torch.from_numpy(self.rows.integers(0, len(pool.frames), count))]
        ]
        frames, success = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        shifted = random_shift(frames.unsqueeze(1), SHIFT_PIXELS, self.shifts).squeeze(1)
        with fast_autocast(self.device):
            log_odds = self.model(shifted.to(self.device))
        loss = classifier_loss(log_odds, success.to(self.device))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        self.losses.append(float(loss.detach()))
        every = max(1, s.training_steps // CURVE_POINTS)
        if self.step % every == 0 or self.step == s.training_steps:
            self.curve.append((self.step, float(np.mean(self.losses))))
            self.losses.clear()
        return {"loss": self.losses[-1] if self.losses else self.curve[-1][1]}

    def capture(self) -> tuple[Tensors, Any, Generators]:
        """What a later process needs to go on from here."""
        optimizer, groups = capture_optimizer(self.optimizer)
        tensors = {"model": self.model.state_dict(), "optimizer": optimizer}
        meta = {"groups": groups, "losses": self.losses, "curve": self.curve}
        return tensors, meta, {"rows": self.rows, "shifts": self.shifts}

    def restore(self, state: State) -> None:
        """Takes over what `capture` gave, the generators apart."""
        meta = state.meta["trainer"]
        self.model.load_state_dict(state.tensors["model"])
        restore_optimizer(self.optimizer, state.tensors["optimizer"], meta["groups"])
        self.losses = meta["losses"]
        self.curve = [(int(row[0]), row[1]) for row in meta["curve"]]


def judge(model: SuccessClassifier, footage: Footage, device: torch.device) -> Judged:
    """Asks the classifier about every frame."""
    return Judged(model.probability(footage.frames.to(device)).cpu(), footage.labels)


def tune_thresholds(
    real: Judged, generated: Judged, tasks: Sequence[str], minimum_precision: float
) -> dict[str, float]:
    """Every task's threshold, from its own validation episodes; see `tune_threshold`.

    A task with no success among them, which could not show when it is recognised, gets the threshold that suits the
    episodes of all tasks.
    """
    shared = tune_threshold(real, generated, minimum_precision)
    thresholds = {}
    for task in tasks:
        own = real.of(task), generated.of(task)
        if all(part.labels.success.any() for part in own):
            thresholds[task] = tune_threshold(*own, minimum_precision)
        else:
            progress.log(f"{task}: no validation episode shows a success; its threshold is that of all tasks, {shared}")
            thresholds[task] = shared
    return thresholds


def tune_threshold(real: Judged, generated: Judged, minimum_precision: float) -> float:
    """The threshold that refinement's reward will use, from validation episodes.

    Among the thresholds whose precision on real frames is at least the minimum, the one whose verdicts on whole
    generated episodes (a success in any frame) are right most often; a failure taken for a success weighs
    `FALSE_SUCCESS_WEIGHT` times as much as a missed success, because refinement seeks out what is wrongly rewarded.
    Which of those within a standard error of the best one comes first is chance, so it is their middle. Where none is
    precise enough, the most precise one. Episodes whose frames do not tell how they ended take no part in the verdicts:
    to see no success in them is neither right nor wrong.

    Args:
        real: Of real frames.
        generated: Of generated frames.
        minimum_precision: In [0, 1].
    """
    told = generated.labels.told
    highest, shown = generated.highest[told], generated.labels.shown[told]
    precisions = np.array([_precision(real.chance >= t, real.labels.success) for t in THRESHOLDS])
    verdicts, errors = np.array([_verdict_score(highest >= t, shown) for t in THRESHOLDS]).T
    allowed = precisions >= minimum_precision
    if not allowed.any():
        return THRESHOLDS[int(np.argmax(precisions))]
    best = int(np.argmax(np.where(allowed, verdicts, -np.inf)))
    near = np.flatnonzero(allowed & (verdicts >= verdicts[best] - errors[best]))
    return THRESHOLDS[int(near[len(near) // 2])]


def _precision(seen: Tensor, success: Tensor) -> float:
    """Share of right ones among those seen as successes; 1 where none is."""
    count = int(seen.sum())
    return 1.0 if count == 0 else float((seen & success).sum()) / count


def _verdict_score(verdict: Tensor, truth: Tensor) -> tuple[float, float]:
    """Weighted mean of the shares of successes and of failures that verdicts, bool (N,), get right, and its error.

    The standard error is that of shares with one more right and one more wrong verdict each, or a few verdicts that
    are all right would seem to be certain. (1, 0) where N is 0.
    """
    kinds = [(truth, 1.0), (~truth, FALSE_SUCCESS_WEIGHT)]
    counts = [(int((verdict == truth)[kind].sum()), int(kind.sum()), weight) for kind, weight in kinds if kind.any()]
    if not counts:
        return 1.0, 0.0
    score, variance = 0.0, 0.0
    for right, number, weight in counts:
        likely = (right + 1) / (number + 2)
        score += weight * right / number
        variance += weight**2 * likely * (1 - likely) / number
    total = sum(weight for *_, weight in counts)
    return score / total, variance**0.5 / total


def recognition(judged: Judged, thresholds: Mapping[str, float]) -> dict[str, float | None]:
    """Precision and recall on all frames, each judged by its own task's threshold; None where nothing defines them."""
    labels = judged.labels
    own = torch.tensor([thresholds[task] for task in labels.tasks])[labels.owner]
    seen, success = judged.chance >= own, labels.success
    hits, found, present = int((seen & success).sum()), int(seen.sum()), int(success.sum())
    return {"precision": hits / found if found else None, "recall": hits / present if present else None}


def detection(judged: Judged, thresholds: Mapping[str, float]) -> dict[str, Any]:
    """Precision and recall as `recognition` has them, and the calibration of the probabilities."""
    fit = calibration(judged.chance.double().numpy(), judged.labels.success.numpy())
    return {**recognition(judged, thresholds), "ece": fit.ece, "reliability": fit.bins_as_json()}


def _headline(metrics: dict[str, Any]) -> dict[str, Any]:
    """The figures that matter, flat."""
    figures = {name: value for name, value in metrics.items() if not isinstance(value, (dict, list))}
    figures |= {f"{name} on generated frames": metrics["generated"][name] for name in ("precision", "recall", "ece")}
    return figures | {f"threshold of {task}": value for task, value in metrics["thresholds"].items()}
