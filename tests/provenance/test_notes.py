"""What a stage notes about its own run, and when that is believed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from world4rl import config, runner
from world4rl.config import load_profile
from world4rl.paths import Paths
from world4rl.provenance import notes
from world4rl.provenance.digests import digest_file
from world4rl.provenance.manifests import write_manifests
from world4rl.stages import STAGES

TASK = load_profile("ci").tasks[0]
COMMAND = f"world4rl verify-landed --task {TASK}"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    (tmp_path / "params.yaml").write_text(config.dump_params(load_profile("ci")))
    paths = Paths(tmp_path)
    write_manifests([TASK], paths)
    return paths


def git(root: Path, *arguments: str) -> str:
    who = ["-c", "user.name=ada", "-c", "user.email=ada@example.org"]
    return subprocess.run(
        ["git", *who, *arguments], cwd=root, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_a_stage_leaves_a_note(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    git(paths.root, "init", "-q")
    git(paths.root, "add", "params.yaml")
    git(paths.root, "commit", "-qm", "begin")
    (paths.root / "requirements.lock").write_text("numpy==2")
    monkeypatch.setenv(notes.ORCHESTRATOR, "run-7")
    runner.run_stage("verify-landed", paths.root, Path("params.yaml"), TASK)
    note = notes.read(COMMAND, paths.landed_report(TASK), paths)
    assert note is not None
    assert note.command == COMMAND
    assert note.commit == git(paths.root, "rev-parse", "HEAD")
    assert note.dirty is False
    assert note.lock == digest_file(paths.root / "requirements.lock")
    assert note.orchestrator == "run-7"
    assert note.began <= note.ended
    assert note.machine["libraries"]["numpy"]
    values = load_profile("ci")
    assert note.parameters == {name: getattr(values, name) for name in ("device", "threads", "signatures")}


def test_a_changed_tree_is_dirty_and_none_at_all_has_no_commit(paths: Paths) -> None:
    assert (notes.begin(COMMAND, {}, paths.root).commit, notes.begin(COMMAND, {}, paths.root).dirty) == (None, False)
    git(paths.root, "init", "-q")
    git(paths.root, "add", "params.yaml")
    git(paths.root, "commit", "-qm", "begin")
    paths.params.write_text("# edited")
    assert notes.begin(COMMAND, {}, paths.root).dirty


def test_a_stage_that_fails_leaves_none(paths: Paths) -> None:
    paths.manifest(TASK).write_text("{}")
    with pytest.raises(Exception, match="damaged"):
        runner.run_stage("verify-landed", paths.root, Path("params.yaml"), TASK)
    assert not paths.note(notes.name_of(COMMAND)).exists()


def test_a_note_is_about_one_run_only(paths: Paths) -> None:
    runner.run_stage("verify-landed", paths.root, Path("params.yaml"), TASK)
    report = paths.landed_report(TASK)
    assert notes.read(COMMAND, report, paths)
    assert notes.read(COMMAND.replace("--task", "--other"), report, paths) is None
    values = report.read_text()
    report.write_text(values + " ")
    assert notes.read(COMMAND, report, paths) is None
    report.write_text(values)
    assert notes.read(COMMAND, report, paths)
    paths.note(notes.name_of(COMMAND)).write_text("{}")
    assert notes.read(COMMAND, report, paths) is None


def test_parameters_are_as_the_stage_may_see_them(paths: Paths) -> None:
    visible = runner.visible_params(load_profile("ci"), STAGES["collect-demos"], TASK)
    values = runner.visible_values(visible)
    assert set(values) == {*STAGES["collect-demos"].sections, "device", "threads", "signatures"}
    assert set(values["task_parameters"]) == {TASK}
