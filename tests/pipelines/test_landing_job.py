"""What Dagster shows of a dataset that was taken: the new manifest, and what was kept out, with evidence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dagster import AssetCheckKey, AssetKey, DagsterInstance

from pipelines import landing
from pipelines.definitions import build_defs
from tests.pipelines.landed import accept
from world4rl.config import load_profile
from world4rl.landing import take as taking
from world4rl.landing.ledger import Ledger
from world4rl.landing.take import Taken
from world4rl.paths import Paths
from world4rl.provenance.manifests import read_acceptance, read_manifest

ONE, OTHER = load_profile("ci").tasks


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[DagsterInstance]:
    (tmp_path / "instance").mkdir()
    with DagsterInstance.local_temp(str(tmp_path / "instance")) as found:
        yield found


def test_a_taken_dataset_shows_its_manifest_and_its_quarantine(
    toy: Any, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = Paths(toy.root)

    def take(name: str, run: str, **_: Any) -> Taken:
        """Accepts two episodes and keeps one out, as the real one does."""
        record = read_acceptance(paths.accepted / f"{accept(toy.root, ONE, 2, at=1.0)}.json")
        ledger = Ledger(paths.ledger)
        entry = ledger.entries()[record.name]
        found = {"episode": 7, "check": "finite", "reason": "NaN in actions", "evidence": "row 3"}
        ledger.settle(
            entry, "accepted", 2.0, digest=record.digest, detail={}, quarantined=[found], checker="world4rl checks 1"
        )
        return Taken(record.name, "accepted", {"why": "2 accepted, 1 quarantined"}, record, (ONE,))

    monkeypatch.setattr(taking, "take", take)
    definitions = build_defs(root=toy.root)
    config = {"ops": {"take_dataset": {"config": {"name": "mine"}}}}
    assert definitions.resolve_job_def("take_landed").execute_in_process(run_config=config, instance=instance).success

    (changed,) = instance.fetch_materializations(AssetKey("manifest"), limit=5).records
    event = changed.asset_materialization
    assert event is not None
    assert event.partition == ONE
    assert (event.tags or {})["dagster/data_version"] == read_manifest(paths.manifest(ONE)).version
    assert event.metadata["episodes quarantined"].value == 1
    (everything,) = instance.fetch_materializations(landing.QUARANTINE_KEY, limit=5).records
    for shown in (event, everything.asset_materialization):
        assert shown is not None
        table = str(shown.metadata["quarantine"].value)
        for part in ("episode 7", "finite", "NaN in actions", "row 3", "world4rl checks 1"):
            assert part in table
    key = AssetCheckKey(AssetKey("manifest"), landing.QUARANTINE_CHECK)
    check = instance.get_latest_asset_check_evaluation_record(key)
    assert check is not None
    evaluation = check.evaluation
    assert evaluation is not None
    assert (evaluation.passed, evaluation.partition, evaluation.severity.value) == (False, ONE, "WARN")
    logs = [entry.user_message for entry in instance.all_logs(instance.get_runs()[0].run_id)]
    assert any("quarantined: episode 7" in line and "row 3" in line for line in logs)
