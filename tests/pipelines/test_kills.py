"""The platform under SIGKILL, in short; `python -m benchmarks.kills` is the whole trial."""

import json
import subprocess
import sys

import pytest

from benchmarks.kills import kill_at_random
from pipelines.instance import POSTGRES

KILLS = 2


@pytest.mark.live
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_is_killed_goes_on_and_nothing_is_lost_or_doubled(tmp_path, monkeypatch):
    for name in ("DAGSTER_HOME", POSTGRES):
        monkeypatch.delenv(name, raising=False)
    result = kill_at_random(tmp_path, KILLS, seed=3)
    assert result.faults == []
    assert result.kills.total() == KILLS
    assert result.datasets
    assert set(result.runs) <= {"SUCCESS", "FAILURE", "CANCELED"}


def test_the_toy_trainer_tells_when_another_one_works_on_its_stage(toy):
    """The trial would see nothing otherwise."""
    toy.wish(sleep={"random_rollouts": 3})
    task = toy.project.steps["bc"].tasks[0]
    commands = [[sys.executable, "toy_stage.py", "random_rollouts", task]] * 2
    for process in [subprocess.Popen(command, cwd=toy.root) for command in commands]:
        assert process.wait(timeout=60) == 0
    assert (toy.root / "overlaps.txt").read_text().split() == [f"random_rollouts@{task}"]


def test_the_toy_trainer_goes_on_where_it_stopped_and_ends_with_the_same_bytes(toy, tmp_path):
    def train(state, steps):
        code = f"import toy_stage, pathlib; print(toy_stage.train(pathlib.Path({str(state)!r}), 'inputs', {steps}))"
        return subprocess.run(
            [sys.executable, "-c", code], cwd=toy.root, text=True, capture_output=True, check=True
        ).stdout

    first = train(tmp_path / "stopped", 5)
    assert json.loads((tmp_path / "stopped" / "chain.json").read_text())["step"] == 5
    end = train(tmp_path / "stopped", 12)
    assert end == train(tmp_path / "whole", 12) != first
