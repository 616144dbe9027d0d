"""`world4rl withdraw` as people and machines use it, and a remote that is no folder."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from assets.auditing import pages
from assets.commands import add
from assets.dvc_project import DvcProject
from assets.withdrawing import Request
from tests.withdrawal.conftest import ADA, BOB, TASK, Lab
from world4rl.audit.book import read_book
from world4rl.audit.verify import verify
from world4rl.audit.versions import history_of
from world4rl.errors import ConfigError, MachineError
from world4rl.provenance.decisions import Decisions
from world4rl.provenance.git import LINEAGE


def run(lab: Lab, *arguments: str) -> str:
    app = typer.Typer()
    app.callback()(lambda: None)
    add(app)
    done = CliRunner().invoke(app, ["withdraw", "--root", str(lab.root), *arguments])
    if done.exception is not None:
        raise done.exception
    return done.stdout


def test_a_look_then_the_deed(lab: Lab) -> None:
    before = lab.snapshot()
    said = run(lab, "--operator", ADA)
    assert "nothing was changed" in said
    assert "episodes to withdraw: 4" in said
    assert "objects that leave store" in said
    assert f"demo_store@{TASK}" in said
    assert "unless --also-landing is given): first, second, third" in said
    plan = json.loads(run(lab, "--operator", ADA, "--json"))
    assert {found["id"] for found in plan["datasets"]} == {one.id for one in lab.accepted().values()}
    with pytest.raises(ConfigError, match="who withdraws, and why"):
        run(lab, "--operator", ADA, "--yes")
    assert lab.snapshot() == before

    said = run(lab, "--operator", ADA, "--yes", "--by", "registrar", "--because", "letter of 3 May", "--retrain")
    assert said.endswith("done\n")
    (record,) = Decisions(lab.paths).read()
    assert (record.predicate.by, record.predicate.because) == ("registrar", "letter of 3 May")
    (rest,) = lab.accepted().values()
    assert rest.statement.operator == BOB
    assert {path.name for path in lab.paths.store(TASK, "expert").iterdir()} == {"collected", rest.id}
    book = read_book(lab.paths)
    assert {one.predicate.stage for one in book.runs} >= {f"landed@{TASK}", f"bc@{TASK}"}, "what ran is on record"
    found = verify(book, history_of(book))
    assert not found.faults
    assert not found.data["differences"]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of an S3 server with a bucket `data`."""
    import boto3
    from moto.server import ThreadedMotoServer

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    boto3.client("s3", endpoint_url=address).create_bucket(Bucket="data")
    yield address
    server.stop()


@pytest.mark.live
def test_objects_leave_an_s3_remote_too(lab: Lab, bucket: str) -> None:
    lab.dvc("remote", "add", "-q", "cloud", "s3://data/world4rl")
    lab.dvc("remote", "modify", "-q", "cloud", "endpointurl", bucket)
    assert [found.storage for found in lab.plan(Request(operator=ADA)).objects] == ["cache", "store"], "empty so far"
    lab.dvc("push", "-q", "-r", "cloud")
    there = {found.storage: set(found.bytes) for found in lab.plan(Request(operator=ADA)).objects}
    assert there["cloud"] == there["store"]
    lab.withdraw(Request(operator=ADA))
    assert lab.plan(Request()).empty
    lab.dvc("remote", "modify", "-q", "cloud", "url", "s3://elsewhere/world4rl")
    with pytest.raises(MachineError, match="the remote cloud cannot be reached"):
        lab.plan(Request())


def git(lab: Lab, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=lab.root, text=True, capture_output=True, check=True).stdout


def files(root: Path, *folders: str) -> dict[str, bytes]:
    found = (path for folder in folders for path in (root / folder).rglob("[!.]*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


def pulled(lab: Lab, tree: Path) -> dict[str, bytes]:
    """What `dvc pull` brings back of the newest state of the lineage, where nothing else is."""
    git(lab, "worktree", "add", "-q", str(tree), LINEAGE)
    Lab(tree).dvc("remote", "add", "-q", "-f", "--local", "-d", "store", str(lab.remote))
    subprocess.run([sys.executable, "-m", "dvc", "pull", "-q"], cwd=tree, capture_output=True, check=False)
    return files(tree, "data/landed", "data/store", "models", "reports/fidelity")


def test_the_state_after_it_comes_back_whether_or_not_it_was_trained_again(lab: Lab, tmp_path: Path) -> None:
    run(lab, "--operator", ADA, "--yes", "--by", "registrar", "--because", "letter of 3 May")
    assert f"demo_store@{TASK}" not in git(lab, "show", f"{LINEAGE}:dvc.lock"), "its bytes are gone"
    assert pulled(lab, tmp_path / "before") == files(lab.root, "data/landed", "models"), "models were not asked for"

    run(lab, "--yes", "--retrain")
    there = files(lab.root, "data/landed", "data/store", "models", "reports/fidelity")
    assert len(there) > len(files(lab.root, "data/landed", "models"))
    assert pulled(lab, tmp_path / "after") == there


def test_pictures_and_pages_in_the_workspace_forget_them_too(recorded: Lab) -> None:
    lab = recorded
    for stage in (f"bc@{TASK}", "fidelity"):
        pages(lab.paths, DvcProject(lab.root).stages[stage])
    assert ADA in lab.paths.audit(f"bc@{TASK}").read_text()
    assert str(lab.paths.fidelity) in run(lab, "--operator", ADA)
    run(lab, "--operator", ADA, "--yes", "--by", "registrar", "--because", "letter of 3 May")
    assert not lab.paths.fidelity.exists(), "its film strips show her"
    assert lab.paths.bc(TASK).exists()
    page = lab.paths.audit(f"bc@{TASK}").read_text()
    assert ADA not in page
    assert BOB in page
