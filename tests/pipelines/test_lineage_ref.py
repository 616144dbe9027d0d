"""The lineage in Git: a commit a change, nothing of the user's touched, every byte restored."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from assets.lineage_ref import commit_lineage, commit_of_record, push_lineage
from assets.recording import record_project
from world4rl.config import load_profile
from world4rl.errors import MachineError
from world4rl.files import write_json
from world4rl.paths import Paths
from world4rl.provenance.digests import digest_folder
from world4rl.provenance.git import LINEAGE
from world4rl.provenance.records import Chain, Run

ONE, OTHER = load_profile("ci").tasks


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Git without a user, whoever runs the tests."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "user.useConfigOnly")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "true")


@pytest.fixture(scope="module")
def recorded(make_toy, tmp_path_factory):
    """A project that has run and is recorded; nothing of it is committed."""
    toy = make_toy(tmp_path_factory.mktemp("recorded") / "project")
    result = toy.dvc("repro")
    assert result.returncode == 0, result.stderr
    assert all(kept for _, kept in record_project(toy.project))
    toy.ran()
    return toy


@pytest.fixture
def toy(recorded, make_copy, tmp_path):
    return make_copy(recorded, tmp_path / "toy")


@pytest.fixture
def committed(toy):
    """The same with a commit of the user's."""
    git(toy.root, "add", "-A")
    git(toy.root, "-c", "user.name=ada", "-c", "user.email=ada@example.org", "commit", "-qm", "begin")
    return toy


def own(root: Path) -> list[str]:
    """All that belongs to the user: branch, index, files."""
    return [
        git(root, "symbolic-ref", "HEAD"),
        git(root, "for-each-ref", "refs/heads", "refs/tags"),
        git(root, "ls-files", "--stage"),
        git(root, "status", "--porcelain"),
        git(root, "stash", "list"),
    ]


def files(root: Path, *folders: str) -> dict[str, bytes]:
    found = (path for folder in folders for path in (root / folder).rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


def promote(toy, task: str) -> Path:
    policy = toy.root / "models" / task / "refined"
    champion = Paths(toy.root).champions(task) / digest_folder(policy)[:16]
    shutil.copytree(policy, champion)
    return champion


def test_a_commit_restores_every_byte_in_another_clone(committed, tmp_path) -> None:
    toy = committed
    champion = promote(toy, ONE)
    toy.set("refinement/iterations", 99)  # the champion is no longer what the stage makes
    (toy.root / "toy_stage.py").write_text(
        (toy.root / "toy_stage.py").read_text().replace("0,0.5,0,0.1", "0,0.4,0,0.1")
    )
    assert toy.dvc("repro").returncode == 0
    toy.ran()
    list(record_project(toy.project))
    toy.dvc("remote", "add", "--local", "-d", "store", str(tmp_path / "store"))
    assert commit_lineage(toy.root)
    assert push_lineage(toy.root)
    before = files(toy.root, "data", "models", "reports", "keys")
    for name in ("dvc.lock", "params.yaml", "toy_stage.py"):
        before[name] = (toy.root / name).read_bytes()

    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(toy.root), str(clone))
    git(clone, "fetch", "-q", "origin", f"{LINEAGE}:{LINEAGE}")
    git(clone, "checkout", "-q", LINEAGE)
    shutil.rmtree(toy.root)
    copy = type(toy)(clone)
    copy.dvc("remote", "add", "--local", "-d", "store", str(tmp_path / "store"))
    pulled = copy.dvc("pull")
    assert pulled.returncode == 0, pulled.stderr
    assert champion.name in {path.name for path in Paths(clone).champions(ONE).iterdir()}
    after = files(clone, "data", "models", "reports", "keys")
    ours = {name: content for name, content in before.items() if not name.endswith(".lock") or name == "dvc.lock"}
    for name, content in ours.items():
        assert (clone / name).read_bytes() == content, name
    extra = {name for name in after if name not in before and not name.endswith(".gitignore")}
    assert not extra
    assert copy.dvc("repro").returncode == 0
    assert copy.ran() == []
    assert len(Chain(Paths(clone).records, (Run,)).read()) == len(list((clone / "data" / "records").glob("*.json")))


def test_nothing_of_the_users_is_touched_in_a_dirty_tree(committed) -> None:
    toy = committed
    (toy.root / "toy.yaml").write_text("note: false")
    git(toy.root, "add", "-f", "toy.yaml")
    (toy.root / "notes.txt").write_text("untracked")
    with (toy.root / "toy_stage.py").open("a") as file:
        file.write("# edited\n")
    before, index = own(toy.root), (toy.root / ".git" / "index").read_bytes()
    found = commit_lineage(toy.root, run="run-1", job="collect")
    assert found is not None
    assert own(toy.root) == before
    assert (toy.root / ".git" / "index").read_bytes() == index
    message = git(toy.root, "log", "-1", "--format=%B", LINEAGE)
    assert f"Head: {git(toy.root, 'rev-parse', 'HEAD')}" in message
    assert "Head-Dirty: true" in message
    assert "Dagster-Run: run-1" in message
    assert f"- stage bc@{ONE}" in message
    names = git(toy.root, "ls-tree", "-r", "--name-only", LINEAGE).splitlines()
    assert "notes.txt" not in names
    assert "toy.yaml" not in names
    assert {"toy_stage.py", "dvc.lock", "dvc.yaml", "params.yaml", ".gitignore"} <= set(names)


def test_nothing_changed_means_no_commit(committed) -> None:
    first = commit_lineage(committed.root)
    assert first is not None
    assert commit_lineage(committed.root) is None
    (committed.root / "readme.txt").write_text("the user goes on")
    git(committed.root, "add", "-A")
    git(committed.root, "-c", "user.name=ada", "-c", "user.email=ada@example.org", "commit", "-qm", "more")
    assert commit_lineage(committed.root) is None
    committed.set("refinement/iterations", 99)
    assert committed.dvc("repro").returncode == 0
    second = commit_lineage(committed.root)
    assert second is not None
    assert git(committed.root, "rev-parse", f"{LINEAGE}^") == first.commit
    changed = {what for what in second.changed if what.startswith("stage")}
    assert changed == {"stage report", f"stage refined@{ONE}", f"stage refined@{OTHER}"} | {
        what for what in changed if "evaluation" in what
    }


def test_in_a_detached_head(committed) -> None:
    git(committed.root, "checkout", "-q", "--detach")
    head = git(committed.root, "rev-parse", "HEAD")
    assert commit_lineage(committed.root)
    assert git(committed.root, "rev-parse", "HEAD") == head
    assert git(committed.root, "rev-parse", "--abbrev-ref", "HEAD") == "HEAD"


def test_in_a_repository_without_a_commit_or_a_user(toy, tmp_path) -> None:
    assert commit_lineage(toy.root)
    assert git(toy.root, "log", "-1", "--format=%an", LINEAGE) == "World4RL"
    assert subprocess.run(["git", "rev-parse", "--verify", "-q", "HEAD"], cwd=toy.root, check=False).returncode
    git(toy.root, "worktree", "add", "-q", "--detach", str(tmp_path / "tree"), LINEAGE)
    copy = type(toy)(tmp_path / "tree")
    copy.dvc("remote", "add", "--local", "-d", "here", str(toy.root / ".dvc" / "cache"))
    assert copy.dvc("pull").returncode == 0
    assert copy.dvc("repro").returncode == 0
    assert copy.ran() == []


def test_in_a_repository_whose_git_folder_calls_itself_bare(committed) -> None:
    git(committed.root, "config", "core.bare", "true")
    found = commit_lineage(committed.root)
    assert found is not None
    assert git(committed.root, "rev-parse", LINEAGE) == found.commit


def test_in_a_folder_of_a_larger_repository(recorded, make_copy, tmp_path) -> None:
    git(tmp_path, "init", "-q", "mono")
    toy = make_copy(recorded, tmp_path / "mono" / "robots" / "toy")
    shutil.rmtree(toy.root / ".git")
    (tmp_path / "mono" / "other.txt").write_text("x")
    git(tmp_path / "mono", "add", "other.txt")
    git(tmp_path / "mono", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "begin")
    assert commit_lineage(toy.root)
    names = git(tmp_path / "mono", "ls-tree", "-r", "--name-only", LINEAGE).splitlines()
    assert "robots/toy/dvc.lock" in names
    assert "other.txt" in names
    assert commit_lineage(toy.root) is None


def test_outside_a_repository_there_is_none(toy) -> None:
    shutil.rmtree(toy.root / ".git")
    assert commit_lineage(toy.root) is None


def test_before_anything_ran_there_is_none(make_toy, tmp_path) -> None:
    assert commit_lineage(make_toy(tmp_path / "fresh").root) is None


def test_a_manifest_waits_for_its_stage(committed) -> None:
    """A dataset that DVC does not know yet could not be pulled."""
    commit_lineage(committed.root)
    paths = Paths(committed.root)
    manifest = paths.manifest(ONE)
    before = manifest.read_bytes()
    write_json(paths.accepted / "feedfeedfeedfeed.json", {"id": "feedfeedfeedfeed"})
    text = before.decode().replace('"datasets": []', '"datasets": [{"id": "feedfeedfeedfeed"}]', 1)
    manifest.write_text(text)
    assert commit_lineage(committed.root) is None
    assert committed.dvc("repro", f"landed@{ONE}").returncode == 0
    assert commit_lineage(committed.root)
    names = git(committed.root, "ls-tree", "-r", "--name-only", LINEAGE).splitlines()
    assert "data/accepted/feedfeedfeedfeed.json" in names
    assert git(committed.root, "show", f"{LINEAGE}:data/manifests/{ONE}.json") == text.strip()


def test_what_is_written_once_stays_in_the_lineage_as_it_was(committed) -> None:
    commit_lineage(committed.root)
    record = sorted(Paths(committed.root).records.glob("*.json"))[0]
    before = record.read_text()
    record.write_text("forged")
    assert commit_lineage(committed.root) is None
    git(committed.root, "checkout", LINEAGE, "--", "data/records")
    assert record.read_text() == before


def test_the_first_commit_that_has_a_record_is_found(committed) -> None:
    first = commit_lineage(committed.root)
    assert first is not None
    record = sorted(Paths(committed.root).records.glob("*.json"))[0]
    committed.set("refinement/iterations", 99)
    assert committed.dvc("repro").returncode == 0
    list(record_project(committed.project))
    assert commit_lineage(committed.root)
    assert commit_of_record(committed.root, record.name) == first.commit
    assert commit_of_record(committed.root, "00000099-0000000000000000.json") is None


def test_writers_at_once_lose_nothing(committed) -> None:
    script = "import sys; from pathlib import Path; from assets.lineage_ref import commit_lineage; "
    script += "commit_lineage(Path(sys.argv[1]))"
    both = [subprocess.Popen([sys.executable, "-c", script, str(committed.root)]) for _ in range(3)]
    assert [process.wait(timeout=100) for process in both] == [0, 0, 0]
    assert git(committed.root, "rev-list", "--count", LINEAGE) == "1"
    assert commit_lineage(committed.root) is None


def test_a_remote_that_is_away_is_one_clear_error_and_loses_nothing(committed, tmp_path) -> None:
    assert commit_lineage(committed.root)
    assert not push_lineage(committed.root), "there is no remote"
    (tmp_path / "file").write_text("no folder")
    committed.dvc("remote", "add", "--local", "-d", "store", str(tmp_path / "file" / "store"))
    with pytest.raises(MachineError, match="world4rl lineage"):
        push_lineage(committed.root)
    committed.dvc("remote", "modify", "--local", "store", "url", str(tmp_path / "store"))
    assert push_lineage(committed.root)


def test_a_remote_whose_committed_address_is_relative_is_the_one_that_gets_the_files(committed, tmp_path) -> None:
    committed.dvc("remote", "add", "-d", "store", "../store")
    assert commit_lineage(committed.root)
    assert push_lineage(committed.root)
    assert list((tmp_path / "store" / "files" / "md5").rglob("*"))
    missing = committed.dvc("status", "--cloud", "--json")
    assert (missing.returncode, missing.stdout.strip()) == (0, "{}"), missing.stderr
