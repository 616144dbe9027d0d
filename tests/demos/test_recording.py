from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lerobot.datasets import lerobot_dataset as lerobot

from world4rl.demos.recording import write_dataset


def test_stock_lerobot_reads_every_number_and_pixel(good_dataset: Path, good_episodes: Any) -> None:
    dataset = lerobot.LeRobotDataset("local/test", root=good_dataset)
    rows = [(episode, t) for _, episode in good_episodes for t in range(len(episode.frames))]
    assert len(dataset) == len(rows)
    assert dataset.meta.total_episodes == 5
    assert dataset.meta.fps == 40
    for number, (episode, t) in enumerate(rows):
        item = dataset[number]
        pixels = (item["observation.images.corner2"].numpy() * 255).round().astype(np.uint8)
        np.testing.assert_array_equal(np.moveaxis(pixels, 0, -1), episode.frames[t])
        np.testing.assert_array_equal(item["observation.state"].numpy(), episode.states[t])
        np.testing.assert_array_equal(item["action"].numpy(), episode.actions[t])
        assert item["next.reward"].item() == episode.rewards[t]
        assert item["next.success"].item() == episode.successes[t]
        assert item["next.done"].item() == (t == len(episode.frames) - 1)
        assert item["timestamp"].item() == pytest.approx(t / 40)
        assert item["task"] == "button-press-topdown-v3"


def test_stock_lerobot_finds_windows_by_time(good_dataset: Path, good_episodes: Any) -> None:
    dataset = lerobot.LeRobotDataset("local/test", root=good_dataset, delta_timestamps={"action": [-1 / 40, 0.0]})
    first = good_episodes[0][1]
    item = dataset[len(first.frames)]  # the second episode's first frame
    assert item["action_is_pad"].tolist() == [True, False]
    np.testing.assert_array_equal(dataset[3]["action"].numpy(), first.actions[2:4])


def test_statistics_are_those_of_the_data(good_dataset: Path, good_episodes: Any) -> None:
    statistics = json.loads((good_dataset / "meta" / "stats.json").read_text())
    actions = np.concatenate([episode.actions for _, episode in good_episodes]).astype(np.float64)
    for name, expected in {
        "mean": actions.mean(0),
        "std": actions.std(0),
        "min": actions.min(0),
        "q50": np.median(actions, 0),
    }.items():
        np.testing.assert_allclose(statistics["action"][name], expected)
    pixels = np.concatenate([episode.frames.reshape(-1, 3) for _, episode in good_episodes]) / 255
    image = statistics["observation.images.corner2"]
    np.testing.assert_allclose(np.ravel(image["mean"]), pixels.mean(0))
    np.testing.assert_allclose(np.ravel(image["std"]), pixels.std(0), atol=1e-6)
    np.testing.assert_allclose(np.ravel(image["max"]), pixels.max(0))
    np.testing.assert_allclose(np.ravel(image["q90"]), np.quantile(pixels, 0.9, axis=0, method="inverted_cdf"))


def test_same_statistics_as_lerobots_own_writer(tmp_path: Path, make_episode: Any, make_recording: Any) -> None:
    episode = make_episode(3)
    ours = tmp_path / "ours"
    write_dataset(ours, [("train", episode)], make_recording(), image_size=(24, 24))
    features = {
        key: value
        for key, value in json.loads((ours / "meta" / "info.json").read_text())["features"].items()
        if key not in ("timestamp", "frame_index", "episode_index", "index", "task_index")
    }
    stock = lerobot.LeRobotDataset.create("local/test", fps=40, features=features, root=tmp_path / "theirs")
    for t in range(len(episode.frames)):
        stock.add_frame(
            {
                "observation.images.corner2": episode.frames[t],
                "observation.state": episode.states[t],
                "action": episode.actions[t],
                "next.reward": episode.rewards[t : t + 1],
                "next.success": episode.successes[t : t + 1],
                "next.done": np.array([t == len(episode.frames) - 1]),
                "task": "button-press-topdown-v3",
            }
        )
    stock.save_episode()
    stock.finalize()
    theirs = json.loads((tmp_path / "theirs" / "meta" / "stats.json").read_text())
    mine = json.loads((ours / "meta" / "stats.json").read_text())
    assert set(mine) == set(theirs)
    for feature, values in theirs.items():
        assert set(mine[feature]) == set(values)
        for name in ("min", "max", "mean", "std", "count"):
            assert np.shape(mine[feature][name]) == np.shape(values[name])
            np.testing.assert_allclose(mine[feature][name], values[name], atol=2e-3, err_msg=f"{feature} {name}")


def test_lerobot_appends_to_it_and_keeps_the_side_file(dataset: Path, make_episode: Any) -> None:
    resumed = lerobot.LeRobotDataset.resume("local/test", root=dataset)
    episode = make_episode(9)
    for t in range(3):
        resumed.add_frame(
            {
                "observation.images.corner2": episode.frames[t],
                "observation.state": episode.states[t],
                "action": episode.actions[t],
                "next.reward": np.zeros(1, np.float32),
                "next.success": np.zeros(1, bool),
                "next.done": np.zeros(1, bool),
                "task": "button-press-topdown-v3",
            }
        )
    resumed.save_episode()
    resumed.finalize()
    assert lerobot.LeRobotDataset("local/test", root=dataset).meta.total_episodes == 6
    assert json.loads((dataset / "meta" / "world4rl.json").read_text())["source"] == "expert"


def test_the_same_episodes_give_the_same_bytes(
    tmp_path: Path, good_dataset: Path, good_episodes: Any, make_recording: Any
) -> None:
    write_dataset(tmp_path / "again", good_episodes, make_recording(), image_size=(24, 24))
    files = sorted(path.relative_to(good_dataset) for path in good_dataset.rglob("*") if path.is_file())
    assert files == sorted(p.relative_to(tmp_path / "again") for p in (tmp_path / "again").rglob("*") if p.is_file())
    for file in files:
        assert (good_dataset / file).read_bytes() == (tmp_path / "again" / file).read_bytes(), file


def test_an_interrupted_recording_leaves_nothing(tmp_path: Path, make_episode: Any, make_recording: Any) -> None:
    def breaks_down() -> Any:
        yield "train", make_episode(1)
        raise RuntimeError("the simulator died")

    with pytest.raises(RuntimeError, match="simulator died"):
        write_dataset(tmp_path / "raw", breaks_down(), make_recording(), image_size=(24, 24))
    assert list(tmp_path.iterdir()) == []


def test_large_recordings_are_spread_over_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_episode: Any, make_recording: Any
) -> None:
    monkeypatch.setattr("world4rl.demos.recording.FILE_BYTES", 2_000)
    episodes = [("train", make_episode(seed)) for seed in range(4)]
    write_dataset(tmp_path / "raw", episodes, make_recording(), image_size=(24, 24))
    assert len(list((tmp_path / "raw" / "data").glob("*/*.parquet"))) > 1
    dataset = lerobot.LeRobotDataset("local/test", root=tmp_path / "raw")
    last = dataset[len(dataset) - 1]
    np.testing.assert_array_equal(last["action"].numpy(), episodes[-1][1].actions[-1])
