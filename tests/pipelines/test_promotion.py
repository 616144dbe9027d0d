"""The champion in Dagster: an asset that is no stage, and whose version is who is champion."""

import sys
from typing import Any

import pytest
from dagster import AssetExecutionContext, DagsterInstance, StaticPartitionsDefinition, asset, materialize

from assets import stage_runner
from assets.promotion import build_champion, describe
from assets.stage_runner import RETRIES, Command, StageRunner
from assets.translator import StageTranslator
from world4rl.files import write_text
from world4rl.paths import Paths
from world4rl.provenance import keys
from world4rl.provenance.decisions import Decisions, Promotion
from world4rl.provenance.digests import digest_folder

TASK = "button-press-topdown-v3"
COUNTS = {"successes": 9, "trials": 10}
EVIDENCE: dict[str, Any] = {
    "effect_points": 40.0,
    "interval_points": [12.0, 70.0],
    "confidence": 0.9,
    "p_value": 0.01,
    "test": "paired",
    "challenger": COUNTS,
    "opponent": {"successes": 5, "trials": 10, "policy": "b" * 64, "is": "the champion"},
    "checks": [{"check": "consent", "passed": True, "reason": "nothing is withdrawn"}],
}


@pytest.fixture
def prepared(toy, tmp_path, monkeypatch):
    """A toy project with two policies and no metrics."""
    monkeypatch.setenv("WORLD4RL_SIGNING_KEY", str(tmp_path / "key.pem"))
    paths = Paths(toy.root)
    for folder, text in ((paths.bc(TASK), "clone"), (paths.refined(TASK), "refined")):
        write_text(folder / "model.txt", text)
    return toy


def run(asset):
    """The result of materialising an asset, its event, and all that the run's page says."""
    with DagsterInstance.local_temp() as instance:
        result = materialize(
            [asset], partition_key=TASK, instance=instance, resources={"dvc": StageRunner()}, raise_on_error=False
        )
        events = result.asset_materializations_for_node(asset.node_def.name)
        return (
            result,
            (events[0] if events else None),
            [entry.user_message for entry in instance.all_logs(result.run_id)],
        )


def champion(toy):
    return build_champion(toy.project, StageTranslator())


def test_the_data_version_is_the_champions_digest(prepared):
    paths = Paths(prepared.root)
    digest = digest_folder(paths.refined(TASK))
    said = {"at": "2026-01-01T00:00:00Z", "by": "gate", "because": "so", "task": TASK, "evidence": EVIDENCE}
    Decisions(paths).add((), Promotion(**said, policy=digest, replaces=None), keys.ensure_key(paths))
    result, event, log = run(champion(prepared))
    assert result.success, log
    assert event.tags["dagster/data_version"] == digest
    assert event.metadata["verdict"].value == "nothing to do"
    assert event.metadata["champion"].value == digest
    decision, log_file = (
        prepared.root / event.metadata[name].url.removeprefix("/files/") for name in ("decision", "log")
    )
    assert decision.is_file()
    assert log_file.read_text().count("is the champion") == 1
    assert any("is the champion" in message for message in log), "live, through Pipes"


def test_without_what_it_needs_the_step_fails_and_names_it(prepared):
    result, event, log = run(champion(prepared))
    assert not result.success
    assert event is None
    assert any("cannot be judged" in message for message in log)
    failure = result.get_step_failure_events()[0].step_failure_data.user_failure_data
    assert f"champion@{TASK}.log" in failure.description
    assert not Paths(prepared.root).decisions.exists()


def test_a_command_that_a_signal_killed_is_tried_again_and_one_that_failed_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(stage_runner, "RETRY_SECONDS", 0)

    def runs(status: str):
        @asset(partitions_def=StaticPartitionsDefinition([TASK]), required_resource_keys={"dvc"})
        def work(context: AssetExecutionContext) -> None:
            script = f"import os; open('ran', 'a').write('x'); {status}"
            context.resources.dvc.run_command(context, tmp_path, Command("work", TASK, (sys.executable, "-c", script)))

        result, _, _ = run(work)
        assert not result.success
        return (tmp_path / "ran").read_text()

    assert runs("os._exit(3)") == "x"
    assert runs("os.kill(os.getpid(), 9)") == "x" + "x" * (1 + RETRIES)


def test_what_a_person_sees(tmp_path):
    paths = Paths(tmp_path)
    found = {
        "task": TASK,
        "verdict": "promoted",
        "why": "it is better",
        "challenger": "a" * 64,
        "champion": "a" * 64,
        "decided": True,
        "evidence": EVIDENCE,
        "record": "data/decisions/00000001-0123456789abcdef.json",
    }
    shown = describe(paths, found)
    assert shown["effect (points)"] == 40.0
    assert shown["interval"] == "+12.0 to +70.0 points (90 %)"
    assert shown["trials"] == 10
    assert "| the champion | 5 | 10 | 50.0 % |" in shown["comparison"].value
    assert "| consent | yes | nothing is withdrawn |" in shown["checks"].value
    assert shown["policy"].value == str((paths.champions(TASK) / ("a" * 16)).resolve())
    nobody = describe(paths, {**found, "champion": None, "evidence": {}, "record": None})
    assert nobody["champion"].value == "none"
    assert not {"policy", "decision", "effect (points)", "checks"} & set(nobody)
