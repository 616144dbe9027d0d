"""The world is a grey picture: an action changes its brightness, and bright enough is a success."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from world4rl.config import Params, Store, WorldModel, parse_params
from world4rl.demos.store import EpisodeStore, StoredEpisode, StoreWriter
from world4rl.errors import DataError
from world4rl.evaluation import fidelity
from world4rl.evaluation.held_out import HeldOut, exchange
from world4rl.evaluation.metrics import Fidelity, read_metrics
from world4rl.evaluation.strips import GAP, PIXELS, columns
from world4rl.files import read_json, replacing
from world4rl.models.classifier import SuccessClassifier
from world4rl.models.denoiser import Context, Denoiser, Shapes
from world4rl.models.folder import save_classifier, save_denoiser
from world4rl.paths import Paths
from world4rl.provenance.digests import digest_folder

BUTTON, HANDLE = "button-press-topdown-v3", "handle-press-v3"
SIZE, BRIGHT, GREY = 16, 160, 20  # pixels, level of a success, levels an action of 1 adds
HORIZONS = (2, 4)

# First level and the first number of every action; the second number is never zero, unlike padding.
EXPERT = [(100, [1.0] * 8), (80, [0.5] * 7 + [1.0]), (100, [0.0] * 3 + [1.0] * 3)]
POLICY = [
    (100, [0.7] * 8),
    (100, [0.5] * 6),  # bright only after its last action, in a frame that no store holds
    (100, [-0.5] * 8),
    (200, [-1.0, -1.0, -1.0, -0.5, 0.1, 0.1]),  # bright only before it acts, and just after
    (165, [-0.5, -0.5, -0.5]),  # bright before it acts; too short for the longest horizon
]


def levels(first: int, moves: list[float]) -> np.ndarray:
    return first + np.concatenate(([0], np.cumsum(np.round(np.array(moves) * GREY)))).astype(np.int64)


def succeeds(first: int, moves: list[float]) -> bool:
    return bool((levels(first, moves)[1:] >= BRIGHT).any())


def write_store(root: Path, task: str, source: str, episodes: list[tuple[int, list[float]]]) -> None:
    with replacing(root) as fresh:
        writer = StoreWriter(
            fresh, cameras=["c"], image_size=(SIZE, SIZE), action_size=2, state_size=2, settings=Store()
        )
        # Episode 1 was quarantined, so that a row's number is not its episode's.
        rows = [(0, "train", (10, [0.3] * 6)), *((2 + n, "test", entry) for n, entry in enumerate(episodes))]
        for episode, split, (first, moves) in rows:
            shown = levels(first, moves)[:-1]
            length = len(moves)
            frames = np.broadcast_to(shown.astype(np.uint8)[:, None, None, None], (length, SIZE, SIZE, 3)).copy()
            writer.add(
                StoredEpisode(
                    frames={"c": frames},
                    actions=np.stack((np.array(moves), np.full(length, 0.5)), axis=1).astype(np.float32),
                    states=np.zeros((length, 2), np.float32),
                    success=(shown >= BRIGHT) & (np.arange(length) > 0),
                    task=task,
                    source=source,
                    split=split,
                    succeeded=succeeds(first, moves),
                    seed=1000 + episode,
                    episode=episode,
                ),
                "made up",
            )
        sizes = {"cameras": ["c"], "image_size": [SIZE, SIZE], "action_size": 2, "state_size": 2}
        writer.finish({**sizes, "fps": 40.0, "quarantined": []})


def settings(**changes: Any) -> Params:
    values: dict[str, Any] = {
        "tasks": [BUTTON, HANDLE],
        "task_parameters": {BUTTON: {}, HANDLE: {}},
        "evaluation": {"open_loop_horizons": HORIZONS},
        "device": "cpu",
    }
    return parse_params(values | changes, where="test")


@pytest.fixture
def run(tmp_path: Path) -> Paths:
    """Stores of two tasks, an untrained world model and an untrained classifier."""
    paths = Paths(tmp_path)
    for task in (BUTTON, HANDLE):
        write_store(paths.store(task, "expert") / "collected", task, "expert", EXPERT)
        write_store(paths.store(task, "policy") / "collected", task, "policy", POLICY)
    torch.manual_seed(0)
    architecture = WorldModel(
        fold=4, channels=(8,), attention_levels=(False,), blocks_per_level=1, mid_attention=False, norm_groups=4
    )
    model = Denoiser(architecture, Shapes(SIZE, 2, 2, 2))
    torch.nn.init.normal_(model.unet.conv_out.weight, std=0.1)
    save_denoiser(model, paths.world_model, (BUTTON, HANDLE))
    write_classifier(paths, BRIGHT)
    return paths


def write_classifier(paths: Paths, handle: int) -> None:
    """An untrained classifier; the level of a success is `handle` for one task and BRIGHT for the other."""
    torch.manual_seed(0)
    classifier = SuccessClassifier("small-cnn", SIZE)
    classifier.thresholds = {HANDLE: (handle - 0.5) / 255, BUTTON: (BRIGHT - 0.5) / 255}
    save_classifier(classifier, paths.classifier)


Sampler = Callable[[Denoiser, Context, torch.Generator], tuple[Tensor, None]]


def true_world(denoiser: Denoiser, context: Context, noise: torch.Generator) -> tuple[Tensor, None]:
    now = (context.frames[:, -1] + 1.0) * 127.5
    action = context.actions[:, -1]
    following = now + (GREY * action[:, 0]).round().reshape(-1, 1, 1, 1)
    padding = (action == 0).all(1).reshape(-1, 1, 1, 1)  # nobody may look at what follows an episode's end
    return torch.where(padding, 255.0, following).round().to(torch.uint8), None


def still_world(denoiser: Denoiser, context: Context, noise: torch.Generator) -> tuple[Tensor, None]:
    return ((context.frames[:, -1] + 1.0) * 127.5).round().to(torch.uint8), None


@pytest.fixture
def imagines(monkeypatch: pytest.MonkeyPatch) -> Callable[[Sampler], None]:
    """Replaces what the networks compute."""

    def use(sampler: Sampler) -> None:
        monkeypatch.setattr("world4rl.envs.imagination.sample", sampler)
        monkeypatch.setattr(SuccessClassifier, "probability", lambda self, frames: frames.float().mean((1, 2, 3)) / 255)

    return use


def copy_last(horizon: int) -> float:
    entries = [entry for entry in EXPERT + POLICY if len(entry[1]) > horizon]
    return float(np.mean([((levels(*e)[horizon] - e[0]) / 255) ** 2 for e in entries]))


def test_a_perfect_world_model_makes_no_error(run: Paths, imagines: Callable[[Sampler], None]) -> None:
    imagines(true_world)
    fidelity.evaluate(settings(), run)
    found = read_metrics(run.fidelity_metrics, Fidelity, "evaluate-world-model")
    assert found.one_step_mse == 0
    assert found.open_loop_mse == {"2": 0, "4": 0}
    assert found.copy_last_mse == {str(h): pytest.approx(copy_last(h)) for h in HORIZONS}
    assert found.action_controllability > 1000
    values = read_json(run.fidelity_metrics)
    assert found.random_action_ratio > 1000
    assert values["one_step_copy_last_mse"] > 0
    assert values["one_step_windows"] == 2 * sum(len(moves) - 1 for _, moves in EXPERT + POLICY)
    won = sum(succeeds(*entry) for entry in POLICY)
    assert won == 3  # the two that end bright, and the one that is bright after its first action
    for part, tasks in ((values, 2), (values["tasks"][BUTTON], 1)):
        for kind, episodes in (
            ("expert_success", tasks * sum(succeeds(*entry) for entry in EXPERT)),
            ("policy_success", tasks * won),
            ("policy_failure", tasks * (len(POLICY) - won)),
        ):
            assert part["replay"][f"{kind}_recall"] == 1
            assert part["replay"]["counts"][kind] == {"foretold": episodes, "episodes": episodes}


def test_a_world_model_that_ignores_actions_is_found_out(run: Paths, imagines: Callable[[Sampler], None]) -> None:
    imagines(still_world)
    fidelity.evaluate(settings(), run)
    found = read_metrics(run.fidelity_metrics, Fidelity, "evaluate-world-model")
    assert found.action_controllability == 1
    assert found.random_action_ratio == 1
    assert found.open_loop_mse == found.copy_last_mse
    assert found.one_step_mse == pytest.approx(read_json(run.fidelity_metrics)["one_step_copy_last_mse"])
    assert found.replay.expert_success_recall == 0
    # Only what starts bright stays bright: one of three successes, and one of two failures is taken for a success.
    assert found.replay.policy_success_recall == pytest.approx(1 / 3)
    assert found.replay.policy_failure_recall == pytest.approx(1 / 2)


def test_the_table_has_every_held_out_episode(run: Paths, imagines: Callable[[Sampler], None]) -> None:
    imagines(true_world)
    fidelity.evaluate(settings(), run)
    table = pd.read_csv(run.fidelity / "episodes.csv")
    assert len(table) == 2 * (len(EXPERT) + len(POLICY))
    own = table[(table["task"] == HANDLE) & (table["source"] == "policy")]
    assert own["episode"].tolist() == [2, 3, 4, 5, 6]
    assert own["seed"].tolist() == [1002, 1003, 1004, 1005, 1006]
    assert own["real_success"].tolist() == [int(succeeds(*entry)) for entry in POLICY]
    assert own["imagined_success"].tolist() == own["real_success"].tolist()
    assert own["copy_last_mse_4"].isna().tolist() == [False, False, False, False, True]
    assert own["copy_last_mse_2"].iloc[4] == pytest.approx((20 / 255) ** 2, rel=1e-5)


def test_what_each_episode_said_is_kept_by_its_digest(run: Paths, imagines: Callable[[Sampler], None]) -> None:
    imagines(still_world)
    fidelity.evaluate(settings(), run)
    kept = read_json(run.generation(digest_folder(run.world_model)))["episodes"]
    table = pd.read_csv(run.fidelity / "episodes.csv")
    stores = [EpisodeStore.open(run.store(t, s) / "collected") for t in (BUTTON, HANDLE) for s in ("expert", "policy")]
    digests = [d for store in stores for d in store.episodes.query("split == 'test'")["digest"]]
    assert len(kept) == len(table)
    assert set(kept) == set(digests)
    for digest, row in zip(digests, table.to_dict("records"), strict=True):
        entry = kept[digest]
        assert (entry["task"], entry["source"], entry["success"]) == (
            row["task"],
            row["source"],
            bool(row["real_success"]),
        )
        assert entry["foretold"] == (row["real_success"] == row["imagined_success"])
        for horizon, error in entry["open_loop_mse"].items():
            known = row[f"open_loop_mse_{horizon}"]
            assert error is None if np.isnan(known) else error == pytest.approx(known)


def test_each_episode_is_judged_by_its_own_tasks_threshold(run: Paths, imagines: Callable[[Sampler], None]) -> None:
    imagines(true_world)
    write_classifier(run, 185)
    fidelity.evaluate(settings(), run)
    table = pd.read_csv(run.fidelity / "episodes.csv")
    for task, bright in ((BUTTON, BRIGHT), (HANDLE, 185)):
        expected = [int((levels(*entry)[1:] >= bright).any()) for entry in EXPERT + POLICY]
        assert table[table["task"] == task]["imagined_success"].tolist() == expected
    by_task = read_json(run.fidelity_metrics)["tasks"]
    assert by_task[BUTTON]["replay"]["policy_success_recall"] == 1
    assert by_task[HANDLE]["replay"]["policy_success_recall"] < 1


def test_strips_show_the_real_row_above_the_imagined_one(run: Paths, imagines: Callable[[Sampler], None]) -> None:
    imagines(still_world)
    fidelity.evaluate(settings(), run)
    strips = read_metrics(run.fidelity_metrics, Fidelity, "evaluate-world-model").strips
    assert [(s.task, s.policy, s.outcome, s.imagined_outcome) for s in strips] == [
        (task, policy, outcome, "failure")
        for task in (BUTTON, HANDLE)
        for policy, outcome in (("bc", "success"), ("bc", "failure"), ("expert", "success"))
    ]
    assert {file.name for file in run.fidelity.glob("*.png")} == {Path(strip.path).name for strip in strips}
    first, moves = POLICY[0]
    picture = imageio.imread(run.root / strips[0].path)
    shown = columns(len(moves))
    assert picture.shape == (2 * PIXELS + GAP, len(shown) * (PIXELS + GAP) - GAP, 3)
    for number, row in enumerate(shown):
        left = number * (PIXELS + GAP)
        assert (picture[:PIXELS, left : left + PIXELS] == levels(first, moves)[row]).all()
        assert (picture[PIXELS + GAP :, left : left + PIXELS] == first).all()


def test_the_networks_themselves_twice_give_the_same_bytes(run: Paths) -> None:
    kept = []
    for _ in range(2):
        fidelity.evaluate(settings(), run)
        metrics = read_json(run.fidelity_metrics)
        assert metrics.pop("seconds") > 0
        kept.append((metrics, {file.name: file.read_bytes() for file in run.fidelity.iterdir()}))
    assert kept[0] == kept[1]
    assert kept[0][0]["one_step_mse"] > 0
    assert 0.5 < kept[0][0]["action_controllability"] < 2
    fidelity.evaluate(settings(seed=1), run)
    assert read_json(run.fidelity_metrics)["one_step_mse"] != kept[0][0]["one_step_mse"]


def test_each_episode_gets_another_ones_actions() -> None:
    tasks = ["a", "b", "a", "a", "c", "b", "a"]
    seen = set()
    for seed in range(20):
        partners = exchange(tasks, np.random.default_rng(seed))
        assert partners[4] == -1
        others = [i for i in range(7) if i != 4]
        assert sorted(partners[others]) == others
        assert all(partners[i] != i and tasks[partners[i]] == tasks[i] for i in others)
        seen.add(tuple(partners))
    assert len(seen) > 1
    assert (exchange(tasks, np.random.default_rng(3)) == exchange(tasks, np.random.default_rng(3))).all()


def test_too_few_or_too_short_episodes_are_one_clear_error(run: Paths) -> None:
    with pytest.raises(DataError, match="no task has two held-out episodes, one of them longer than 20") as caught:
        fidelity.evaluate(settings(evaluation={"open_loop_horizons": (2, 20)}), run)
    assert "rollouts.held_out" in str(caught.value)
    for task in (BUTTON, HANDLE):
        for source in ("expert", "policy"):
            write_store(run.store(task, source) / "collected", task, source, [])
    with pytest.raises(DataError, match="no episode is held out"):
        fidelity.evaluate(settings(), run)
    assert not run.fidelity.exists()
    assert not run.fidelity_metrics.exists()


def test_a_task_that_the_world_model_does_not_know(run: Paths) -> None:
    with pytest.raises(DataError, match=f"not trained on {HANDLE}, only on {BUTTON}"):
        HeldOut.open(run, (BUTTON, HANDLE), known=(BUTTON,), history=4)


def test_without_held_out_experts_their_recall_is_unknown(run: Paths, imagines: Callable[[Sampler], None]) -> None:
    imagines(true_world)
    for task in (BUTTON, HANDLE):
        write_store(run.store(task, "expert") / "collected", task, "expert", [])
    fidelity.evaluate(settings(), run)
    found = read_metrics(run.fidelity_metrics, Fidelity, "evaluate-world-model")
    assert found.replay.expert_success_recall is None
    assert found.replay.policy_success_recall == 1
    assert {strip.policy for strip in found.strips} == {"bc"}
