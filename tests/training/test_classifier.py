"""Training the success classifier: real and generated frames, the threshold, going on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from world4rl.config import Classifier, load_profile
from world4rl.demos.store import EpisodeStore
from world4rl.envs.imagination import StartStates, replay
from world4rl.errors import DataError
from world4rl.evaluation.metrics import ClassifierMetrics, read_metrics
from world4rl.models.denoiser import Context, Denoiser, Shapes
from world4rl.models.folder import LoadedWorldModel, load_classifier, save_denoiser
from world4rl.paths import Paths
from world4rl.runner import visible_params
from world4rl.stages import STAGES
from world4rl.training.classifier import (
    ClassifierTrainer,
    Footage,
    Judged,
    Labels,
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
    return Footage(frames.flatten(0, 1), labels(success.tolist()))


def labels(success: list[list[int]], task: str = BUTTON, solved_last: tuple[int, ...] = ()) -> Labels:
    """Of episodes whose frames show a success where there is a 1; the last actions of `solved_last` were one too."""
    flat = torch.tensor([shows for episode in success for shows in episode], dtype=torch.bool)
    succeeded = torch.tensor([any(episode) or number in solved_last for number, episode in enumerate(success)])
    return Labels(flat, succeeded, torch.tensor([len(episode) for episode in success]), (task,) * len(success))


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
        success = unseen.labels.success
        assert judged.chance.shape == success.shape
        assert judged.chance[success].min() > judged.chance[~success].max()


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


def judged(chance: list[list[float]], success: list[list[int]], task: str = BUTTON, **more: tuple[int, ...]) -> Judged:
    return Judged(torch.tensor([value for episode in chance for value in episode]), labels(success, task, **more))


def often(judged: Judged) -> Judged:
    """The same episodes a hundred times over: a difference between two thresholds is then hardly chance."""
    return together(*[judged] * 100)


def test_the_threshold_is_precise_on_real_frames_and_right_about_generated_episodes():
    real = judged([[0.0, 0.4, 0.95], [0.0, 0.5, 0.3]], [[0, 1, 1], [0, 0, 0]])
    generated = often(judged([[0.0, 0.2, 0.7], [0.0, 0.1, 0.2]], [[0, 0, 1], [0, 0, 0]]))
    # Precision 0.9 needs more than 0.5; to see the generated success it may be at most 0.7: the middle of both.
    threshold = tune_threshold(real, generated, 0.9)
    assert 0.5 < threshold <= 0.7
    assert threshold == pytest.approx(0.6, abs=0.021)
    # With no demand on precision any threshold does that tells the generated episodes apart.
    free = tune_threshold(real, generated, 0.0)
    assert 0.2 < free <= 0.7
    assert free == pytest.approx(0.46, abs=0.021)


def test_a_false_success_weighs_more_than_a_missed_one():
    """Every threshold errs: up to 0.3 two of eight failures pass, from there on one of three successes is missed."""
    peaks = [(0.9, 1), (0.9, 1), (0.3, 1), (0.3, 0), (0.3, 0), *[(0.1, 0)] * 6]
    episodes = often(judged([[0.0, peak] for peak, _ in peaks], [[0, outcome] for _, outcome in peaks]))
    assert 0.3 < tune_threshold(episodes, episodes, 0.0) <= 0.9


def test_what_may_be_chance_does_not_move_the_threshold():
    """One failure of 24 looks a little like a success: thresholds below it are no worse than those above."""
    peaks = [*[(0.8, 1)] * 24, *[(0.1, 0)] * 23, (0.7, 0)]
    episodes = judged([[0.0, peak] for peak, _ in peaks], [[0, outcome] for _, outcome in peaks])
    assert tune_threshold(episodes, episodes, 0.0) == pytest.approx(0.46, abs=0.021)
    assert 0.7 < tune_threshold(often(episodes), often(episodes), 0.0) <= 0.8, "in 2,400 episodes it is none"


def test_precision_that_cannot_be_had_gives_the_most_precise_threshold():
    real = judged([[0.99, 0.99], [0.99, 0.2]], [[1, 0], [0, 0]])
    threshold = tune_threshold(real, real, 0.9)
    assert 0.2 < threshold < 0.99


def together(*parts: Judged) -> Judged:
    return Judged(
        torch.cat([part.chance for part in parts]),
        Labels(
            torch.cat([part.labels.success for part in parts]),
            torch.cat([part.labels.succeeded for part in parts]),
            torch.cat([part.labels.lengths for part in parts]),
            sum((part.labels.tasks for part in parts), ()),
        ),
    )


def test_each_task_has_the_threshold_that_suits_its_own_episodes():
    """Successes of one task look like failures of the other: no threshold suits both."""
    sure = often(judged([[0.0, 0.4, 0.9], [0.0, 0.5, 0.4]], [[0, 0, 1], [0, 0, 0]], BUTTON))
    shy = often(judged([[0.0, 0.1, 0.4], [0.0, 0.1, 0.1]], [[0, 0, 1], [0, 0, 0]], FAUCET))
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
    sure = often(judged([[0.0, 0.4, 0.9], [0.0, 0.5, 0.4]], [[0, 0, 1], [0, 0, 0]], BUTTON))
    failed = often(judged([[0.0, 0.8, 0.6]], [[0, 0, 0]], FAUCET))
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


def test_no_verdict_counts_the_first_frame_or_another_episodes():
    """A replay's first frame is real; and a short episode's neighbour must not lend it its success."""
    made = judged([[0.9, 0.1], [0.9], [0.2, 0.3, 0.8], [0.7, 0.1]], [[0, 0], [0], [0, 0, 1], [0, 0]])
    assert made.highest.tolist() == pytest.approx([0.1, 0.0, 0.8, 0.1])
    assert made.labels.shown.tolist() == [False, False, True, False]
    # Any threshold between the failures' 0.1 and the success' 0.8 is right about all four: the middle of both.
    assert tune_threshold(judged([[0.0]], [[0]]), often(made), 0.0) == pytest.approx(0.46, abs=0.021)


def test_a_success_that_no_frame_shows_is_no_verdict_about_an_episode():
    """The last action solved the task: that nothing is seen before it is no miss, and to see it come is no error."""
    chance, success = [[0.0, 0.2, 0.7], [0.0, 0.1, 0.2], [0.0, 0.5, 0.6]], [[0, 0, 1], [0, 0, 0], [0, 0, 0]]
    plain = judged([[0.0]], [[0]])
    failed, solved = judged(chance, success), judged(chance, success, solved_last=(2,))
    assert failed.labels.told.tolist() == [True, True, True]
    assert solved.labels.told.tolist() == [True, True, False]
    assert tune_threshold(plain, often(failed), 0.0) > 0.6, "a failure must not be taken for a success"
    without = judged(chance[:2], success[:2])
    assert tune_threshold(plain, often(solved), 0.0) == tune_threshold(plain, often(without), 0.0) < 0.6
    # Its frames are no successes all the same.
    assert recognition(solved, {BUTTON: 0.5}) == {"precision": pytest.approx(1 / 3), "recall": 1.0}


def test_where_no_frame_tells_how_an_episode_ended_precision_alone_decides():
    real = judged([[0.0, 0.6, 0.9]], [[0, 0, 1]])
    assert tune_threshold(real, judged([[0.9, 0.9]], [[0, 0]], solved_last=(0,)), 0.9) == pytest.approx(0.8, abs=0.021)


def test_footage_knows_which_episodes_their_last_action_solved(write_store, tmp_path, small_world_model):
    write_store(tmp_path / "store", splits=("train",) * 3, lengths=(4, 3, 5), success_from=(4, None, 2))
    stores = [EpisodeStore.open(tmp_path / "store")]
    world = Denoiser(small_world_model(), Shapes(16, 2, 3, 2))
    for made in (footage(stores, "train"), replays(stores, world)):
        told = dict(zip(made.labels.lengths.tolist(), made.labels.told.tolist(), strict=True))
        assert told == {4: False, 3: True, 5: True}


@pytest.mark.parametrize(("labels", "lengths"), [("meta/world4rl.json", [3, 6]), ("none", [])])
def test_frames_that_nobody_labelled_teach_nothing(write_store, tmp_path, small_world_model, labels, lengths):
    """Where only an episode as a whole is known to be a success, some of its frames may show one."""
    write_store(
        tmp_path / "a", splits=("train",) * 4, lengths=(4, 3, 5, 6), success_from=(4, None, 5, None), labels=labels
    )
    write_store(tmp_path / "b", splits=("train",), lengths=(7,), success_from=(None,))
    stores, world = (
        [EpisodeStore.open(tmp_path / name) for name in "ab"],
        Denoiser(small_world_model(), Shapes(16, 2, 3, 2)),
    )
    for made in (footage(stores, "train"), replays(stores, world), replays(stores, world, limit=3)):
        assert made.labels.lengths.tolist() == [*lengths, 7]
    if not lengths:
        with pytest.raises(DataError, match="labelled frames"):
            footage(stores[:1], "train")


def test_figures_are_of_frames_not_of_episodes():
    """Three of four frames that are called a success are one, whatever the lengths of their episodes."""
    uneven = judged([[0.9, 0.9], [0.2], [0.1, 0.2, 0.9, 0.9]], [[0, 1], [0], [0, 0, 1, 1]])
    assert recognition(uneven, {BUTTON: 0.5}) == {"precision": 0.75, "recall": 1.0}
    found = detection(uneven, {BUTTON: 0.5})
    assert sum(row["count"] for row in found["reliability"]) == 7
    other = together(judged([[0.4]], [[0]], FAUCET), uneven)
    assert recognition(other.of(BUTTON), {BUTTON: 0.5}) == {"precision": 0.75, "recall": 1.0}
    assert recognition(other, {BUTTON: 0.5, FAUCET: 0.3}) == {"precision": 0.6, "recall": 1.0}


def test_footage_is_all_the_splits_episodes(write_store, tmp_path):
    splits, lengths = ("train", "train", "test", "train"), (8, 5, 6, 9)
    write_store(tmp_path / "store", splits=splits, lengths=lengths, success_from=(6, None, 1, 3))
    store = EpisodeStore.open(tmp_path / "store")
    real = footage([store], "train")
    places = [(row, episode) for episode in (0, 1, 3) for row in range(lengths[episode])]
    assert [tuple(place) for place in real.frames[:, :2, 0, 0].tolist()] == places
    assert real.labels.lengths.tolist() == [8, 5, 9]
    solved = {0: 6, 1: 99, 3: 3}
    assert real.labels.success.tolist() == [row >= solved[episode] for row, episode in places]
    assert real.labels.shown.tolist() == [True, False, True]
    with pytest.raises(DataError, match=r"rollouts\.validation"):
        footage([store], "validation")


def test_a_batch_is_drawn_from_the_frames_of_all_episodes_alike(monkeypatch):
    uneven = Footage(torch.arange(5).reshape(5, 1, 1, 1).expand(5, 3, 16, 16).byte(), labels([[0], [0, 0, 0, 1]]))
    values = Classifier.model_validate({**SETTINGS, "generated_fraction": 0.0})
    learner = ClassifierTrainer(values, uneven, noise(1), seed=0, device=torch.device("cpu"))
    drawn = []
    forward = learner.model.forward
    monkeypatch.setattr(
        learner.model, "forward", lambda frames: drawn.extend(frames[:, 0, 0, 0].tolist()) or forward(frames)
    )
    for _ in range(50):
        learner.advance()
    counts = np.bincount(drawn, minlength=5)
    assert len(counts) == 5
    assert counts.sum() == 800
    assert counts == pytest.approx(np.full(5, 160), abs=50)


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
                paths.store(task, source) / "collected",
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
    assert footage(two_stores, "train").labels.tasks == (BUTTON,) * 5 + (FAUCET,) * 5
    # A task whose episodes are shorter than another's stays.
    write_store(tmp_path / "long", task="soccer-v3", splits=("train",), lengths=(9,), success_from=(4,))
    more = footage([*two_stores, EpisodeStore.open(tmp_path / "long")], "train")
    assert more.labels.tasks == (BUTTON,) * 5 + (FAUCET,) * 5 + ("soccer-v3",)
    assert more.labels.lengths.tolist() == [8] * 10 + [9]


def replays(stores: list[EpisodeStore], denoiser: Denoiser, limit: int | None = None) -> Footage:
    world = LoadedWorldModel(denoiser.eval(), (BUTTON, FAUCET))
    return replayed(stores, "train", world, torch.Generator().manual_seed(0), np.random.default_rng(0), limit)


def test_replayed_footage_knows_each_episodes_task(two_stores, small_world_model, monkeypatch):
    monkeypatch.setattr("world4rl.training.classifier.REPLAY_BATCH", 2)  # several parts a store
    made = replays(two_stores, Denoiser(small_world_model(), Shapes(16, 2, 3, 2)), limit=4)
    assert made.frames.shape == (8 * 8, 3, 16, 16)
    assert made.labels.tasks == (BUTTON,) * 4 + (FAUCET,) * 4
    assert made.labels.shown[:4].any()
    assert not made.labels.success[4 * 8 :].any()


def test_episodes_of_one_length_are_imagined_as_one_batch(two_stores, small_world_model):
    denoiser = Denoiser(small_world_model(), Shapes(16, 2, 3, 2))
    torch.nn.init.normal_(denoiser.unet.conv_out.weight, std=0.1)  # an untrained model would imagine nothing
    made = replays(two_stores[:1], denoiser)
    starts = StartStates(two_stores[:1], history=2, tasks=(BUTTON, FAUCET)).starts()
    actions = torch.from_numpy(np.stack([two_stores[0].actions(episode)[:-1] for episode in range(1, 6)]))
    expected = replay(denoiser, starts, actions, torch.Generator().manual_seed(0))
    assert torch.equal(made.frames, expected.flatten(0, 1))
    assert len(expected.flatten(0, 1).unique(dim=0)) == 5 * 8


@pytest.mark.parametrize("batch", [64, 2])
def test_each_episode_is_replayed_with_its_own_actions_to_its_own_end(
    write_store, tmp_path, small_world_model, monkeypatch, batch
):
    """The world model stands in: it writes each action into the frame that follows it."""

    def written(denoiser: Denoiser, context: Context, noise: torch.Generator) -> tuple[torch.Tensor, None]:
        frame = ((context.frames[:, -1] + 1.0) * 127.5).round()
        frame[:, :2, 1, 1] = ((context.actions[:, -1] + 1.0) * 100.0).round()
        return frame.to(torch.uint8), None

    monkeypatch.setattr("world4rl.envs.imagination.sample", written)
    monkeypatch.setattr("world4rl.training.classifier.REPLAY_BATCH", batch)
    lengths, solved = (8, 3, 1, 6), (None, 2, None, 4)
    write_store(tmp_path / "store", splits=("train",) * 4, lengths=lengths, success_from=solved)
    store = EpisodeStore.open(tmp_path / "store")
    made = replays([store], Denoiser(small_world_model(), Shapes(16, 2, 3, 2)))
    assert sorted(made.labels.lengths.tolist()) == sorted(lengths)
    parts = zip(*(part.split(made.labels.lengths.tolist()) for part in (made.frames, made.labels.success)), strict=True)
    seen = set()
    for frames, success in parts:
        episode = int(frames[0, 1, 0, 0])
        seen.add(episode)
        taken = ((store.actions(episode)[:-1] + 1.0) * 100.0).round()
        assert frames[1:, :2, 1, 1].tolist() == taken.tolist()
        assert success.tolist() == store.success(episode).tolist()
    assert seen == {0, 1, 2, 3}


def test_the_stage_trains_on_episodes_of_any_length(write_store, small_world_model, tmp_path):
    paths = Paths(tmp_path)
    for number, source in enumerate(("expert", "policy", "random")):
        write_store(
            paths.store(BUTTON, source) / "collected",
            task=BUTTON,
            source=source,
            splits=("train", "train", "validation", "validation", "test", "test"),
            lengths=(8, 5, 7, 4, 9, 3),
            success_from=(5, None, None, 2, None, 1),
            seed=number,
        )
    save_denoiser(Denoiser(small_world_model(), Shapes(16, 2, 3, 1)), paths.world_model, (BUTTON,))
    values = load_profile("ci").model_copy(
        update={"tasks": (BUTTON,), "classifier": Classifier.model_validate(SETTINGS), "device": "cpu"}
    )
    train(visible_params(values, STAGES["train-classifier"]), paths)
    found = read_metrics(paths.classifier_metrics, ClassifierMetrics, "train-classifier")
    assert found.recall is not None, "the short test episode alone shows a success"
    assert sum(row.count for row in found.reliability) == 9 + 3
