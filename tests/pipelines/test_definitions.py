import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dagster import AssetKey, AssetSelection, AssetSpec, Definitions

from assets.dvc_project import DvcProject
from assets.translator import Layer, StageTranslator
from pipelines.definitions import build_defs
from pipelines.jobs import JOBS
from world4rl.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]

# key: group, partitioned, kinds, pool; one line an asset, so that a change of any shows in review.
SNAPSHOT = """
bc                 policies    per task  dvc lerobot pytorch
champion           promotion   per task  mujoco pytorch
demo_store         demos       per task  dvc pandera zarr
demos              demos       per task  dvc lerobot mujoco
evaluation         evaluation  per task  dvc mujoco pytorch
fidelity           world_model all tasks dvc pytorch pool=fidelity
landed             demos       per task  dvc lerobot
policy_rollouts    rollouts    per task  dvc lerobot mujoco
random_rollouts    rollouts    per task  dvc lerobot mujoco
refined            policies    per task  dvc lerobot pytorch
report             evaluation  all tasks dvc html pool=report
rollout_store      rollouts    per task  dvc pandera zarr
success_classifier world_model all tasks dvc pytorch pool=success_classifier
world_model        world_model all tasks diffusers dvc pytorch pool=world_model
"""


@pytest.fixture
def definitions(toy) -> Definitions:
    return build_defs(root=toy.root)


def specs(definitions: Definitions) -> dict[str, AssetSpec]:
    """Of the assets that a run makes."""
    found = definitions.resolve_all_asset_specs()
    return {spec.key.to_user_string(): spec for spec in found if "layer" in spec.tags}


def test_loading_takes_less_than_five_seconds_and_no_data(toy) -> None:
    code = (
        "import sys, time; began = time.process_time()\n"
        "from pathlib import Path\nfrom pipelines.definitions import build_defs\n"
        f"defs = build_defs(root=Path({str(toy.root)!r})); defs.resolve_asset_graph()\n"
        "assert not {'torch', 'lerobot', 'pandas', 'matplotlib', 'zarr'} & set(sys.modules)\n"
        "print(time.process_time() - began)"
    )
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, check=True).stdout
    assert float(output) < 5
    assert not (toy.root / "data" / "raw").exists()
    assert not (toy.root / "dvc.lock").exists()


def test_every_asset_is_as_reviewed(definitions: Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    lines = []
    for name, spec in sorted(specs(definitions).items()):
        pool = graph.get(spec.key).assets_def.op.pool
        lines.append(
            f"{name:<18} {spec.group_name:<11} {'per task ' if spec.partitions_def else 'all tasks'} "
            + " ".join(sorted(spec.kinds))
            + (f" pool={pool}" if pool else "")
        )
    assert "\n".join(lines) == SNAPSHOT.strip()


def test_every_asset_is_described_owned_tagged_and_has_a_code_version(definitions: Definitions) -> None:
    for spec in specs(definitions).values():
        assert spec.description
        assert spec.owners == ["team:robot-learning"]
        assert spec.tags["layer"] == spec.group_name
        assert spec.code_version
        assert "parameters" in spec.metadata
        if spec.group_name != "promotion":  # the one that is no stage
            assert spec.tags["dvc_step"] == spec.key.to_user_string()
            assert {"code", "makes"} <= set(spec.metadata)


def test_arrows_are_those_of_dvc_but_for_what_the_report_sums_up(toy, definitions: Definitions) -> None:
    arrows = {(dep.asset_key.to_user_string(), name) for name, spec in specs(definitions).items() for dep in spec.deps}
    arrows.remove(("manifest", "landed"))  # no stage makes a manifest
    printed = toy.dvc("dag", "--full", "--dot").stdout  # DVC's own drawing of its graph
    drawn = {
        tuple(part.strip(' ";').partition("@")[0] for part in line.split("->"))
        for line in printed.splitlines()
        if "->" in line
    }
    implied = {(step, other) for step, other in drawn if other == "report"} - {
        ("evaluation", "report"),
        ("fidelity", "report"),
    }
    assert len(implied) > 5, "the report reads them all, and its arrows would hide the others"
    assert arrows == drawn - implied | {("evaluation", "champion"), ("fidelity", "champion")}


def test_checks_block(definitions: Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    checks = {key.to_user_string(): graph.get_check_spec(key) for key in graph.asset_check_keys}
    assert set(checks) == {
        "manifest:nothing_quarantined",
        "demo_store:demonstrations_valid",
        "rollout_store:rollouts_valid",
        "success_classifier:classifier_precision",
        "fidelity:beats_copying_the_last_frame",
        "evaluation:refined_not_worse_than_bc",
    }
    assert all(spec.description for spec in checks.values())
    assert {name for name, spec in checks.items() if not spec.blocking} == {"manifest:nothing_quarantined"}


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ("key:bc+1", {"bc", "policy_rollouts", "refined", "evaluation"}),
        ("key:champion", {"champion"}),
        ("group:rollouts", {"policy_rollouts", "random_rollouts", "rollout_store"}),
        ("+key:demo_store", {"landed", "demos", "demo_store"}),
        ("tag:layer=policies and kind:lerobot", {"bc", "refined"}),
    ],
)
def test_string_selections(definitions: Definitions, selection: str, expected: set[str]) -> None:
    found = AssetSelection.from_string(selection).resolve(definitions.resolve_asset_graph())
    assert {key.to_user_string() for key in found} == expected


def test_jobs_cover_every_asset_once(definitions: Definitions) -> None:
    selected: list[AssetKey] = []
    for job in JOBS:
        selected += definitions.resolve_job_def(job.name).asset_layer.selected_asset_keys
    assert sorted(selected) == sorted(AssetKey(name) for name in specs(definitions))


def test_the_graph_shows_where_data_comes_in(definitions: Definitions) -> None:
    shown = {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}
    landing = {name: bool(spec.partitions_def) for name, spec in shown.items() if spec.group_name == "landing"}
    assert landing == {"manifest": True, "quarantine": False, "plan": False}
    assert all(shown[name].description for name in landing)


def test_the_automation_page_names_the_rules(definitions: Definitions) -> None:
    sensors = {sensor.name: sensor for sensor in definitions.sensors}
    (nightly,) = definitions.schedules
    assert set(sensors) == {"landing", "batch_policy", "lineage"}
    assert "when 1 accepted episodes of it have gathered, or the oldest has waited 24 h" in str(
        sensors["batch_policy"].description
    )
    assert (nightly.name, nightly.cron_schedule, nightly.execution_timezone) == ("nightly", "0 2 * * *", "UTC")


def test_without_a_night_there_is_no_schedule(toy) -> None:
    toy.set("retraining/nightly", None)
    assert not build_defs(root=toy.root).schedules


@pytest.mark.parametrize(("name", "value"), [("nightly", "61 2 * * *"), ("timezone", "Middle/Earth")])
def test_a_schedule_that_is_none_is_a_clear_error(toy, name: str, value: object) -> None:
    toy.set(f"retraining/{name}", value)
    with pytest.raises(ConfigError, match=r"retraining\.nightly or retraining\.timezone cannot be used"):
        build_defs(root=toy.root)


def test_a_subclassed_translator_renames_assets_and_their_arrows(toy) -> None:
    class Prefixed(StageTranslator):
        def get_asset_key(self, step: str) -> AssetKey:
            return super().get_asset_key(step).with_prefix("lab")

        def get_owners(self, layer: Layer, step: object) -> list[str]:
            return ["someone@example.org"]

    found = specs(build_defs(root=toy.root, translator=Prefixed()))
    assert {dep.asset_key.to_user_string() for dep in found["lab/demo_store"].deps} == {"lab/demos", "lab/landed"}
    assert all(spec.owners == ["someone@example.org"] for spec in found.values())


def test_code_version_follows_code_and_parameters_but_not_other_steps(toy) -> None:
    def versions() -> dict[str, str]:
        project = DvcProject(toy.root)
        return {name: project.step_code_version(step) for name, step in project.steps.items()}

    before = versions()
    toy.set("world_model/batch_size", 7)
    after = versions()
    assert {name for name in before if before[name] != after[name]} == {"world_model", "report"}  # it prints all
    with (toy.root / "toy_stage.py").open("a") as file:
        file.write("# changed\n")
    assert not set(versions().items()) & set(after.items())


def test_every_job_and_asset_can_be_served(definitions: Definitions) -> None:
    Definitions.validate_loadable(definitions)


def test_the_workspace_names_the_definitions() -> None:
    (entry,) = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"]
    module = importlib.import_module(entry["python_module"]["module_name"])
    assert isinstance(module.defs, Definitions)
