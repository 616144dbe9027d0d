"""`dvc.yaml` says the same as the tables of the method: commands, parameters, places, code."""

from pathlib import Path

import pytest
import yaml

from assets.dvc_project import DvcProject, Stage
from pipelines.code_deps import code_of, wrong_steps
from world4rl.paths import ROLES, Paths
from world4rl.stages import STAGES

ROOT = Path(__file__).resolve().parents[2]
STEPS = {
    "demos": "collect-demos",
    "landed": "verify-landed",
    "demo_store": "store-demos",
    "bc": "train-bc",
    "policy_rollouts": "collect-policy",
    "random_rollouts": "collect-random",
    "rollout_store": "store-rollouts",
    "world_model": "train-world-model",
    "success_classifier": "train-classifier",
    "fidelity": "evaluate-world-model",
    "refined": "refine",
    "evaluation": "evaluate",
    "report": "report",
}


def made_by(paths: Paths, step: str, task: str) -> set[Path]:
    return {
        "demos": {paths.raw(task, "expert"), paths.collect_metrics(task, "expert")},
        "landed": {*(paths.landed(task, role) for role in ROLES), paths.landed_report(task)},
        "demo_store": {paths.store(task, "expert"), paths.store_report(task, "expert")},
        "bc": {paths.bc(task), paths.bc_metrics(task), paths.bc_curve(task)},
        "policy_rollouts": {paths.raw(task, "policy"), paths.collect_metrics(task, "policy")},
        "random_rollouts": {paths.raw(task, "random"), paths.collect_metrics(task, "random")},
        "rollout_store": {
            paths.store(task, "policy"),
            paths.store(task, "random"),
            paths.store_report(task, "rollouts"),
        },
        "world_model": {paths.world_model, paths.world_model_metrics, paths.world_model_curve},
        "success_classifier": {paths.classifier, paths.classifier_metrics, paths.classifier_curve},
        "fidelity": {paths.fidelity, paths.fidelity_metrics},
        "refined": {paths.refined(task), paths.refined_metrics(task), paths.refined_curve(task)},
        "evaluation": {paths.evaluation(task), paths.evaluation_metrics(task)},
        "report": {paths.report, paths.summary},
    }[step]


@pytest.fixture(scope="module")
def project() -> DvcProject:
    return DvcProject(ROOT)


def one(project: DvcProject, step: str) -> Stage:
    return project.steps[step].stages[0]


def test_every_stage_of_the_method_is_a_step_and_no_other(project: DvcProject) -> None:
    assert set(project.steps) == set(STEPS)
    assert set(STEPS.values()) == set(STAGES)


@pytest.mark.parametrize("step", STEPS)
def test_command_parameters_and_places(project: DvcProject, step: str) -> None:
    stage, known = one(project, step), STAGES[STEPS[step]]
    assert (stage.task is not None) == known.per_task
    assert stage.command == f"world4rl {known.command}" + (f" --task {stage.task}" if known.per_task else "")
    own = f"task_parameters.{stage.task}" if stage.task else "task_parameters"
    sections = [own if name == "task_parameters" else name for name in known.sections]
    assert sorted(stage.parameters) == sorted(sections)
    task = stage.task or ""
    assert known.metrics.format(task=task) in stage.metrics
    assert {Path(path) for path in stage.outputs + stage.metrics} == made_by(Paths(Path()), step, task)
    assert stage.description


def test_code_is_what_the_imports_say() -> None:
    definition = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    assert not wrong_steps(definition), "run `python -m pipelines.code_deps --write` and look at the change"


def test_templates_are_code() -> None:
    """A report that was drawn anew has another look."""
    found = [name for name in code_of("report") if "/templates/" in name]
    places = ("world4rl/evaluation", "world4rl/pages")
    assert found == sorted(str(file.relative_to(ROOT)) for at in places for file in (ROOT / at).glob("templates/*"))
    assert not [name for name in code_of("train-bc") if "/templates/" in name]


def test_code_is_found_through_lazy_relative_and_package_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "world4rl" / "demos"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "collect.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "from world4rl.config import Params\n"
        "if TYPE_CHECKING:\n    from world4rl.demos import only_types\n"
        "def collect_demos():\n    from world4rl.demos import lazy\n    from . import near\n"
    )
    for name in ("only_types", "lazy", "near", "unused"):
        (package / f"{name}.py").write_text("x = 1\n")
    (tmp_path / "world4rl" / "config.py").write_text("x = 1\n")
    assert code_of("collect-demos", tmp_path) == [
        "world4rl/demos/collect.py",
        "world4rl/demos/lazy.py",
        "world4rl/demos/near.py",
    ]


def test_settings_of_one_site_are_not_committed() -> None:
    config = (ROOT / ".dvc" / "config").read_text()
    assert "analytics = false" in config
    assert "autostage = false" in config
    assert "remote" not in config
    assert "/config.local" in (ROOT / ".dvc" / ".gitignore").read_text()
