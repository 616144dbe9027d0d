"""A recorded stage runs again in a tree of its own; what comes out is compared, and nothing of the user's changes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from assets.lineage_ref import commit_lineage
from assets.recording import record_project
from assets.reproducing import discard_abandoned, find_record, reproduce
from world4rl.cli import app
from world4rl.config import load_profile
from world4rl.errors import DataError
from world4rl.files import locked
from world4rl.provenance.digests import digest_file, digest_folder
from world4rl.provenance.git import LINEAGE
from world4rl.provenance.records import Chain, Run

ONE, OTHER = load_profile("ci").tasks


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def kept(make_toy, tmp_path_factory):
    """A project that has run, is recorded, and whose state is in the lineage."""
    toy = make_toy(tmp_path_factory.mktemp("kept") / "project")
    git(toy.root, "add", "-A")
    git(toy.root, "-c", "user.name=ada", "-c", "user.email=ada@example.org", "commit", "-qm", "begin")
    assert toy.dvc("repro").returncode == 0
    list(record_project(toy.project))
    assert commit_lineage(toy.root)
    toy.ran()
    return toy


@pytest.fixture
def toy(kept, make_copy, tmp_path):
    return make_copy(kept, tmp_path / "toy")


def everything(root: Path) -> dict[str, object]:
    """All that the user has: files, Git's index, branches and working trees. `.runs` and DVC's own notes apart."""
    skipped = {".runs", ".git", "tmp"}
    found: dict[str, object] = {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not skipped & set(path.relative_to(root).parts)
    }
    for command in (("for-each-ref",), ("ls-files", "--stage"), ("worktree", "list"), ("status", "--porcelain")):
        found[" ".join(command)] = git(root, *command)
    return found


def test_the_same_bytes_come_out_and_nothing_of_the_users_changes(toy) -> None:
    before = everything(toy.root)
    found = reproduce(toy.root, f"bc@{ONE}", 0.05)
    assert found.comparison.verdict == "bit-equal"
    assert found.commit == git(toy.root, "rev-parse", LINEAGE)
    assert found.otherwise == ()
    assert everything(toy.root) == before
    assert toy.ran() == [], "it ran elsewhere"
    assert not (toy.root / ".runs" / "reproduce" / f"bc@{ONE}").exists()


@pytest.mark.parametrize(("noise", "verdict"), [("0.01", "metric-equal"), ("3", "different")])
def test_other_bytes_are_judged_by_their_figures(toy, monkeypatch, noise, verdict) -> None:
    monkeypatch.setenv("TOY_NOISE", noise)
    comparison = reproduce(toy.root, "world_model", 0.05).comparison
    assert comparison.verdict == verdict
    assert comparison.files == ("models/world_model/model.txt",)
    assert [(pair.name, pair.again) for pair in comparison.figures] == ([("loss", 4.0)] if noise == "3" else [])


def test_an_older_state_is_brought_back_though_code_and_parameters_went_on(toy) -> None:
    policy = toy.root / "models" / ONE / "bc"
    old = digest_folder(policy)
    toy.set("behaviour_cloning/width", 13)
    with (toy.root / "toy_stage.py").open("a") as file:
        file.write("# the code went on\n")
    assert toy.dvc("repro").returncode == 0
    list(record_project(toy.project))
    commit_lineage(toy.root)
    assert digest_folder(policy) != old
    for what in (old[:12], str(policy)):
        found = reproduce(toy.root, what, 0.0)
        assert found.comparison.verdict == "bit-equal"
        assert found.otherwise == ()


def test_what_is_not_in_the_lineage_yet_is_taken_from_the_present_state(toy) -> None:
    toy.set("behaviour_cloning/width", 13)
    assert toy.dvc("repro", f"bc@{ONE}").returncode == 0
    list(record_project(toy.project))
    before = git(toy.root, "for-each-ref")
    assert reproduce(toy.root, f"bc@{ONE}", 0.0).comparison.verdict == "bit-equal"
    assert git(toy.root, "for-each-ref") == before


def test_landed_data_and_stages_that_make_figures_only(toy) -> None:
    for stage in (f"landed@{ONE}", f"evaluation@{ONE}", "report"):
        assert reproduce(toy.root, stage, 0.0).comparison.verdict == "bit-equal"


def test_inputs_come_from_the_remote_where_the_cache_has_lost_them(toy, tmp_path) -> None:
    toy.dvc("remote", "add", "--local", "-d", "store", str(tmp_path / "store"))
    assert toy.dvc("push").returncode == 0
    shutil.rmtree(toy.root / ".dvc" / "cache" / "files")
    assert reproduce(toy.root, f"bc@{ONE}", 0.0).comparison.verdict == "bit-equal"
    shutil.rmtree(tmp_path / "store")
    with pytest.raises(DataError, match="cannot be had"):
        reproduce(toy.root, f"bc@{ONE}", 0.0)
    assert len(git(toy.root, "worktree", "list").splitlines()) == 1


def test_what_a_killed_reproduction_left_goes_with_the_data_in_it(toy) -> None:
    trees = toy.root / ".runs" / "reproduce"
    for name in (f"bc@{ONE}", f"bc@{OTHER}"):
        git(toy.root, "worktree", "add", "-q", "--detach", str(trees / name), "HEAD")
        (trees / name / "frames.parquet").write_text("somebody")
    with locked(trees / f"bc@{ONE}.lock"):  # as while it is at work
        discard_abandoned(toy.root)
    assert [path.name for path in trees.iterdir() if path.is_dir()] == [f"bc@{ONE}"]
    assert len(git(toy.root, "worktree", "list").splitlines()) == 2
    discard_abandoned(toy.root)
    assert len(git(toy.root, "worktree", "list").splitlines()) == 1


def test_a_stage_that_fails_again_is_said(toy, monkeypatch) -> None:
    monkeypatch.setenv("TOY_NOISE", "no number")
    with pytest.raises(DataError, match="failed when it ran again"):
        reproduce(toy.root, "world_model", 0.05)
    assert len(git(toy.root, "worktree", "list").splitlines()) == 1


def test_a_record_is_found_by_path_stage_and_digest(toy) -> None:
    file = toy.root / "models" / ONE / "bc" / "model.txt"
    found = {
        find_record(toy.root, what)[0]
        for what in (
            str(file),
            f"models/{ONE}/bc",
            f"bc@{ONE}",
            next(
                r.digest
                for r in Chain(toy.root / "data" / "records", (Run,)).read()
                if r.predicate.stage == f"bc@{ONE}"
            ),
        )
    }
    assert len(found) == 1
    assert find_record(toy.root, digest_file(toy.root / "reports" / "summary.json")[:10])[1].predicate.stage == "report"


@pytest.mark.parametrize("what", ["no-such-stage", "deadbeefdeadbeef", "abc"])
def test_what_was_never_recorded_is_said(toy, what) -> None:
    with pytest.raises(DataError, match="no run record"):
        find_record(toy.root, what)


def test_a_changed_file_has_no_record(toy) -> None:
    file = toy.root / "models" / ONE / "bc" / "model.txt"
    file.write_text("changed")
    with pytest.raises(DataError, match="no run record"):
        find_record(toy.root, f"models/{ONE}/bc")


def test_the_command_prints_for_people_and_machines_and_ends_with_a_status(toy) -> None:
    called = [sys.executable, "-m", "world4rl", "reproduce", "world_model", "--root", str(toy.root)]
    same = subprocess.run([*called, "--json"], capture_output=True, text=True, check=False)
    assert same.returncode == 0, same.stderr
    assert json.loads(same.stdout)["comparison"]["verdict"] == "bit-equal"
    noisy = os.environ | {"TOY_NOISE": "3"}
    page = toy.root / "again.html"
    other = subprocess.run([*called, "--html", str(page)], capture_output=True, text=True, check=False, env=noisy)
    assert other.returncode == 1
    assert "world_model is different" in other.stdout
    assert re.search(r"loss +1\.0 +4\.0", other.stdout)
    assert "world_model is different" in page.read_text()


def test_the_commands_that_record_and_commit(toy) -> None:
    runner = CliRunner()
    result = runner.invoke(app, ["record", "--root", str(toy.root)])
    assert result.exit_code == 0, result.output
    assert "0 recorded, 22 known, 0 not up to date" in result.output
    toy.set("behaviour_cloning/width", 13)
    assert toy.dvc("repro", f"bc@{ONE}").returncode == 0
    result = runner.invoke(app, ["record", "--root", str(toy.root)])
    assert "1 recorded" in result.output
    result = runner.invoke(app, ["lineage", "--root", str(toy.root)])
    assert "changes" in result.output
    assert "nothing has changed" in runner.invoke(app, ["lineage", "--root", str(toy.root)]).output
