"""What a plan says is what runs: no more, and nothing that it did not name."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assets.plan import Plan, make_plan
from tests.pipelines.landed import accept
from world4rl.config import load_profile
from world4rl.files import write_json
from world4rl.paths import Paths

ONE, OTHER = load_profile("ci").tasks


def names(plan: Plan, *actions: Any) -> set[str]:
    return {planned.stage.name for planned in plan.of(*actions)}


def reasons(plan: Plan, stage: str) -> str:
    (found,) = [planned for planned in plan.stages if planned.stage.name == stage]
    return "; ".join(found.reasons)


@pytest.fixture(scope="module")
def made(make_toy: Callable[[Path], Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    toy = make_toy(tmp_path_factory.mktemp("made") / "project")
    assert toy.dvc("repro").returncode == 0
    toy.ran()
    return toy


@pytest.fixture
def toy(made: Any, make_copy: Any, tmp_path: Path) -> Any:
    return make_copy(made, tmp_path / "project")


def land(toy: Any, role: str = "expert") -> None:
    accept(toy.root, ONE, 3, role=role, at=time.time())


def everything(toy: Any) -> set[str]:
    return set(toy.project.stages)


def of_one(*steps: str) -> set[str]:
    return {f"{step}@{ONE}" for step in steps}


def test_nothing_changed_nothing_runs(toy: Any) -> None:
    plan = make_plan(toy.project)
    assert names(plan, "unchanged") == everything(toy)
    assert str(plan) == "22 are up to date"
    assert toy.dvc("repro").returncode == 0
    assert toy.ran() == []


def test_landed_demonstrations_run_what_is_made_from_them(toy: Any) -> None:
    land(toy)
    plan = make_plan(toy.project)
    assert names(plan, "runs") == {f"landed@{ONE}"}
    assert "+3 episodes (expert) from recordings-" in reasons(plan, f"landed@{ONE}")
    assert reasons(plan, f"bc@{ONE}") == f"demo_store@{ONE} will change"
    assert names(plan, "unchanged") == {
        f"{step}@{OTHER}"
        for step in ("demos", "landed", "demo_store", "bc", "policy_rollouts", "random_rollouts", "rollout_store")
    } | of_one("demos", "random_rollouts")
    assert toy.dvc("repro").returncode == 0
    assert set(toy.ran()) == names(plan, "runs", "follows")


def test_landed_rollouts_leave_the_demonstrations_alone(toy: Any) -> None:
    land(toy, "random")
    plan = make_plan(toy.project)
    assert {f"demo_store@{ONE}", f"bc@{ONE}"} <= names(plan, "unchanged")
    assert toy.dvc("repro").returncode == 0
    assert set(toy.ran()) == names(plan, "runs", "follows")


def test_a_batch_leaves_other_tasks_as_they_are(toy: Any) -> None:
    land(toy)
    plan = make_plan(toy.project, tasks=[ONE])
    assert names(plan, "left") == {f"refined@{OTHER}", f"evaluation@{OTHER}"}
    assert toy.dvc("repro", "-s", *(planned.stage.name for planned in plan.going)).returncode == 0
    assert set(toy.ran()) == names(plan, "runs", "follows")


def test_a_parameter_names_its_old_and_new_value_and_what_comes_out_the_same_stops_there(toy: Any) -> None:
    toy.set("refinement/iterations", 99)
    plan = make_plan(toy.project)
    assert reasons(plan, f"refined@{ONE}") == "refinement.iterations: 2 -> 99"
    assert names(plan, "runs") == {f"refined@{ONE}", f"refined@{OTHER}", "report"}
    assert names(plan, "follows") == {f"evaluation@{ONE}", f"evaluation@{OTHER}"}
    assert toy.dvc("repro").returncode == 0
    assert set(toy.ran()) == names(plan, "runs"), "the toy's policy does not depend on it"


def test_what_the_cache_has_is_restored_and_computes_nothing(toy: Any) -> None:
    toy.set("world_model/batch_size", 3)
    assert toy.dvc("repro", "-s", "world_model").returncode == 0
    toy.ran()
    toy.set("world_model/batch_size", load_profile("ci").world_model.batch_size)
    shutil.rmtree(toy.root / "models" / "success_classifier")
    plan = make_plan(toy.project)
    assert names(plan, "restores") >= {"world_model"}
    assert "missing: models/success_classifier" in reasons(plan, "success_classifier")
    assert names(plan, "runs") <= {"success_classifier"}, "only what follows from it may run"
    assert toy.dvc("repro").returncode == 0
    assert toy.ran() == []


def test_changed_code_runs_every_stage_of_it(toy: Any) -> None:
    with (toy.root / "toy_stage.py").open("a") as file:
        file.write("# changed\n")
    plan = make_plan(toy.project)
    assert names(plan, "runs") == everything(toy)
    assert "code changed: toy_stage.py" in reasons(plan, "world_model")
    assert toy.dvc("repro").returncode == 0
    assert set(toy.ran()) == everything(toy)


def test_a_project_where_nothing_was_made_runs_everything_and_a_batch_what_it_needs(
    make_toy: Callable[[Path], Any], tmp_path: Path
) -> None:
    fresh = make_toy(tmp_path / "fresh")
    plan = make_plan(fresh.project)
    assert names(plan, "runs") == everything(fresh)
    assert reasons(plan, "world_model").startswith("it never ran here")
    assert names(make_plan(fresh.project, tasks=[ONE]), "runs") == everything(fresh), "a world model of all tasks"
    assert not (fresh.root / "dvc.lock").exists()


def test_a_check_that_is_not_passed_blocks_what_is_made_from_it(toy: Any) -> None:
    toy.set("behaviour_cloning/width", 14)
    metrics = Paths(toy.root).store_report(ONE, "expert")
    write_json(metrics, {**json.loads(metrics.read_text()), "accepted": 1, "quarantined": [{}, {}]})
    assert toy.dvc("commit", "-f", f"demo_store@{ONE}").returncode == 0
    plan = make_plan(toy.project)
    assert f"check demonstrations_valid of demo_store@{ONE}: 1 episodes accepted" in reasons(plan, f"bc@{ONE}")
    assert names(plan, "blocked") >= {f"bc@{ONE}", "report"}
    assert f"bc@{OTHER}" in names(plan, "runs")


def test_what_is_held_is_left_and_what_needs_it_goes_on_with_what_is_there(toy: Any) -> None:
    toy.set("behaviour_cloning/width", 14)
    toy.set("world_model/batch_size", 3)
    plan = make_plan(toy.project, held=[f"bc@{ONE}"])
    assert names(plan, "left") == {f"bc@{ONE}"}
    assert f"policy_rollouts@{ONE}" in names(plan, "unchanged")
    assert "world_model" in names(plan, "runs")


def test_the_command_prints_the_plan_and_changes_nothing(toy: Any) -> None:
    land(toy)
    before = (toy.root / "dvc.lock").read_bytes()
    text = command(toy, "--task", ONE)
    assert f"landed@{ONE}" in text
    assert f"{OTHER}: nothing new" in text
    assert "1 run, " in text
    found = json.loads(command(toy, "--json"))
    assert found["tasks"] is None
    assert [stage["stage"] for stage in found["stages"] if stage["action"] == "runs"] == [f"landed@{ONE}"]
    assert found["gathered"][ONE]["added"] == {"expert": 3}
    assert found["gathered"][ONE]["due"] is True
    assert found["gathered"][OTHER] is None
    assert (toy.root / "dvc.lock").read_bytes() == before
    assert toy.ran() == []


def test_the_command_refuses_an_unknown_task(toy: Any) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        command(toy, "--task", "juggling")
    assert "no task 'juggling'" in caught.value.stderr


def command(toy: Any, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "world4rl", "plan", "--root", str(toy.root), *arguments],
        text=True,
        capture_output=True,
        check=True,
    ).stdout
