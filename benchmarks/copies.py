"""Working copies of this repository's commit, in which a benchmark runs the lineage without touching anybody's own."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

from world4rl.errors import DataError

# What a result depends on: a commit that changes none of these leaves finished results as they are.
CODE = ("assets", "pipelines", "world4rl", "lerobot_policy_world4rl", "dvc.yaml", "params.yaml", "requirements.lock")


def committed_code(root: Path) -> str:
    """A digest of the committed code that a result depends on.

    Raises:
        DataError: the working tree differs from it.
    """
    changed = git(root, "status", "--porcelain", "--", *CODE)
    if changed:
        raise DataError(
            f"the benchmark runs what is committed, and these files differ from it:\n{changed}",
            where=root,
            remedy="commit or stash them",
        )
    return hashlib.sha256(git(root, "ls-tree", "HEAD", "--", *CODE).encode()).hexdigest()[:16]


def check_out(root: Path, copy: Path) -> None:
    """Brings a clone to this repository's commit; what was made in it stays."""
    if not (copy / ".git").exists():
        git(root, "clone", "--quiet", "--no-checkout", str(root), str(copy))
    else:
        git(copy, "fetch", "--quiet", str(root), "HEAD")
    git(copy, "checkout", "--quiet", "--force", "--detach", git(root, "rev-parse", "HEAD"))


def environment(copy: Path) -> dict[str, str]:
    """Variables for programs that shall run a copy's code."""
    found = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
    # The environment's installation points at the main working tree: the copy must come before it.
    found["PYTHONPATH"] = str(copy)
    return found


def git(folder: Path, *arguments: str) -> str:
    """What a Git command prints.

    Raises:
        DataError: it fails.
    """
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise DataError(
            f"`git {' '.join(arguments[:2])}` failed: {done.stderr.strip()}",
            where=folder,
            remedy="the benchmark needs a git checkout of the repository",
        )
    return done.stdout.strip()
