"""Training the success classifier: real and generated frames, the threshold, going on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from world4rl.config import Classifier, load_profile
from world4rl.demos.store import EpisodeStore
from world4rl.errors import DataError
from world4rl.evaluation.metrics import ClassifierMetrics, read_metrics
from world4rl.models.denoiser import Denoiser, Shapes
from world4rl.models.folder import LoadedWorldModel, load_classifier, save_denoiser
from world4rl.paths import Paths
from world4rl.runner import visible_params
from world4rl.stages import STAGES
from world4rl.training.classifier import (
    ClassifierTrainer,
    Footage,
    Judged,
    detection,
    footage,
    judge,
    recognition,
    replayed,
    train,
    tune_threshold,
    tune_thresholds,
)
from world4rl.training.loop import run

BUTTON, FAUCET = "button-press-topdown-v3", "faucet-open-v3"
SETTINGS = {
    "backbone": "small-cnn",
    "pretrained": False,
    "batch_size": 16,
    "training_steps": 60,
    "learning_rate": 1e-3,
    "checkpoint_steps": 20,
}


def noise(seed: int, episodes: int = 8, steps: int = 6, bright: int = 255) -> Footage:
    """Noise in which a bright square shows a success, in the second half of every other episode."""
    random = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 60, (episodes, steps, 3, 16, 16), dtype=torch.uint8, generator=random)
    success = torch.zeros(episodes, steps, dtype=torch.bool)
    success[::2, steps // 2 :] = True
    frames[..., 4:10, 4:10][success] = bright
    return Footage(frames, success, (BUTTON,) * episodes)


def trainer(**settings: object) -> ClassifierTrainer:
    values = Classifier.model_validate({**SETTINGS, **settings})
    return ClassifierTrainer(values, noise(0), noise(1, bright=150), seed=0, device=torch.device("cpu"))


def test_it_learns_to_see_successes_in_real_and_generated_frames():
    learner = trainer()
    for _ in range(60):
        learner.advance()
    model = learner.model.eval()
    for unseen in (noise(2), noise(3, bright=150)):
        judged = judge(model, unseen, torch.device("cpu"))
        assert judged.chance.shape == unseen.success.shape
        assert judged.chance[unseen.success].min() > judged.chance[~unseen.success].max()


def test_a_batch_mixes_the_two_as_asked(monkeypatch):
    for fraction, expected in ((0.0, 0), (0.25, 4), (0.5, 8)):
        learner = trainer(generated_fraction=fraction)
        seen = []
        forward = learner.model.forward
        monkeypatch.setattr(learner.model, "forward", lambda frames, f=forward, s=seen: s.append(frames) or f(frames))
        learner.generated.frames[:] = 250  # real frames are darker
        learner.advance()
        (frames,) = seen
        assert len(frames) == 16
        assert int((frames.flatten(1).float().mean(1) > 240).sum()) == expected


def test_goes_on_where_it_was_interrupted(tmp_path, monkeypatch):
    def go(learner: ClassifierTrainer, name: str) -> list[bytes]:
        run(learner, 60, label="train", unit="step", folder=tmp_path / name, every=20, fingerprint=0)
        return [value.numpy().tobytes() for value in learner.model.state_dict().values()]

    whole = trainer()
    expected = go(whole, "whole")
    broken = trainer()
    advance = broken.advance
    monkeypatch.setattr(broken, "advance", lambda: advance() if broken.step < 33 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        go(broken, "broken")
    later = trainer()
    assert go(later, "broken") == expected
    assert later.curve == whole.curve


def judged(chance: list[list[float]], success: list[list[int]], task: str = BUTTON) -> Judged:
    return Judged(torch.tensor(chance), torch.tensor(success, dtype=torch.bool), (task,) * len(chance))


def test_the_threshold_is_precise_on_real_frames_and_right_about_generated_episodes():
    real = judged([[0.0, 0.4, 0.95], [0.0, 0.5, 0.3]], [[0, 1, 1], [0, 0, 0]])
    generated = judged([[0.0, 0.2, 0.7], [0.0, 0.1, 0.2]], [[0, 0, 1], [0, 0, 0]])
    # Precision 0.9 needs more than 0.5; to see the generated success it may be at most 0.7: the middle of both.
    threshold = tune_threshold(real, generated, 0.9)
    assert 0.5 < threshold <= 0.7
    assert threshold == pytest.approx(0.6, abs=0.021)
    # With no demand on precision any threshold does that tells the generated episodes apart.
    free = tune_threshold(real, generated, 0.0)
    assert 0.2 < free <= 0.7
    assert free == pytest.approx(0.46, abs=0.021)


def test_precision_that_cannot_be_had_gives_the_most_precise_threshold():
    real = judged([[0.99, 0.99], [0.99, 0.2]], [[1, 0], [0, 0]])
    threshold = tune_threshold(real, real, 0.9)
    assert 0.2 < threshold < 0.99


def together(*parts: Judged) -> Judged:
    return Judged(
        torch.cat([part.chance for part in parts]),
        torch.cat([part.success for part in parts]),
        sum((part.tasks for part in parts), ()),
    )


def test_each_task_has_the_threshold_that_suits_its_own_episodes():
    """Successes of one task look like failures of the other: no threshold suits both."""
    sure = judged([[0.0, 0.4, 0.9], [0.0, 0.5, 0.4]], [[0, 0, 1], [0, 0, 0]], BUTTON)
    shy = judged([[0.0, 0.1, 0.4], [0.0, 0.1, 0.1]], [[0, 0, 1], [0, 0, 0]], FAUCET)
    both = together(sure, shy)
    thresholds = tune_thresholds(both, both, (BUTTON, FAUCET), 0.9)
    assert 0.5 < thresholds[BUTTON] <= 0.9
    assert 0.1 < thresholds[FAUCET] <= 0.4
    assert thresholds == {BUTTON: tune_threshold(sure, sure, 0.9), FAUCET: tune_threshold(shy, shy, 0.9)}
    assert tune_threshold(both, both, 0.9) > 0.5, "with one threshold the second task would never succeed"
    # The other task's episodes, in any order, change nothing.
    assert tune_thresholds(together(shy, sure), both, (FAUCET, BUTTON), 0.9) == thresholds


@pytest.mark.parametrize("others", ["fail", "are not there"])
def test_a_task_without_successes_has_the_threshold_of_all_tasks_and_says_so(monkeypatch, others):
    said: list[str] = []
    monkeypatch.setattr("world4rl.progress.log", said.append)
    sure = judged([[0.0, 0.4, 0.9], [0.0, 0.5, 0.4]], [[0, 0, 1], [0, 0, 0]], BUTTON)
    failed = judged([[0.0, 0.8, 0.6]], [[0, 0, 0]], FAUCET)
    both = together(sure, failed) if others == "fail" else sure
    thresholds = tune_thresholds(both, both, (BUTTON, FAUCET), 0.9)
    assert thresholds == {BUTTON: tune_threshold(sure, sure, 0.9), FAUCET: tune_threshold(both, both, 0.9)}
    (message,) = said
    assert FAUCET in message
    assert str(thresholds[FAUCET]) in message
    if others == "fail":
        assert thresholds[FAUCET] > 0.8 > thresholds[BUTTON]


def test_precision_and_recall_are_those_at_each_tasks_threshold():
    button = judged([[0.4, 0.6, 0.9]], [[0, 0, 1]], BUTTON)
    both = together(button, judged([[0.1, 0.3, 0.4]], [[0, 1, 1]], FAUCET))
    thresholds = {BUTTON: 0.5, FAUCET: 0.35}
    # 0.6, 0.9 and the second 0.4 are taken for successes, 0.6 wrongly; 0.3 is missed.
    assert recognition(both, thresholds) == {"precision": pytest.approx(2 / 3), "recall": pytest.approx(2 / 3)}
    assert recognition(both.of(BUTTON), thresholds) == {"precision": 0.5, "recall": 1.0}
    assert recognition(both.of(FAUCET), thresholds) == {"precision": 1.0, "recall": 0.5}
    assert recognition(button, {BUTTON: 0.95}) == {"precision": None, "recall": 0.0}
    assert recognition(both.of("soccer-v3"), thresholds) == {"precision": None, "recall": None}
    found, strict = detection(both, thresholds), detection(both, {BUTTON: 0.95, FAUCET: 0.95})
    assert found["recall"] != strict["recall"]
    assert found["ece"] == strict["ece"], "no threshold takes part in it"


def test_footage_is_the_splits_episodes_of_the_greatest_length(write_store, tmp_path):
    write_store(tmp_path / "store", splits=("train",) * 3, lengths=(8, 5, 8), success_from=(6, None, None))
    store = EpisodeStore.open(tmp_path / "store")
    real = footage([store], "train")
    assert real.frames.shape == (2, 8, 3, 16, 16)
    assert real.frames[:, 3, :2, 0, 0].tolist() == [[3, 0], [3, 2]]
    assert real.success.sum(1).tolist() == [2, 0]
    with pytest.raises(DataError, match=r"rollouts\.validation"):
        footage([store], "validation")


@pytest.fixture
def two_stores(write_store, tmp_path) -> list[EpisodeStore]:
    """Five training episodes a task; two of the first task show a success, from row 5 on, none of the second does."""
    for task, first in ((BUTTON, 5), (FAUCET, None)):
        write_store(
            tmp_path / task,
            task=task,
            splits=("test", *("train",) * 5),
            lengths=(8,) * 6,
            success_from=(None, None, first, None, first, None),
        )
    return [EpisodeStore.open(tmp_path / task) for task in (BUTTON, FAUCET)]


def test_the_stage_writes_every_tasks_threshold_and_figures(write_store, small_world_model, tmp_path, monkeypatch):
    paths = Paths(tmp_path)
    for task, first in ((BUTTON, 3), (FAUCET, None)):
        for number, source in enumerate(("expert", "policy", "random")):
            write_store(
                paths.store(task, source),
                task=task,
                source=source,
                splits=("train", "validation", "test", "test"),
                lengths=(8,) * 4,
                success_from=(first, first, first, None),
                seed=number,
            )
    save_denoiser(Denoiser(small_world_model(), Shapes(16, 2, 3, 2)), paths.world_model, (BUTTON, FAUCET))
    said: list[str] = []
    monkeypatch.setattr("world4rl.progress.log", said.append)
    values = load_profile("ci").model_copy(
        update={"tasks": (BUTTON, FAUCET), "classifier": Classifier.model_validate(SETTINGS), "device": "cpu"}
    )
    train(visible_params(values, STAGES["train-classifier"]), paths)

    found = read_metrics(paths.classifier_metrics, ClassifierMetrics, "train-classifier")
    assert load_classifier(paths.classifier).thresholds == found.thresholds
    assert set(found.thresholds) == set(found.tasks) == {BUTTON, FAUCET}
    assert [message for message in said if FAUCET in message and "no validation episode" in message]
    assert not [message for message in said if BUTTON in message]
    # One task alone has successes to be noticed.
    assert found.tasks[BUTTON].recall == found.recall
    assert found.tasks[BUTTON].generated.recall == found.generated.recall
    assert found.recall is not None
    assert found.tasks[FAUCET].recall is None
    assert found.tasks[FAUCET].precision in (0.0, None)


def test_footage_knows_each_episodes_task(write_store, tmp_path, two_stores):
    assert footage(two_stores, "train").tasks == (BUTTON,) * 5 + (FAUCET,) * 5
    # A task whose episodes are shorter than another's drops out, with its name.
    write_store(tmp_path / "long", task="soccer-v3", splits=("train",), lengths=(9,), success_from=(4,))
    assert footage([*two_stores, EpisodeStore.open(tmp_path / "long")], "train").tasks == ("soccer-v3",)


def test_replayed_footage_knows_each_episodes_task(two_stores, small_world_model, monkeypatch):
    monkeypatch.setattr("world4rl.training.classifier.REPLAY_BATCH", 2)  # several parts a store
    world = LoadedWorldModel(Denoiser(small_world_model(), Shapes(16, 2, 3, 2)).eval(), (BUTTON, FAUCET))
    made = replayed(two_stores, "train", world, torch.Generator().manual_seed(0), np.random.default_rng(0), 4)
    assert made.frames.shape == (8, 8, 3, 16, 16)
    assert made.tasks == (BUTTON,) * 4 + (FAUCET,) * 4
    assert made.success[:4].any()
    assert not made.success[4:].any()
