"""A project of the same shape whose stages take milliseconds, so that what is tested is the orchestration."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from fsspec.implementations.memory import MemoryFileSystem

from assets.dvc_project import DvcProject
from world4rl.config import dump_params, load_profile
from world4rl.paths import Paths
from world4rl.provenance.manifests import write_manifests

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent


@dataclass
class Toy:
    """A copy of `dvc.yaml` in a folder of its own; `toy_stage.py` stands in for every stage."""

    root: Path

    @property
    def project(self) -> DvcProject:
        return DvcProject(self.root)

    def ran(self) -> list[str]:
        """Stages that ran since the last call, in order."""
        file = self.root / "ran.txt"
        lines = file.read_text().split() if file.exists() else []
        file.unlink(missing_ok=True)
        return lines

    def wish(self, **wishes: object) -> None:
        """What the stages shall do besides: `sleep={step: seconds}`, `fail=[step]`."""
        (self.root / "toy.yaml").write_text(yaml.safe_dump(wishes))

    def set(self, path: str, value: object) -> None:
        """Edits params.yaml."""
        file = self.root / "params.yaml"
        values = yaml.safe_load(file.read_text())
        *parents, last = path.split("/")
        place = values
        for key in parents:
            place = place[key]
        place[last] = value
        file.write_text(yaml.safe_dump(values, sort_keys=False))

    def dvc(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "dvc", *arguments], cwd=self.root, text=True, capture_output=True, check=False
        )


# Where Dagster's processes find the project's definitions, which are those of this repository.
DEFINITIONS = """\
import sys
from pathlib import Path

from pipelines.definitions import build_defs

defs = build_defs(root=Path(__file__).resolve().parent, challenge=(sys.executable, "challenge.py"))
"""
WORKSPACE = {"load_from": [{"python_file": {"relative_path": "definitions.py", "location_name": "world4rl"}}]}


def build_toy(root: Path, challenge: Path = HERE / "toy_challenge.py") -> Toy:
    """Makes the project in a new folder.

    Args:
        root: The folder.
        challenge: A script that stands in for `world4rl challenge`.
    """
    root.mkdir(parents=True)
    definition = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    for name, stage in definition["stages"].items():
        task = " ${item.task}" if "matrix" in stage else ""
        stage["cmd"] = f"{sys.executable} toy_stage.py {name}{task}"
        stage["deps"] = ["toy_stage.py", *(dep for dep in stage["deps"] if not dep.startswith("world4rl/"))]
    (root / "dvc.yaml").write_text(yaml.safe_dump(definition, sort_keys=False))
    params = load_profile("ci")
    (root / "params.yaml").write_text(dump_params(params))
    write_manifests(params.tasks, Paths(root))
    (root / "definitions.py").write_text(DEFINITIONS)
    (root / "workspace.yaml").write_text(yaml.safe_dump(WORKSPACE))
    shutil.copy(HERE / "toy_stage.py", root)
    shutil.copy(challenge, root / "challenge.py")
    shutil.copy(ROOT / ".gitignore", root)
    shutil.copytree(ROOT / ".dvc", root / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp", "config.local"))
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    return Toy(root)


@pytest.fixture(autouse=True)
def _no_staging_left() -> Iterator[None]:
    """DVC stages folders in a process-wide file system in memory, which gets slower with each that it holds."""
    yield
    MemoryFileSystem.store.clear()


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return build_toy(tmp_path / "project")


@pytest.fixture(scope="session")
def make_toy():
    return build_toy


@pytest.fixture(scope="session")
def make_copy():
    def copy(toy: Toy, root: Path) -> Toy:
        shutil.copytree(toy.root, root, symlinks=True)
        return Toy(root)

    return copy
