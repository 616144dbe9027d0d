from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from world4rl.demos.checks import Finding
from world4rl.demos.tables import EPISODE_TABLE, FRAME_TABLE, STORE_EPISODES, derive, validate

FPS = 10.0


def frame_rows(lengths: tuple[int, ...] = (4, 6)) -> pd.DataFrame:
    steps = np.concatenate([np.arange(length) for length in lengths])
    return pd.DataFrame(
        {
            "timestamp": (steps / FPS).astype(np.float32),
            "frame_index": steps,
            "episode_index": np.repeat(np.arange(len(lengths)), lengths),
            "index": np.arange(len(steps)),
            "task_index": 0,
        }
    )


def frame_findings(table: pd.DataFrame) -> list[Finding]:
    return validate(FRAME_TABLE, derive(table, FPS), table["episode_index"].to_numpy())


def test_a_good_frame_table_passes() -> None:
    assert frame_findings(frame_rows()) == []


@pytest.mark.parametrize(
    ("column", "row", "value", "words"),
    [
        ("timestamp", 5, np.nan, "timestamp has empty cells"),
        ("timestamp", 6, 0.5, "timestamp does not follow"),
        ("frame_index", 7, 9, "frame_index does not count"),
    ],
)
def test_a_bad_cell_is_a_finding_about_its_episode(column: str, row: int, value: Any, words: str) -> None:
    table = frame_rows()
    table.loc[row, column] = value
    findings = frame_findings(table)
    assert {finding.episode for finding in findings} == {1}
    assert any(words in finding.reason and str(row - 4) in finding.evidence for finding in findings)


def test_all_failures_come_at_once() -> None:
    table = frame_rows((4, 6, 5))
    table.loc[1, "timestamp"] = np.nan
    table.loc[5, "frame_index"] = 0
    table.loc[14, "timestamp"] = 7.0
    assert {finding.episode for finding in frame_findings(table)} == {0, 1, 2}


def test_episode_table_failures_come_at_once() -> None:
    good = pd.DataFrame(
        {
            "episode_index": [0, 1],
            "length": [4, 6],
            "data/chunk_index": [0, 0],
            "data/file_index": [0, 0],
            "dataset_from_index": [0, 4],
            "dataset_to_index": [4, 10],
        }
    )
    assert validate(EPISODE_TABLE, good) == []
    bad = good.drop(columns="data/file_index").assign(episode_index=[1, 1], length=[4, 0])
    reasons = " ".join(finding.reason for finding in validate(EPISODE_TABLE, bad))
    for words in ("data/file_index is missing", "episode_index has repeated values", "length fails greater_than"):
        assert words in reasons


def test_store_episodes_must_follow_one_another() -> None:
    table = pd.DataFrame(
        {
            "episode": [0, 2],
            "start": [0, 4],
            "length": [4, 6],
            "task": "push",
            "source": "expert",
            "split": ["train", "test"],
            "success": [True, False],
            "seed": pd.array([1, None], dtype="Int64"),
            "digest": ["0" * 64, "f" * 64],
            "source_dataset": "push/expert",
        }
    )
    assert validate(STORE_EPISODES, table) == []
    assert "without gaps" in validate(STORE_EPISODES, table.assign(start=[0, 5]))[0].reason
    assert validate(STORE_EPISODES, table.assign(split=["train", "exam"])) != []
