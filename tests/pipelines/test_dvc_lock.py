"""A `dvc.lock` that DVC was killed while writing: what comes back, what is refused, and that the lineage goes on."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assets.dvc_lock import LOCK, open_repo
from world4rl.errors import DataError
from world4rl.paths import Paths

WHOLE = b"""\
schema: '2.0'
stages:
  bc@soccer-v3:
    cmd: world4rl bc --task soccer-v3
    params:
      params.yaml:
        behaviour_cloning.learning_rate: 3e-05
    outs:
    - path: models/soccer-v3/bc
      hash: md5
      md5: 2e7e388ad9e37c48a2ceee4e09086ac6.dir
      size: 156
      nfiles: 2
"""
# What DVC does at the end of a stage, killed between emptying the file and the end of what it writes.
KILLED = """
import os, signal, sys
from dvc.utils.serialize import _yaml
from dvc.__main__ import main
written = _yaml._dump
def dump(data, stream):
    written(data, stream)
    if stream.name.endswith("dvc.lock"):
        stream.truncate(LENGTH)
        os.kill(os.getpid(), signal.SIGKILL)
_yaml._dump = dump
LENGTH = int(sys.argv.pop(1))
sys.exit(main())
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    Repo.init(str(root), no_scm=True).close()
    return root


def look(root: Path) -> bytes:
    open_repo(root).close()
    return (root / LOCK).read_bytes()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(length=st.integers(0, len(WHOLE) - 1))
def test_wherever_it_is_cut_the_state_before_comes_back_and_nothing_is_lost(project: Path, length: int) -> None:
    (project / LOCK).write_bytes(WHOLE)
    assert look(project) == WHOLE
    cut = WHOLE[:length]
    (project / LOCK).write_bytes(cut)
    found = look(project)
    if found == cut:  # it reads well and its last line is whole: DVC makes what is missing, or takes it from its cache
        assert cut.endswith(b"\n")
        assert b"bc@soccer-v3" in cut
    else:
        assert found == WHOLE
        assert Paths(project).kept_lock.with_name("dvc.lock.cut").read_bytes() == cut


def test_a_conflict_of_a_merge_is_somebodys_to_settle(project: Path) -> None:
    (project / LOCK).write_bytes(WHOLE)
    look(project)
    conflict = b"<<<<<<< ours\n" + WHOLE + b"=======\n" + WHOLE + b">>>>>>> theirs\n"
    (project / LOCK).write_bytes(conflict)
    with pytest.raises(DataError, match="not a DVC lock file") as caught:
        look(project)
    assert "restore it from git" in caught.value.remedy
    assert (project / LOCK).read_bytes() == conflict


def test_without_a_copy_it_is_refused_unless_only_the_last_newline_is_missing(project: Path) -> None:
    Paths(project).kept_lock.unlink(missing_ok=True)
    (project / LOCK).write_bytes(WHOLE[:-1])
    assert look(project) == WHOLE[:-1]
    (project / LOCK).write_bytes(WHOLE[:40])
    with pytest.raises(DataError, match="not a DVC lock file"):
        look(project)


def test_a_lock_file_that_somebody_removed_stays_away(project: Path) -> None:
    (project / LOCK).write_bytes(WHOLE)
    look(project)
    (project / LOCK).unlink()
    open_repo(project).close()
    assert not (project / LOCK).exists()


@pytest.mark.parametrize("length", [0, 700])
def test_the_lineage_goes_on_after_dvc_was_killed_while_it_wrote(toy: Any, length: int) -> None:
    task = toy.project.steps["landed"].stages[0].task
    first, second = f"landed@{task}", f"demos@{task}"
    assert toy.dvc("repro", first).returncode == 0
    assert toy.project.unchanged(toy.project.stages[first])
    kept = (toy.root / LOCK).read_bytes()
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(length), "repro", second], cwd=toy.root, env=os.environ, check=False
    )
    assert killed.returncode < 0
    assert (toy.root / LOCK).stat().st_size == length
    project = toy.project
    assert (toy.root / LOCK).read_bytes() == kept
    assert project.unchanged(project.stages[first])
    assert not project.unchanged(project.stages[second])
    assert toy.dvc("repro", second).returncode == 0
    assert toy.project.unchanged(toy.project.stages[second])
