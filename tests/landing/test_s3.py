"""The landing folder in a store of objects: an S3 server in this process, reached through fsspec and s3fs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.landing.conftest import TASK, Site
from world4rl.cli import app
from world4rl.config import dump_params
from world4rl.errors import DataError, MachineError
from world4rl.landing.deposit import land
from world4rl.landing.inbox import UPLOADING, Inbox
from world4rl.landing.marker import MARKER
from world4rl.provenance.manifests import read_manifest

pytestmark = pytest.mark.live
Record = Callable[..., Path]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """An empty bucket; how to reach it stands in the usual variables."""
    import boto3

    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    bucket = boto3.resource("s3").Bucket("lab")
    bucket.create()
    yield bucket
    bucket.objects.all().delete()
    bucket.delete()


@pytest.fixture
def remote(site: Site, bucket: Any) -> Site:
    """A site whose landing folder is `s3://lab/landing`."""
    site.inbox = Inbox("s3://lab/landing")
    return site


def keys(bucket: Any) -> set[str]:
    return {each.key for each in bucket.objects.all()}


def upload(bucket: Any, folder: Path, name: str) -> None:
    """What any other program does: files, no marker."""
    for path in folder.rglob("*.*"):
        bucket.upload_file(str(path), f"landing/{name}/{path.relative_to(folder).as_posix()}")


def test_the_command_lands_and_what_landed_becomes_data(
    remote: Site, bucket: Any, record: Record, tmp_path: Path
) -> None:
    values = remote.params.model_dump()
    values["landing"]["address"] = "s3://lab/landing"
    remote.paths.params.write_text(dump_params(type(remote.params).model_validate(values)))
    mine = record(tmp_path / "mine")
    command = ["land", str(mine), "--operator", "op-7", "--consent", "research", "--root", str(remote.paths.root)]
    told = CliRunner().invoke(app, command)
    assert told.exit_code == 0, told.output
    assert "landed as s3://lab/landing/mine" in told.output
    assert f"landing/mine/{MARKER}" in keys(bucket)
    assert f"landing/mine/{UPLOADING}" not in keys(bucket)
    (due,) = remote.look().due
    assert remote.took(due.name).state == "accepted"
    (dataset,) = read_manifest(remote.paths.manifest(TASK)).roles["expert"].datasets
    assert (dataset.statement.operator, len(dataset.episodes)) == ("op-7", 2)


def test_objects_without_a_marker_must_be_quiet_and_a_new_version_begins_anew(
    remote: Site, bucket: Any, record: Record, tmp_path: Path
) -> None:
    quiet = remote.params.landing.quiet_seconds
    upload(bucket, record(tmp_path / "first"), "mine")
    assert not remote.look().due
    assert not remote.look(quiet - 1).due
    upload(bucket, record(tmp_path / "second", (1, 2, 3)), "mine")
    assert not remote.look(2).due, "other entity tags"
    assert not remote.look(quiet - 1).due
    (due,) = remote.look(1).due
    assert remote.took(due.name).detail["accepted"] == 3
    upload(bucket, tmp_path / "second", "mine")
    assert not remote.look(quiet).due, "the same bytes again are no change"
    assert remote.state("mine") == "accepted"


def test_an_upload_that_broke_off_never_counts_as_quiet(
    remote: Site, bucket: Any, record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = record(tmp_path / "mine")
    with monkeypatch.context() as broken:
        original = remote.inbox._fs.put_file

        def fail(local: str, target: str, *rest: Any) -> None:
            if target.endswith("info.json"):
                raise ConnectionError("the network went away")
            original(local, target, *rest)

        broken.setattr(remote.inbox._fs, "put_file", fail)
        with pytest.raises(MachineError, match="cannot be written: the network went away"):
            land(mine, remote.inbox, name=None, said={})
    assert f"landing/mine/{UPLOADING}" in keys(bucket)
    remote.look()
    assert not remote.look(10 * remote.params.landing.quiet_seconds).due
    land(mine, remote.inbox, name=None, said={})
    (due,) = remote.look().due
    assert remote.took(due.name).state == "accepted"
    with pytest.raises(DataError, match="there is a dataset of this name"):
        land(mine, remote.inbox, name=None, said={})


def test_an_object_that_changes_while_it_is_read_gives_the_dataset_back(
    remote: Site, bucket: Any, record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(bucket, record(tmp_path / "mine"), "mine")
    remote.look()
    remote.look(remote.params.landing.quiet_seconds)
    fetch = remote.inbox.fetch

    def meanwhile(*arguments: Any) -> Any:
        yield from fetch(*arguments)
        bucket.put_object(Key="landing/mine/meta/stats.json", Body=json.dumps({"other": 1}).encode())

    with monkeypatch.context() as changing:
        changing.setattr(remote.inbox, "fetch", meanwhile)
        assert remote.take("mine") is None
    assert remote.state("mine") == "ready"
    assert not remote.look(60).due
    (due,) = remote.look(remote.params.landing.quiet_seconds).due
    assert remote.took(due.name).state == "accepted"


def test_a_wrong_marker_is_refused(remote: Site, bucket: Any, record: Record, tmp_path: Path) -> None:
    land(record(tmp_path / "mine"), remote.inbox, name=None, said={})
    bucket.put_object(Key="landing/mine/meta/info.json", Body=b"{}")
    assert remote.took(remote.look().due[0].name).state == "refused"
    (entry,) = remote.ledger.quarantined()
    assert (entry.checks, "meta/info.json has another content" in entry.reason) == ("marker", True)


def test_a_key_that_climbs_out_of_its_folder_is_refused(
    remote: Site, bucket: Any, record: Record, tmp_path: Path
) -> None:
    upload(bucket, record(tmp_path / "mine"), "mine")
    bucket.put_object(Key="landing/mine/meta/../../../../../escaped", Body=b"x")
    assert remote.settle()["mine"].state == "refused"
    (entry,) = remote.ledger.quarantined()
    assert (entry.checks, "leads out of the dataset" in entry.reason) == ("files", True)
    assert list(remote.paths.root.rglob("escaped")) == []


def test_an_empty_bucket_is_no_error_and_a_missing_one_is_once_something_landed(
    remote: Site, bucket: Any, record: Record, tmp_path: Path
) -> None:
    assert remote.look().due == []
    upload(bucket, record(tmp_path / "mine"), "mine")
    assert remote.settle()["mine"].state == "accepted"
    bucket.objects.all().delete()
    remote.look()
    assert remote.state("mine") == "gone"
    upload(bucket, tmp_path / "mine", "again")
    remote.look()
    remote.inbox = Inbox("s3://elsewhere/landing")
    with pytest.raises(MachineError, match="the landing folder has gone"):
        remote.look()
    assert remote.state("again") == "waiting"


def test_landing_in_a_bucket_that_is_not_there_makes_none(
    remote: Site, bucket: Any, record: Record, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="no such place to land"):
        land(record(tmp_path / "mine"), Inbox("s3://misspelt/landing"), name=None, said={})


def test_a_server_that_went_away_is_one_clear_error_and_nothing_is_forgotten(
    remote: Site, bucket: Any, record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(bucket, record(tmp_path / "mine"), "mine")
    remote.look()
    there = remote.inbox
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    remote.inbox = Inbox("s3://lab/landing")
    with pytest.raises(MachineError, match="the landing folder cannot be read"):
        remote.look()
    with pytest.raises(MachineError, match="the landing folder cannot be read"):
        land(tmp_path / "mine", remote.inbox, name="again", said={})
    remote.inbox = there
    assert remote.settle()["mine"].state == "accepted"
