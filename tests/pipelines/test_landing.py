"""The sensor and the job in Dagster: what they ask for, tell and survive."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dagster import AssetKey, DagsterEventType, DagsterInstance, RunRequest, SensorResult, build_sensor_context
from dagster._core.storage.tags import RUN_KEY_TAG

from pipelines.landing import ASKED, build_landing_sensor, build_take_job
from tests.landing.conftest import TASK, Site, make_episode
from tests.spoiling import cell, rows
from world4rl.config import Params, dump_params, load_profile
from world4rl.demos.recording import Recording, write_dataset
from world4rl.errors import DataError, MachineError
from world4rl.landing.ledger import Ledger
from world4rl.landing.marker import MARKER, mark

MANIFEST = AssetKey("manifest")
DATASETS = {"good": (1, 2), "bad": (3, 4), "broken": (5,)}


@pytest.fixture
def instance() -> Iterator[DagsterInstance]:
    with DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site with three marked datasets: a good one, one with an action out of bounds, one that is broken."""
    site = Site(tmp_path)
    values = load_profile("demo").model_dump()
    site.params = Params.model_validate(values)
    site.paths.params.write_text(dump_params(site.params))
    for name, seeds in DATASETS.items():
        how = Recording(TASK, "corner2", 16, ("x", "y", "z", "grip"), ("dx", "dy", "dz", "grip"), {"source": "expert"})
        write_dataset(site.folder / name, [("train", make_episode(s)) for s in seeds], how, image_size=(24, 24))
    rows("action", cell(12, [0.0, 1.5, 0.0, 0.0]))(site.folder / "bad")
    (site.folder / "broken" / "meta" / "info.json").write_text("{")
    for name in DATASETS:
        (site.folder / name / MARKER).write_text(mark(site.folder / name).model_dump_json())
    return site


def tick(site: Site, instance: DagsterInstance, cursor: str = "") -> SensorResult:
    sensor = build_landing_sensor(site.paths.root, build_take_job(site.paths.root, MANIFEST), MANIFEST)
    result = sensor(build_sensor_context(instance=instance, cursor=cursor))
    assert isinstance(result, SensorResult)
    return result


def run(site: Site, instance: DagsterInstance, request: RunRequest, *, raises: bool = True) -> Any:
    return build_take_job(site.paths.root, MANIFEST).execute_in_process(
        run_config=request.run_config,
        instance=instance,
        tags={**request.tags, RUN_KEY_TAG: str(request.run_key)},
        raise_on_error=raises,
    )


def events(result: Any) -> dict[str, Any]:
    """Metadata of the materialisations by asset (and task)."""
    found = {}
    for event in result.all_events:
        if event.event_type == DagsterEventType.ASSET_MATERIALIZATION:
            made = event.step_materialization_data.materialization
            name = made.asset_key.to_user_string()
            found[f"{name}@{made.partition}" if made.partition else name] = made.metadata
    return found


def test_each_whole_dataset_gets_a_run_and_none_fails_for_a_bad_one(site: Site, instance: DagsterInstance) -> None:
    requests = {request.tags["world4rl/dataset"]: request for request in tick(site, instance).run_requests or []}
    assert set(requests) == set(DATASETS)
    results = {name: run(site, instance, request) for name, request in requests.items()}
    assert all(result.success for result in results.values())
    assert {name: site.state(name) for name in DATASETS} == {
        "good": "accepted",
        "bad": "accepted",
        "broken": "refused",
    }
    told = events(results["good"])[f"manifest@{TASK}"]
    assert told["dataset"].value == "good"
    quarantine = events(results["bad"])["quarantine"]
    assert "action leaves [-1, 1]" in quarantine["quarantine"].value
    assert quarantine["page"].url == "/files/reports/quarantine.html"
    assert "action leaves [-1, 1]" in site.paths.quarantine.read_text()
    after = tick(site, instance)
    assert after.run_requests == []
    assert after.skip_reason is not None
    assert "3 are settled" in str(after.skip_reason.skip_message)


def test_what_a_corrected_dataset_replaced_is_no_longer_shown(site: Site, instance: DagsterInstance) -> None:
    for request in tick(site, instance).run_requests or []:
        run(site, instance, request)
    rows("action", cell(12, [0.0, 0.5, 0.0, 0.0]))(site.folder / "bad")
    (site.folder / "bad" / MARKER).write_text(mark(site.folder / "bad").model_dump_json())
    (request,) = tick(site, instance).run_requests or []
    result = run(site, instance, request)
    told = events(result)
    assert (told["quarantine"]["entries"].value, told[f"manifest@{TASK}"]["episodes quarantined"].value) == (1, 0)
    assert "action leaves" not in told["quarantine"]["quarantine"].value
    assert [check.passed for check in result.get_asset_check_evaluations()] == [True]


def test_of_many_datasets_only_the_next_ones_are_asked_for(site: Site, instance: DagsterInstance) -> None:
    for number in range(2 * ASKED):
        (site.folder / f"many-{number}").mkdir()
        (site.folder / f"many-{number}" / MARKER).write_text("{}")
    first = {request.tags["world4rl/dataset"] for request in tick(site, instance).run_requests or []}
    assert len(first) == ASKED
    for name in first:
        entry = site.ledger.claim(name, "run", time.time())
        assert entry is not None
        site.ledger.settle(entry, "refused", time.time(), digest=None, detail={"why": "a toy"})
    then = {request.tags["world4rl/dataset"] for request in tick(site, instance).run_requests or []}
    assert len(then - first) == ASKED


def test_a_full_disk_fails_the_run_and_the_sensor_asks_again(
    site: Site, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    from world4rl.landing import take as taking

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    (request,) = [r for r in tick(site, instance).run_requests or [] if r.tags["world4rl/dataset"] == "good"]
    with monkeypatch.context() as broken:
        broken.setattr(taking.shutil, "copytree", full)
        with pytest.raises(MachineError, match="the disk is full"):
            run(site, instance, request)
    later = time.time() + 60
    monkeypatch.setattr(time, "time", lambda: later)
    again = [r for r in tick(site, instance).run_requests or [] if r.tags["world4rl/dataset"] == "good"]
    assert [r.run_key != request.run_key for r in again] == [True]
    assert run(site, instance, again[0]).success
    assert site.state("good") == "accepted"


def test_a_run_that_ended_before_it_took_its_dataset_is_replaced(
    site: Site, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dagster import DagsterRunStatus
    from dagster._core.test_utils import create_run_for_test

    (request,) = [r for r in tick(site, instance).run_requests or [] if r.tags["world4rl/dataset"] == "good"]
    tags = {RUN_KEY_TAG: str(request.run_key)}
    create_run_for_test(instance, "take_landed", tags=tags, status=DagsterRunStatus.FAILURE)
    asked = [r.tags["world4rl/dataset"] for r in tick(site, instance).run_requests or []]
    assert sorted(asked) == ["bad", "broken"], "not at once"
    assert "ended before it took" in site.ledger.events("good")[-1].detail["why"]
    later = time.time() + 60
    monkeypatch.setattr(time, "time", lambda: later)
    again = [r for r in tick(site, instance).run_requests or [] if r.tags["world4rl/dataset"] == "good"]
    assert [r.run_key != request.run_key for r in again] == [True]


def test_a_ledger_or_a_landing_folder_that_cannot_be_used_is_one_clear_error(
    site: Site, instance: DagsterInstance
) -> None:
    tick(site, instance)
    site.folder.rename(site.folder.parent / "away")
    with pytest.raises(MachineError, match="the landing folder has gone"):
        tick(site, instance)
    (site.folder.parent / "away").rename(site.folder)
    site.ledger.close()
    shutil.rmtree(site.paths.ledger.parent)
    site.paths.ledger.parent.mkdir()
    site.paths.ledger.write_text("not a database, but long enough to be read as the header of one " * 20)
    with pytest.raises(DataError, match="the ledger cannot be used"):
        tick(site, instance)
    site.paths.ledger.unlink()
    assert len(tick(site, instance).run_requests or []) == 3
    site.ledger = Ledger(site.paths.ledger)
