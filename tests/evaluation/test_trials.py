from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from torch import Tensor

from world4rl.config import BehaviourCloning, Params, Simulation, WorldModel, parse_params
from world4rl.demos.seeds import episode_seeds
from world4rl.envs.episodes import Episode
from world4rl.envs.imagination import Moment
from world4rl.errors import DataError
from world4rl.evaluation import trials
from world4rl.evaluation.metrics import TaskEvaluation, read_metrics
from world4rl.evaluation.tables import check_trials, compare_trials, read_trials
from world4rl.evaluation.videos import choose, write_video
from world4rl.files import read_json
from world4rl.models.classifier import SuccessClassifier
from world4rl.models.denoiser import Context, Denoiser, Shapes
from world4rl.models.folder import save_classifier, save_denoiser
from world4rl.models.policy import GaussianPolicy
from world4rl.paths import Paths
from world4rl.policies.folder import save_policy

TASK = "handle-press-v3"
BRIGHT, GREY = 160, 20  # level of a success, levels that an action of 1 adds
SIZE = 48


def architecture() -> WorldModel:
    return WorldModel(
        fold=12, channels=(8,), attention_levels=(False,), blocks_per_level=1, mid_attention=False, norm_groups=4
    )


def settings() -> Params:
    values = {
        "tasks": [TASK],
        "task_parameters": {TASK: {}},
        "simulation": {"image_size": SIZE, "episode_steps": 30, "action_repeat": 3, "workers": 2},
        "refinement": {"horizon": 30},
        "evaluation": {"trials": 2, "imagined_trials": 1, "videos": 1},
        "device": "cpu",
    }
    return parse_params(values, where="test")


@pytest.fixture
def run(tmp_path: Path) -> Paths:
    """Untrained models of everything that the stage reads; the two policies differ."""
    paths = Paths(tmp_path)
    torch.manual_seed(0)
    save_denoiser(Denoiser(architecture(), Shapes(SIZE, 4, 4, 2)), paths.world_model, ("button-press-v3", TASK))
    classifier = SuccessClassifier("small-cnn", SIZE)
    classifier.thresholds = {"button-press-v3": 0.9, TASK: 0.4}
    save_classifier(classifier, paths.classifier)
    for folder in (paths.bc(TASK), paths.refined(TASK)):
        save_policy(
            GaussianPolicy(BehaviourCloning(width=8), image_size=(SIZE, SIZE), action_size=4, camera="corner2"), folder
        )
    return paths


def test_both_policies_are_tried_in_the_simulator(run: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refined policy is made to do what the scripted expert does, BC to stand still."""
    made = iter((lambda f, s, expert, e, t: 0 * expert, lambda f, s, expert, e, t: expert))
    monkeypatch.setattr(trials, "policy_controller", lambda policy: next(made))
    tried: dict[str, list[Episode]] = {}
    real = trials.try_out
    monkeypatch.setattr(trials, "try_out", lambda *arguments: tried.update(real(*arguments)) or tried)
    judged_by: list[float] = []
    imagine = trials.imagine
    monkeypatch.setattr(trials, "imagine", lambda *arguments: judged_by.append(arguments[2]) or imagine(*arguments))
    trials.evaluate(settings(), run, TASK)

    seeds = episode_seeds(0, TASK, "evaluation", "test", 2)
    assert [[e.seed for e in tried[name]] for name in ("bc", "refined")] == [seeds, seeds]
    for bc, refined in zip(tried["bc"], tried["refined"], strict=True):
        assert (bc.frames[0] == refined.frames[0]).all()  # the very same start
        assert len(bc.frames) == 30
        assert not bc.success
        assert refined.success
        assert len(refined.frames) == refined.steps_to_success < 30
        assert refined.successes.sum() == 1
        assert (refined.outcome != refined.frames[-1]).any()  # what the last action led to is kept

    table = read_trials(run.evaluation(TASK) / "trials.csv")
    assert table["policy"].tolist() == ["bc", "bc", "refined", "refined"]
    assert table["success"].tolist() == [0, 0, 1, 1]
    assert table["steps"].tolist()[2:] == [e.steps_to_success for e in tried["refined"]]
    found = read_metrics(run.evaluation_metrics(TASK), TaskEvaluation, "evaluate")
    assert (found.bc.successes, found.bc.trials, found.bc.steps_mean) == (0, 2, None)
    assert (found.refined.successes, found.refined.steps_mean) == (2, pytest.approx(table["steps"].mean()))
    assert (found.gain_points, found.gained, found.lost) == (100, 2, 0)
    assert found.p_value == compare_trials(table, 0.95).p_value
    assert read_json(run.evaluation_metrics(TASK))["imagined"]["trials"] == 1
    assert judged_by == [0.4, 0.4]  # the task's own threshold, for both policies

    videos = sorted(run.evaluation(TASK).glob("*.mp4"))
    assert [v.name for v in videos] == [f"bc_failure_{seeds[0]}.mp4", f"refined_success_{seeds[0]}.mp4"]
    film = imageio.imread(videos[1], plugin="FFMPEG")
    first, last = tried["refined"][0].frames[0], tried["refined"][0].outcome
    assert film.shape[1:] == (192, 192, 3)
    for shown, meant in ((film[0], first), (film[-1], last)):
        large = meant.repeat(4, axis=0).repeat(4, axis=1)
        assert np.abs(shown.astype(int) - large).mean() < 12
        assert np.abs(shown[:, ::-1].astype(int) - large).mean() > 20  # not mirrored, and the bound is no accident


def test_an_unknown_task_and_a_missing_policy_are_clear_errors(run: Paths) -> None:
    with pytest.raises(DataError, match="not trained on reach-v3, only on button-press-v3, handle-press-v3"):
        trials.evaluate(settings(), run, "reach-v3")
    weights = run.refined(TASK) / "model.safetensors"
    weights.unlink()
    with pytest.raises(DataError) as caught:
        trials.evaluate(settings(), run, TASK)
    assert str(weights) in str(caught.value)
    assert not run.evaluation(TASK).exists()


def episode(seed: int, successes: Sequence[bool]) -> Episode:
    length = len(successes)
    frames = np.full((length, 4, 4, 3), seed, np.uint8)
    states = np.full((length, 4), seed, np.float32)
    return Episode(
        seed, frames, states, np.zeros((length, 4), np.float32), np.zeros(length, np.float32), np.array(successes)
    )


def test_each_policy_acts_in_its_own_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    def remember(name: int) -> Callable[..., np.ndarray]:
        def act(
            frames: np.ndarray, states: np.ndarray, expert: np.ndarray, episodes: np.ndarray, steps: np.ndarray
        ) -> np.ndarray:
            calls.append((name, episodes.tolist(), steps.tolist(), frames[:, 0, 0, 0].tolist()))
            return np.full_like(expert, name)

        return act

    def simulate(
        task: str, simulation: Simulation, seeds: Sequence[int], controller: Any, *, stop_at_success: bool
    ) -> Iterator[Episode]:
        assert (task, stop_at_success) == (TASK, True)
        assert seeds == [10, 10, 11, 11, 12, 12]
        running = np.array([1, 2, 5])  # all three at once: the first and last of the refined policy, the second of BC
        frames = np.zeros((3, 2, 2, 3), np.uint8) + running.astype(np.uint8).reshape(3, 1, 1, 1)
        acted.append(controller(frames, np.zeros((3, 4)), np.zeros((3, 4), np.float32), running, np.array([7, 8, 9])))
        for number, seed in enumerate(seeds):
            yield episode(seed, [False, number % 4 in (0, 3)])

    calls: list[Any] = []
    acted: list[np.ndarray] = []
    monkeypatch.setattr(trials, "policy_controller", remember)
    monkeypatch.setattr(trials, "roll_out", simulate)
    tried = trials.try_out(TASK, settings().simulation, [10, 11, 12], {"bc": 1, "refined": 2})
    assert calls == [(1, [1], [8], [2]), (2, [0, 2], [7, 9], [1, 5])]
    assert acted[0][:, 0].tolist() == [2, 1, 2]
    assert {name: [(e.seed, e.success) for e in episodes] for name, episodes in tried.items()} == {
        "bc": [(10, True), (11, False), (12, True)],
        "refined": [(10, False), (11, True), (12, False)],
    }


def test_the_table_and_the_summary_of_trials() -> None:
    tried = {"bc": [episode(5, [False, True]), episode(6, [False] * 3)], "refined": [episode(5, [True])] * 1}
    tried["refined"].append(episode(6, [False, False, False, True]))
    table = check_trials(trials.trial_table(tried), Path("trials.csv"))
    assert table.to_csv(index=False) == "policy,seed,success,steps\nbc,5,1,2\nbc,6,0,\nrefined,5,1,1\nrefined,6,1,4\n"
    assert trials.summary(tried["bc"]) == {"successes": 1, "trials": 2, "steps_mean": 2.0}
    assert trials.summary(tried["refined"])["steps_mean"] == 2.5
    assert trials.summary([episode(1, [False])])["steps_mean"] is None
    failed = trials.trial_table({"bc": [episode(5, [False])], "refined": [episode(5, [False])]})
    assert check_trials(failed, Path("trials.csv"))["steps"].isna().all()


def test_imagination_starts_as_training_saw_episodes_start() -> None:
    moment = trials.first_moment([episode(3, [False] * 5), episode(9, [False] * 2)], 4, 1)
    assert moment.frames.shape == (2, 4, 3, 4, 4)
    assert moment.frames.dtype == torch.uint8
    assert (moment.frames[0] == 3).all()
    assert (moment.frames[1] == 9).all()
    assert moment.actions.shape == (2, 3, 4)
    assert not moment.actions.any()
    assert moment.states[:, :, 0].tolist() == [[3.0] * 4, [9.0] * 4]
    assert moment.task.tolist() == [1, 1]


class Grey:
    """A world whose brightness grows by GREY times the action; counts the frames that were imagined."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.imagined: list[int] = []
        self.seen: list[tuple[int, int]] = []
        monkeypatch.setattr("world4rl.envs.imagination.sample", self.sample)
        monkeypatch.setattr(SuccessClassifier, "probability", lambda _, frames: frames.float().mean((1, 2, 3)) / 255)

    def sample(self, denoiser: Denoiser, context: Context, noise: torch.Generator) -> tuple[Tensor, None]:
        self.imagined.append(len(context.frames))
        now = (context.frames[:, -1] + 1.0) * 127.5
        return (now + GREY * context.actions[:, -1, 0].reshape(-1, 1, 1, 1)).round().to(torch.uint8), None

    def run(
        self, levels: list[int], horizon: int, policy: Callable[[Tensor, Tensor], Tensor], bright: float = BRIGHT
    ) -> list[bool]:
        frames = torch.tensor(levels, dtype=torch.uint8).reshape(-1, 1, 1, 1, 1).expand(-1, 4, 3, SIZE, SIZE)
        count = len(levels)
        task = torch.zeros(count).long()
        start = Moment(frames, torch.zeros(count, 3, 4), torch.zeros(count, 4, 4), task, frames[:, 0])
        model = Denoiser(architecture(), Shapes(SIZE, 4, 4, 1))

        class Policy:
            frames = 2

            def __call__(self, pixels: Tensor, states: Tensor) -> SimpleNamespace:
                assert pixels.shape == (len(states), 2, 3, SIZE, SIZE)
                assert pixels.max() <= 1
                return SimpleNamespace(mean=policy(pixels, states))

        classifier = SuccessClassifier("small-cnn", SIZE)
        noise = torch.Generator().manual_seed(0)
        found = trials.imagine(model, classifier, (bright - 0.5) / 255, Policy(), start, horizon, noise)
        assert found.dtype == bool
        return found.tolist()


def test_imagined_success_counts_any_step_but_the_real_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def up(pixels: Tensor, states: Tensor) -> Tensor:
        return torch.full((len(pixels), 4), 0.5)

    grey = Grey(monkeypatch)
    # 100 needs six steps, 150 one, 130 three; those that are done leave the batch, and nothing is imagined for nobody.
    assert grey.run([100, 150, 130], 6, up) == [True, True, True]
    assert grey.imagined == [3, 2, 2, 1, 1, 1]
    assert grey.run([100, 150, 130], 5, up) == [False, True, True]
    grey.imagined.clear()
    assert grey.run([150, 155], 30, up) == [True, True]
    assert grey.imagined == [2]
    # The threshold is the task's own: a stricter one asks for more steps.
    assert grey.run([150, 155], 3, up, bright=185) == [False, True]
    # A start that is bright already is no success: 165 goes dark at once.
    assert grey.run([165], 3, lambda pixels, states: torch.full((1, 4), -1.0)) == [False]


def test_imagined_actions_are_the_policys_own_for_each_episode(monkeypatch: pytest.MonkeyPatch) -> None:
    def act(pixels: Tensor, states: Tensor) -> Tensor:
        """Up by at most one (the mean says three) where the picture is dark; down where it is light."""
        light = pixels[:, -1].mean((1, 2, 3)) > 120 / 255
        return torch.where(light, -3.0, 3.0).unsqueeze(1).expand(-1, 4)

    grey = Grey(monkeypatch)
    assert grey.run([110, 30, 150], 4, act) == [False, False, False]
    monkeypatch.setattr(trials, "BATCH", 2)  # the same in several parts
    up = torch.ones(1, 4)
    assert grey.run([110, 150, 30], 3, lambda pixels, states: up.expand(len(pixels), 4)) == [True, True, False]


@pytest.mark.parametrize(
    ("outcomes", "count", "expected"),
    [
        ("0101", 2, [0, 1]),
        ("1100", 3, [0, 1, 2]),
        ("1110", 4, [0, 1, 2, 3]),
        ("111", 2, [0, 1]),
        ("000", 2, [0, 1]),
        ("0001", 1, [3]),
        ("00", 1, [0]),
        ("01", 0, []),
        ("01", 9, [0, 1]),
    ],
)
def test_videos_show_successes_and_failures(outcomes: str, count: int, expected: list[int]) -> None:
    assert choose([each == "1" for each in outcomes], count) == expected


def test_a_video_plays_everywhere_and_is_the_same_every_time(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = np.kron(rng.integers(0, 255, (9, 9, 15, 3)), np.ones((1, 7, 5, 1))).astype(np.uint8)  # 63 x 75
    files = [tmp_path / "one.mp4", tmp_path / "two.mp4"]
    for file in files:
        write_video(file, frames, 80 / 3)
    assert files[0].read_bytes() == files[1].read_bytes()
    about = imageio.immeta(files[0], plugin="FFMPEG")
    assert (about["codec"], about["pix_fmt"].split("(")[0], about["fps"]) == ("h264", "yuv420p", pytest.approx(26.67))
    film = imageio.imread(files[0], plugin="FFMPEG")
    assert film.shape == (9 + 13, 190, 226, 3)  # three times as large, made even, the end held for half a second
    assert np.abs(film[4, :189, :225].astype(int) - frames[4].repeat(3, 0).repeat(3, 1)).mean() < 12
