"""Run records of a toy project: one a run, from what DVC, the files and the stage's own note say, and nothing more."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from assets import recording
from assets.dvc_project import DvcProject
from assets.recording import Kept, record_project, record_stage
from world4rl.config import load_profile
from world4rl.errors import DataError
from world4rl.files import read_json
from world4rl.paths import Paths
from world4rl.provenance import signatures
from world4rl.provenance.digests import digest_file, digest_folder
from world4rl.provenance.records import Chain, Run

ONE, OTHER = load_profile("ci").tasks


@pytest.fixture(scope="module")
def reproduced(make_toy, tmp_path_factory):
    """A project that plain `dvc repro` has run, noting; with a commit."""
    toy = make_toy(tmp_path_factory.mktemp("reproduced") / "project")
    git(toy.root, "add", "-A")
    git(toy.root, "-c", "user.name=ada", "-c", "user.email=ada@example.org", "commit", "-qm", "begin")
    toy.wish(note=True)
    os.environ["WORLD4RL_ORCHESTRATOR"] = "run-1"
    try:
        result = toy.dvc("repro")
    finally:
        del os.environ["WORLD4RL_ORCHESTRATOR"]
    assert result.returncode == 0, result.stderr
    return toy


@pytest.fixture
def toy(reproduced, make_copy, tmp_path):
    return make_copy(reproduced, tmp_path / "toy")


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


def keep(project: DvcProject, name: str) -> Kept:
    stage = project.stages[name]
    recorded = project.recorded(stage)
    assert recorded is not None
    return record_stage(project, stage, recorded)


def runs(root: Path) -> list[Run]:
    return [record.predicate for record in Chain(Paths(root).records, (Run,)).read()]


def test_everything_that_ran_is_recorded_once(toy) -> None:
    project = toy.project
    kept = {stage.name: one for stage, one in record_project(project)}
    assert list(kept) == list(project.stages)
    assert all(one is not None and one.new for one in kept.values())
    assert [run.stage for run in runs(toy.root)] == list(project.stages)
    again = [one for _, one in record_project(toy.project)]
    assert [one.record for one in again] == [one.record for one in kept.values()]
    assert not any(one.new for one in again)
    shutil.rmtree(toy.root / ".runs" / "recorded")  # the marks are for speed only
    assert not any(one.new for _, one in record_project(toy.project))
    assert len(runs(toy.root)) == len(kept)


def test_a_record_says_what_went_in_and_what_came_out(toy) -> None:
    keep(toy.project, f"refined@{ONE}")
    (run,) = runs(toy.root)
    assert [one.name for one in run.inputs] == [
        f"data/store/{ONE}/expert",
        f"data/store/{ONE}/policy",
        f"data/store/{ONE}/random",
        f"models/{ONE}/bc",
        "models/success_classifier",
        "models/world_model",
    ]
    assert all(one.sha256 == digest_folder(toy.root / one.name) for one in run.inputs)
    assert {one.name: one.sha256 for one in run.outputs} == {
        f"models/{ONE}/refined": digest_folder(toy.root / "models" / ONE / "refined"),
        f"reports/refined/{ONE}.json": digest_file(toy.root / "reports" / "refined" / f"{ONE}.json"),
        f"reports/refined/{ONE}.csv": digest_file(toy.root / "reports" / "refined" / f"{ONE}.csv"),
    }
    (record,) = Chain(Paths(toy.root).records, (Run,)).read()
    for one in record.subject:
        assert one.sha256 == digest_file(toy.root / one.name)
    assert f"models/{ONE}/refined/model.txt" in [one.name for one in record.subject]
    assert run.command == toy.project.stages[f"refined@{ONE}"].command
    assert run.parameters["refinement"] == toy.project._parameters["refinement"]
    assert run.metrics == read_json(toy.root / "reports" / "refined" / f"{ONE}.json")


def test_inputs_that_no_stage_makes_are_files(toy) -> None:
    keep(toy.project, f"landed@{ONE}")
    (run,) = runs(toy.root)
    manifest = f"data/manifests/{ONE}.json"
    assert [(one.name, one.sha256) for one in run.inputs] == [(manifest, digest_file(toy.root / manifest))]


def test_the_note_says_when_on_what_and_by_which_commit(toy) -> None:
    keep(toy.project, "world_model")
    (run,) = runs(toy.root)
    assert run.code.commit == git(toy.root, "rev-parse", "HEAD")
    assert run.code.dirty is False
    assert run.began < run.ended
    assert run.orchestrator == "run-1"
    assert run.machine["seeds"]["seed"] == 0
    assert run.machine["libraries"]["torch"]


def test_what_a_note_about_another_run_says_is_not_taken_over(toy) -> None:
    toy.set("world_model/batch_size", 3)
    toy.wish()  # a run that leaves no note: the one that lies there is about the run before
    assert toy.dvc("repro", "-s", "world_model").returncode == 0
    keep(toy.project, "world_model")
    (run,) = runs(toy.root)
    assert (run.began, run.ended, run.machine, run.orchestrator) == ("", "", {}, None)
    assert run.code.commit is None
    assert run.parameters["world_model"]["batch_size"] == 3, "what DVC knows is there all the same"


def test_an_old_result_that_comes_back_has_the_circumstances_of_its_run(toy) -> None:
    keep(toy.project, "world_model")
    toy.set("world_model/batch_size", 3)
    assert toy.dvc("repro", "-s", "world_model").returncode == 0
    keep(toy.project, "world_model")
    toy.set("world_model/batch_size", load_profile("ci").world_model.batch_size)
    assert toy.dvc("repro", "-s", "world_model").returncode == 0  # from the run cache
    kept = keep(toy.project, "world_model")
    first, second, third = runs(toy.root)
    assert kept.new
    assert second.outputs != first.outputs
    assert third == first.model_copy(update={"previous": third.previous})


def test_models_are_signed_and_a_lost_signature_comes_back(toy) -> None:
    keep(toy.project, f"bc@{ONE}")
    model = toy.root / "models" / ONE / "bc"
    assert signatures.verify_model(model)
    Paths(toy.root).signature(digest_folder(model)).unlink()
    assert not keep(toy.project, f"bc@{ONE}").new
    assert signatures.verify_model(model)
    (model / "model.txt").write_text("changed")
    with pytest.raises(DataError, match=r"model\.txt"):
        signatures.verify_model(model)


def test_what_is_not_what_dvc_made_is_not_recorded(toy) -> None:
    (toy.root / "models" / ONE / "bc" / "model.txt").write_text("changed")
    kept = {stage.name: kept for stage, kept in record_project(toy.project)}
    missing = {name for name, one in kept.items() if one is None}
    assert missing == {f"{step}@{ONE}" for step in ("bc", "policy_rollouts", "refined", "evaluation")}
    assert not Paths(toy.root).signed_place(Path("models") / ONE / "bc").exists()


def test_a_change_of_code_alone_does_not_hide_what_was_made(toy) -> None:
    with (toy.root / "toy_stage.py").open("a") as file:
        file.write("# reworded\n")
    assert all(kept is not None for _, kept in record_project(toy.project))


@pytest.mark.parametrize("step", ["_digest", "_sign", "_episodes", "_keep", "_name", "write_json"])
def test_killed_between_any_two_steps_the_next_one_completes_it(toy, monkeypatch, step) -> None:
    class KilledError(BaseException):
        pass

    def killed(*arguments: object) -> None:
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(recording, step, killed)
        with pytest.raises(KilledError):
            keep(toy.project, f"bc@{ONE}")
    keep(toy.project, f"bc@{ONE}")
    (run,) = runs(toy.root)
    assert run.began, "the note still belongs to it"
    assert signatures.verify_model(toy.root / "models" / ONE / "bc")


def test_a_damaged_record_is_named(toy) -> None:
    kept = keep(toy.project, f"bc@{ONE}")
    kept.record.write_text("{}")
    shutil.rmtree(toy.root / ".runs" / "recorded")
    with pytest.raises(DataError, match="damaged") as caught:
        keep(toy.project, f"bc@{ONE}")
    assert kept.record.name in str(caught.value)
