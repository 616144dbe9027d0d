"""Which repository Git is asked about."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from world4rl.provenance.git import Git


def test_what_a_hook_of_another_repository_has_set_leads_nobody_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    for root in (own, other):
        subprocess.run(["git", "init", "-q", str(root)], check=True)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
    git = Git(own)
    assert git.run("rev-parse", "--absolute-git-dir").strip() == str((own / ".git").resolve())
    blob = git.store_bytes(b"kept here")
    assert (own / ".git" / "objects" / blob[:2] / blob[2:]).is_file()
    assert git.read(blob) == b"kept here"
    assert not (other / ".git" / "objects" / blob[:2]).exists()
