"""The whole lineage on a toy project: what runs, what does not, what Dagster records, how it stops and goes on."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from dagster import AssetKey, DagsterInstance, DagsterRunStatus

from world4rl.config import load_profile
from world4rl.provenance.git import LINEAGE
from world4rl.provenance.records import Chain, Run

ROOT = Path(__file__).resolve().parents[2]
ONE, OTHER = load_profile("ci").tasks
WALK = "import sys; from pathlib import Path; from pipelines.demo import main; sys.exit(main(Path(sys.argv[1])))"
MATERIALIZE = """
import sys
from pathlib import Path
from dagster import AssetKey
from pipelines.definitions import build_defs
from pipelines.instance import open_instance, prepare_home
root, step, partition = Path(sys.argv[1]), sys.argv[2], sys.argv[3] or None
prepare_home(root)
with open_instance() as instance:
    job = build_defs(root=root).resolve_implicit_global_asset_job_def()
    job.execute_in_process(asset_selection=[AssetKey(step)], partition_key=partition, instance=instance)
"""


def start(script, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def walk(toy):
    process = start(WALK, toy.root)
    output, errors = process.communicate(timeout=200)
    return process.returncode, output, errors


def instance_of(toy):
    return DagsterInstance.from_config(str(toy.root / ".dagster"))


def data_versions(toy):
    """Data version of the newest materialisation of every asset and partition."""
    found = {}
    with instance_of(toy) as instance:
        for name, step in toy.project.steps.items():
            for stage in step.stages:
                records = instance.fetch_materializations(AssetKey(name), limit=50).records
                record = next(r for r in records if r.partition_key == stage.task)
                found[stage.name] = record.asset_materialization.tags["dagster/data_version"]
    return found


def git(root, *arguments):
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


def lineage(toy):
    return git(toy.root, "rev-parse", LINEAGE)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)


def trainer_of(toy, step):
    """The process of a stage that sleeps, once it does."""
    pid = toy.root / ".runs" / step / "all" / "pid"
    wait_for(pid.exists)
    wait_for(pid.read_text)
    return psutil.Process(int(pid.read_text()))


def assert_gone(process):
    wait_for(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, 20)


@pytest.fixture(scope="module")
def walked(make_toy, tmp_path_factory):
    """A project whose lineage has been walked once, to copy."""
    toy = make_toy(tmp_path_factory.mktemp("walked") / "project")
    status, output, errors = walk(toy)
    assert status == 0, output + errors
    ran = toy.ran()
    assert sorted(ran) == sorted(toy.project.stages)
    assert output.count(": done in ") == len(ran) == 22
    assert "22 stages ran" in output
    assert f"report: {toy.root / 'reports' / 'report.html'}" in output
    return toy


@pytest.fixture
def done(walked, make_copy, tmp_path):
    return make_copy(walked, tmp_path / "done")


def test_a_second_walk_runs_nothing_and_reports_the_same_versions(done):
    before, kept = data_versions(done), lineage(done)
    runs = [record.predicate for record in Chain(done.root / "data" / "records", (Run,)).read()]
    assert sorted(run.stage for run in runs) == sorted(done.project.stages)
    messages = git(done.root, "log", "--format=%B", LINEAGE)
    with instance_of(done) as instance:
        refining = {run.run_id for run in instance.get_runs() if run.job_name == "refine"}
    named = set(re.findall(r"^Dagster-Run: (\S+)$", messages, re.MULTILINE))
    assert named & refining, "one of two that ended together may have committed the state of both"
    recorded = {name: done.project.recorded(stage) for name, stage in done.project.stages.items()}
    assert before == {name: entry.data_version for name, entry in recorded.items()}
    status, output, errors = walk(done)
    assert status == 0, errors
    assert done.ran() == []
    assert "nothing had changed" in output
    assert data_versions(done) == before
    assert lineage(done) == kept
    assert len(list((done.root / "data" / "records").glob("*.json"))) == len(runs)
    with instance_of(done) as instance:
        assert instance.get_runs_count() == 12
        newest = instance.fetch_materializations(AssetKey("bc"), limit=1).records[0].asset_materialization
    assert newest.metadata["cached"].value is True
    assert newest.metadata["learning curve"].value.startswith("![")


def test_dvc_alone_does_the_same_work(done):
    assert done.dvc("repro").returncode == 0
    assert done.ran() == []
    done.set(f"task_parameters/{OTHER}/demonstrations", 7)
    result = done.dvc("repro")
    assert result.returncode == 0, result.stderr
    shared = ["world_model", "success_classifier", "fidelity", "report"]
    own = ["demos", "demo_store", "bc", "policy_rollouts", "rollout_store"]
    models = [f"{step}@{task}" for step in ("refined", "evaluation") for task in (ONE, OTHER)]
    assert sorted(done.ran()) == sorted([*shared, *(f"{step}@{OTHER}" for step in own), *models])


def test_an_old_value_of_a_parameter_brings_its_results_back_without_running_anything(done):
    policy = done.project.stage("refined", ONE)
    first = done.project.recorded(policy)
    done.set("refinement/iterations", 99)
    assert done.dvc("repro").returncode == 0
    assert sorted(done.ran()) == sorted([f"refined@{ONE}", f"refined@{OTHER}", "report"])  # same policies: no trials
    assert done.project.recorded(policy).code_version != first.code_version
    done.set("refinement/iterations", load_profile("ci").refinement.iterations)
    assert done.dvc("repro").returncode == 0
    assert done.ran() == []
    assert done.project.recorded(policy) == first


def test_pull_restores_everything_into_a_fresh_clone(done, make_toy, tmp_path):
    done.dvc("remote", "add", "--local", "-d", "store", str(tmp_path / "store"))
    assert done.dvc("push").returncode == 0
    clone = make_toy(tmp_path / "clone")
    shutil.copy(done.root / "dvc.lock", clone.root)
    clone.dvc("remote", "add", "--local", "-d", "store", str(tmp_path / "store"))
    pulled = clone.dvc("pull")
    assert pulled.returncode == 0, pulled.stderr
    for place in [place for stage in done.project.stages.values() for place in stage.outputs + stage.metrics]:
        whole = done.root / place
        files = [whole] if whole.is_file() else [path for path in whole.rglob("*") if path.is_file()]
        assert files
        for path in files:
            assert (clone.root / path.relative_to(done.root)).read_bytes() == path.read_bytes()
    assert clone.dvc("repro").returncode == 0
    assert clone.ran() == []


def test_a_clone_without_the_cache_takes_nothing_for_done(done, make_toy, tmp_path):
    clone = make_toy(tmp_path / "clone")
    shutil.copy(done.root / "dvc.lock", clone.root)
    project = clone.project
    assert not any(project.unchanged(stage) for stage in project.stages.values())
    result = clone.dvc("repro", "world_model")
    assert result.returncode == 0, result.stderr
    assert clone.ran()[-1] == "world_model"


def test_a_lost_lock_file_costs_nothing(done):
    (done.root / "dvc.lock").unlink()
    shutil.rmtree(done.root / "models")
    result = done.dvc("repro")
    assert result.returncode == 0, result.stderr
    # Outputs that are kept between runs are not in DVC's run cache: these stages find their own work done, and the
    # report prints the seconds that it took.
    assert {name.partition("@")[0] for name in done.ran()} == {"landed", "demo_store", "rollout_store", "report"}
    assert (done.root / "models" / "world_model" / "model.txt").exists()


def test_a_failed_stage_is_named_with_its_log_and_the_rest_waits(done):
    done.set("world_model/batch_size", 3)
    done.wish(fail=["world_model"])
    status, _, errors = walk(done)
    assert status == 1
    assert "stage world_model failed" in errors
    assert "the toy was told to fail" in errors
    log = done.root / ".runs" / "logs" / "world_model.log"
    assert str(log) in errors
    assert "the toy was told to fail" in log.read_text()
    assert done.ran() == ["world_model"]


def test_a_refined_policy_that_is_worse_fails_the_demo_but_not_its_report(done):
    done.set("behaviour_cloning/width", 13)  # the toy's policy of that width gets worse
    done.set("gates/refined_margin", 0.0)
    (done.root / "reports" / "report.html").unlink()
    status, output, errors = walk(done)
    assert status == 1
    assert "not met: blocking check not passed: evaluation: refined_not_worse_than_bc" in errors
    assert "report: " in output
    assert (done.root / "reports" / "report.html").exists()


@pytest.mark.live
def test_an_interrupt_stops_the_trainer_and_the_next_walk_continues(done):
    done.set("world_model/batch_size", 3)
    done.wish(sleep={"world_model": 100})
    process = start(WALK, done.root)
    trainer = trainer_of(done, "world_model")
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=40)
    assert process.returncode == 130, output + errors
    assert "interrupted: the same command continues" in output
    assert_gone(trainer)
    with instance_of(done) as instance:
        statuses = {run.job_name: run.status for run in reversed(instance.get_runs())}
    assert statuses["imagine"] == DagsterRunStatus.CANCELED
    assert not done.project.unchanged(done.project.stage("world_model"))
    done.wish(sleep={"world_model": 0.1})
    assert walk(done)[0] == 0
    assert (done.root / ".runs" / "world_model" / "all" / "step").read_text() == "2"  # it found the state of the first


@pytest.mark.live
def test_a_killed_walk_leaves_no_trainer_behind_and_no_run_that_seems_to_go_on(done):
    done.set("world_model/batch_size", 3)
    done.wish(sleep={"world_model": 100})
    process = start(WALK, done.root)
    trainer = trainer_of(done, "world_model")
    process.kill()
    process.communicate(timeout=20)
    assert_gone(trainer)
    done.wish()
    assert walk(done)[0] == 0
    with instance_of(done) as instance:
        assert not [run for run in instance.get_runs() if not run.is_finished]


@pytest.mark.live
def test_a_killed_step_takes_its_trainer_along(done):
    done.set("world_model/batch_size", 3)
    done.wish(sleep={"world_model": 100})
    process = start(MATERIALIZE, done.root, "world_model", "")
    trainer = trainer_of(done, "world_model")
    process.kill()
    process.communicate(timeout=20)
    assert_gone(trainer)


@pytest.mark.live
def test_a_stage_that_a_signal_killed_is_tried_again(done):
    done.set("world_model/batch_size", 3)
    done.wish(sleep={"world_model": 3})
    process = start(MATERIALIZE, done.root, "world_model", "")
    trainer = trainer_of(done, "world_model")
    os.kill(trainer.pid, signal.SIGKILL)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    assert done.ran() == ["world_model", "world_model"]


@pytest.mark.live
def test_two_runs_of_one_stage_run_it_once(done):
    done.set("world_model/batch_size", 3)
    done.wish(sleep={"world_model": 8})
    first = start(MATERIALIZE, done.root, "world_model", "")
    trainer_of(done, "world_model")
    second = start(MATERIALIZE, done.root, "world_model", "")
    for process in (first, second):
        _, errors = process.communicate(timeout=100)
        assert process.returncode == 0, errors
    assert done.ran() == ["world_model"]


@pytest.mark.live
def test_dvc_and_dagster_at_once_run_a_stage_once(done):
    done.set(f"task_parameters/{ONE}/demonstrations", 7)
    done.wish(sleep={"demos": 12})
    other = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "-s", f"demos@{ONE}"], cwd=done.root, stdout=subprocess.DEVNULL
    )
    wait_for((done.root / "ran.txt").exists)
    process = start(MATERIALIZE, done.root, "demos", ONE)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    assert "waiting for it" in errors
    assert other.wait(timeout=20) == 0
    assert done.ran() == [f"demos@{ONE}"]
