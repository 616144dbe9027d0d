"""Dagster's storage in PostgreSQL, with the real server; and its going away."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from urllib.error import HTTPError

import pytest

from benchmarks.live import Live, wait_for
from pipelines.instance import POSTGRES
from tests.pipelines.servers import PASSWORD, Postgres
from tests.pipelines.test_lineage import MATERIALIZE, WALK
from world4rl.config import load_profile

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
ONE, OTHER = load_profile("ci").tasks
NEWEST = """
import json, sys
from dagster import AssetKey, DagsterInstance
with DagsterInstance.from_config(sys.argv[1]) as instance:
    print(json.dumps({
        "runs": sorted((run.job_name, run.status.value) for run in instance.get_runs()),
        "world_model": len(instance.fetch_materializations(AssetKey("world_model"), limit=9).records),
        "pools": instance.event_log_storage.get_concurrency_keys() and
            sorted(instance.event_log_storage.get_concurrency_keys()),
        "claimed": [key for key in instance.event_log_storage.get_concurrency_keys()
            if instance.event_log_storage.get_concurrency_info(key).claimed_slots],
    }))
"""


@pytest.fixture(scope="module")
def postgres():
    server = Postgres()
    server.start()
    yield server
    server.remove()


@pytest.fixture
def database(postgres):
    """The address of an empty database of the server."""
    import psycopg2

    name = f"runs_{time.monotonic_ns()}"
    connection = psycopg2.connect(postgres.address)
    connection.autocommit = True
    connection.cursor().execute(f"CREATE DATABASE {name}")
    connection.close()
    return postgres.address.replace("/postgres", f"/{name}")


def start(script, *arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def walk(toy, **environment):
    process = start(WALK, toy.root, **environment)
    output, errors = process.communicate(timeout=250)
    return process.returncode, output, errors


def newest(toy, address):
    """What the instance holds, as a process sees that ran nothing."""
    process = start(NEWEST, toy.root / ".dagster", **{POSTGRES: address.replace("postgresql:", "postgresql+psycopg2:")})
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return json.loads(output)


def test_the_lineage_over_postgres(toy, database):
    status, output, errors = walk(toy, **{POSTGRES: database})
    assert status == 0, output + errors
    assert sorted(toy.ran()) == sorted(toy.project.stages)
    held = newest(toy, database)
    assert held["runs"] == sorted([[job, "SUCCESS"] for job in ("collect", "refine")] * 2 + [
        ["imagine", "SUCCESS"], ["write_report", "SUCCESS"]
    ])  # fmt: skip
    assert held["world_model"] == 1
    assert held["pools"] == ["fidelity", "report", "success_classifier", "world_model"]
    assert held["claimed"] == []
    assert not list((toy.root / ".dagster").rglob("*.db"))  # nothing of it lies in SQLite
    for file in (toy.root / ".dagster").rglob("*"):
        assert not file.is_file() or PASSWORD not in file.read_text(errors="replace"), file

    status, output, errors = walk(toy)  # the variable forgotten: nothing is written elsewhere
    assert status == 1
    assert f"{POSTGRES} is not set" in errors
    assert newest(toy, database) == held


def test_a_server_that_goes_away_during_a_stage_is_one_clear_error_and_costs_nothing(toy, postgres, database):
    toy.wish(sleep={"world_model": 8})
    process = start(WALK, toy.root, **{POSTGRES: database})
    wait_for("a trainer", (toy.root / ".runs" / "world_model" / "all" / "pid").exists, 240)
    postgres.kill()
    try:
        output, errors = process.communicate(timeout=200)
        assert process.returncode == 1, output + errors
        assert "Dagster's storage does not answer" in errors
        assert database.rpartition("@")[2] in errors
        assert POSTGRES in errors
        assert "Traceback" not in errors
        assert PASSWORD not in output + errors

        again, _, errors = walk(toy, **{POSTGRES: database})  # it is still away: said before anything is started
        assert again == 1
        assert "Dagster's storage does not answer" in errors
    finally:
        postgres.start()
    ran = toy.ran()
    status, output, errors = walk(toy, **{POSTGRES: database})
    assert status == 0, output + errors
    assert sorted([*ran, *toy.ran()]) == sorted(toy.project.stages)  # every stage ran once
    assert {state for _, state in newest(toy, database)["runs"]} <= {"SUCCESS", "FAILURE"}


def test_a_pool_holds_over_postgres(toy, database):
    toy.wish(sleep={"world_model": 4})
    assert toy.dvc("repro", "rollout_store").returncode == 0
    toy.ran()
    processes = [start(MATERIALIZE, toy.root, "world_model", "", **{POSTGRES: database}) for _ in range(2)]
    for process in processes:
        _, errors = process.communicate(timeout=100)
        assert process.returncode == 0, errors
    assert toy.ran() == ["world_model"]
    assert newest(toy, database)["world_model"] == 2


def test_the_daemon_outlives_a_storage_that_goes_away(toy, postgres, database):
    def ticked(after):
        with suppress(HTTPError):  # the web server's first answer after it: its old connection is dead
            return [tick for tick in live.ticks("landing") if tick["timestamp"] > after and tick["status"] == "SKIPPED"]
        return []

    with Live(toy.root, environment={POSTGRES: database}) as live:
        wait_for("a tick", lambda: ticked(0))
        postgres.kill()
        try:
            time.sleep(15)  # more than a tick
            assert all(service.poll() is None for service in live.services.values())
        finally:
            postgres.start()
        back = time.time()
        wait_for("a tick after the storage is back", lambda: ticked(back))
        run = live.launch("collect", ONE)
        wait_for("a run after it", lambda: live.status(run) == "SUCCESS")
