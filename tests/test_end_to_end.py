"""The `ci` profile from nothing to its report, as a newcomer runs it: once through Dagster, once through DVC alone."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from world4rl.config import dump_params, load_profile
from world4rl.evaluation.metrics import read_summary
from world4rl.paths import Paths

ROOT = Path(__file__).resolve().parents[1]
PARAMS = load_profile("ci")
ONE, OTHER = PARAMS.tasks


class Project:
    """A copy of the repository's files, without anything that it made, on the `ci` profile.

    Args:
        root: Where to.
        source: Where from: this repository, or another copy.
    """

    def __init__(self, root: Path, source: Path = ROOT) -> None:
        self.root = root
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=source, capture_output=True
        )
        for name in listed.stdout.decode().split("\0"):
            if name and name != "dvc.lock" and (source / name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source / name, root / name)
        (root / "params.yaml").write_text(dump_params(PARAMS))
        subprocess.run(["git", "init", "-q"], cwd=root, check=True)

    def run(self, *command: str) -> str:
        """Runs a Python module in the copy, with the copy's code; returns what it printed."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("DAGSTER", "DVC"))}
        binaries = str(Path(sys.executable).parent)
        environment |= {"PYTHONPATH": str(self.root), "PATH": f"{binaries}{os.pathsep}{environment['PATH']}"}
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=self.root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-6000:]
        return done.stdout

    def change(self, **demonstrations: int) -> None:
        """Edits params.yaml: the number of demonstrations of a task."""
        file = self.root / "params.yaml"
        values = yaml.safe_load(file.read_text())
        for task, number in demonstrations.items():
            values["task_parameters"][task]["demonstrations"] = number
        file.write_text(yaml.safe_dump(values, sort_keys=False))

    def stages_to_run(self) -> set[str]:
        """Stages that DVC holds for changed themselves; what follows from them is not known before they ran."""
        return set(json.loads(self.run("dvc", "status", "--json")))

    def artefacts(self) -> dict[str, bytes]:
        """Every file that a stage made: records and pages about it come back with the lineage ref, not with DVC."""
        return {
            path.relative_to(self.root).as_posix(): path.read_bytes()
            for folder in ("data/raw", "data/landed", "data/store", "models", "reports")
            for path in (self.root / folder).rglob("*")
            if path.is_file() and "audit" not in path.relative_to(self.root).parts
        }


def check_results(project: Project) -> None:
    summary = read_summary(Paths(project.root).summary)
    assert set(summary.tasks) == {ONE, OTHER}
    for result in summary.tasks.values():
        assert result.bc.trials == result.refined.trials == PARAMS.evaluation.trials
    assert "<html" in Paths(project.root).report.read_text()
    runs = project.root / ".runs"
    known = {"logs", "notes", "recorded", runs.name}  # the last: digests of files, remembered
    left = [path for path in runs.rglob("*") if path.is_file() and path.parent.name not in known]
    assert left == []  # no trainer left its state behind


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_lineage_runs_through_dagster_and_through_dvc_alone(tmp_path: Path) -> None:
    dagster = Project(tmp_path / "dagster")
    output = dagster.run("pipelines.demo")
    assert "22 stages ran" in output
    check_results(dagster)

    assert "nothing had changed" in dagster.run("pipelines.demo")
    before = dagster.artefacts()
    assert dagster.run("dvc", "repro").rstrip().endswith("Data and pipelines are up to date.")

    # Everything comes back into a fresh clone, byte for byte, and nothing is left to do there.
    dagster.run("dvc", "remote", "add", "--local", "-d", "store", str(tmp_path / "store"))
    dagster.run("dvc", "push", "-q")
    clone = Project(tmp_path / "clone", dagster.root)
    shutil.copy(dagster.root / "dvc.lock", clone.root)
    assert clone.stages_to_run()  # the lock file alone takes nothing for done
    clone.run("world4rl", "manifests")  # as set-up does
    clone.run("dvc", "remote", "add", "--local", "-d", "store", str(tmp_path / "store"))
    clone.run("dvc", "pull", "-q")
    assert clone.artefacts() == before
    assert clone.run("dvc", "repro").rstrip().endswith("Data and pipelines are up to date.")

    # One task's parameter: the other task's data and policy stay.
    clone.change(**{OTHER: PARAMS.task_parameters[OTHER].demonstrations + 1})
    assert clone.stages_to_run() == {f"demos@{OTHER}", "report"}  # it prints every parameter
    output = clone.run("dvc", "repro", f"bc@{OTHER}", f"bc@{ONE}")
    assert set(re.findall("Running stage '(.*)'", output)) == {
        f"{step}@{OTHER}" for step in ("demos", "demo_store", "bc")
    }

    alone = Project(tmp_path / "alone", dagster.root)
    alone.run("world4rl", "manifests")
    output = alone.run("dvc", "repro")
    assert output.count("Running stage ") == 22
    check_results(alone)
    assert alone.run("dvc", "repro").rstrip().endswith("Data and pipelines are up to date.")
