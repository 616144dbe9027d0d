"""A small repository under DVC with a remote: two people's datasets have landed, been stored and trained on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from assets.purge import Storages
from assets.withdrawing import Plan, Request, Withdrawals
from tests.landing.conftest import TASK, Site, make_episode
from world4rl.config import dump_params, load_profile
from world4rl.demos.recording import Recording, write_dataset
from world4rl.landing.deposit import land
from world4rl.paths import Paths
from world4rl.provenance import keys
from world4rl.provenance.digests import digest_file, digest_folder
from world4rl.provenance.episodes import EpisodeSet, MemberEpisode, write_episode_set
from world4rl.provenance.manifests import Acceptance, read_acceptances
from world4rl.provenance.records import GENESIS, Chain, Code, Run, subject

HERE = Path(__file__).parent
ADA, BOB = "Ada Lovelace", "Robert Boole"
ROLES = ("expert", "policy", "random", "evaluation")
DEFINITION = {
    "stages": {
        "landed": {
            "matrix": {"task": [TASK]},
            "cmd": f"{sys.executable} small_stage.py landed ${{item.task}}",
            "deps": ["data/manifests/${item.task}.json"],
            "outs": [{f"data/landed/${{item.task}}/{role}": {"persist": True}} for role in ROLES],
            "metrics": ["reports/data/${item.task}/landed.json"],
        },
        "demo_store": {
            "matrix": {"task": [TASK]},
            "cmd": f"{sys.executable} small_stage.py demo_store ${{item.task}}",
            "deps": ["data/raw/${item.task}/expert", "data/landed/${item.task}/expert"],
            "outs": [{"data/store/${item.task}/expert": {"persist": True}}],
            "metrics": ["reports/data/${item.task}/expert.json"],
        },
        "bc": {
            "matrix": {"task": [TASK]},
            "cmd": f"{sys.executable} small_stage.py bc ${{item.task}}",
            "deps": ["data/store/${item.task}/expert"],
            "outs": ["models/${item.task}/bc"],
        },
        "fidelity": {
            "cmd": f"{sys.executable} small_stage.py fidelity",
            "deps": ["data/store"],
            "outs": ["reports/fidelity"],
        },
    }
}


@dataclass
class Lab:
    """The repository and what a test asks of it."""

    root: Path

    @property
    def paths(self) -> Paths:
        return Paths(self.root)

    @property
    def remote(self) -> Path:
        return self.root.parent / "remote"

    def dvc(self, *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *arguments], cwd=self.root, text=True, capture_output=True, check=False
        )
        assert not done.returncode, done.stderr

    def accepted(self) -> dict[str, Acceptance]:
        return {one.name: one for one in read_acceptances(self.paths)}

    def plan(self, request: Request) -> Plan:
        withdrawals = Withdrawals(self.root)
        try:
            return withdrawals.plan(request)
        finally:
            withdrawals.close()

    def withdraw(self, request: Request) -> Plan:
        withdrawals = Withdrawals(self.root)
        try:
            plan = withdrawals.plan(request)
            withdrawals.carry_out(request, plan, by="registrar", because="consent was withdrawn")
            return plan
        finally:
            withdrawals.close()

    def objects(self) -> dict[str, set[str]]:
        """MD5s in cache and remote."""
        places = {"cache": self.root / ".dvc" / "cache" / "files" / "md5", "remote": self.remote / "files" / "md5"}
        return {name: {path.parent.name + path.name for path in place.glob("??/*")} for name, place in places.items()}

    def snapshot(self) -> dict[str, str]:
        """Every file of repository and remote but DVC's own scratch files and the locks."""
        found = {}
        for path in sorted(self.root.parent.rglob("*")):
            name = path.relative_to(self.root.parent).as_posix()
            if path.is_file() and "/.dvc/tmp/" not in name and not name.endswith((".lock", "lock", "-shm", "-wal")):
                found[name] = digest_file(path)
        return found

    def pictures(self) -> set[bytes]:
        """Every picture in any Parquet file or object, wherever it lies."""
        found: set[bytes] = set()
        for path in self.root.parent.rglob("*"):
            if path.is_file() and path.read_bytes()[:4] == b"PAR1":
                table = pq.read_table(path)
                for name in (name for name in table.schema.names if name.startswith("observation.images")):
                    found |= {one["bytes"] for one in table[name].to_pylist()}
        return found


def pictures_of(seed: int) -> set[bytes]:
    from world4rl.demos.recording import encode_png

    return {encode_png(frame) for frame in make_episode(seed).frames}


def write(target: Path, seeds: tuple[int, ...]) -> Path:
    recording = Recording(TASK, "corner2", 16, ("x", "y", "z", "g"), ("x", "y", "z", "g"), {"source": "expert"})
    write_dataset(target, [("train", make_episode(seed)) for seed in seeds], recording, image_size=(24, 24))
    return target


@pytest.fixture(scope="session")
def lab_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("lab")
    site = Site(place / "root")
    root = site.paths.root
    site.params = load_profile("ci")
    for name, operator, seeds in (("first", ADA, (1, 2, 3)), ("second", ADA, (4,)), ("third", BOB, (5, 6, 1))):
        land(write(place / "made" / name, seeds), site.inbox, name=name, said={"operator": operator, "task": TASK})
        for entry in site.look(1).due:
            site.took(entry.name)
    shutil.rmtree(place / "made")
    site.ledger.close()
    write(site.paths.raw(TASK, "expert"), (100, 101))
    (root / "dvc.yaml").write_text(yaml.safe_dump(DEFINITION, sort_keys=False))
    (root / "params.yaml").write_text(dump_params(load_profile("ci")))
    shutil.copy(HERE / "small_stage.py", root)
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    lab = Lab(root)
    lab.remote.mkdir()
    lab.dvc("init", "-q")
    lab.dvc("config", "core.analytics", "false")
    lab.dvc("remote", "add", "-q", "-d", "store", "../remote")
    lab.dvc("repro", "-q")
    lab.dvc("push", "-q")
    keys.make_keys(place / "private.pem", site.paths.trusted_keys / "registrar.pem")
    return place


@pytest.fixture
def lab(lab_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    place = Path(shutil.copytree(lab_template, tmp_path / "lab", symlinks=True))
    monkeypatch.setenv("WORLD4RL_SIGNING_KEY", str(place / "private.pem"))
    monkeypatch.setattr(Storages, "run", run_here)
    return Lab(place / "root")


def run_here(self: Storages, *arguments: str) -> None:
    """DVC in this process: its imports take longer than its work."""
    from dvc.cli import main

    before = Path.cwd()
    os.chdir(self.root)
    try:
        assert main([*arguments, "-q"]) == 0
    finally:
        os.chdir(before)


def run_record(
    lab: Lab,
    stage: str,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    sets: dict[str, tuple[str, ...]] | None = None,
) -> None:
    """The record of a stage, about what lies there now."""
    versions = {path: subject(path, digest_folder(lab.root / path)) for path in (*inputs, *outputs)}
    run = Run(
        previous=GENESIS,
        stage=stage,
        command=f"world4rl {stage}",
        inputs=tuple(versions[path] for path in inputs),
        outputs=tuple(versions[path] for path in outputs),
        episodes=sets or {},
        parameters={},
        code=Code(commit=None, dirty=False, digest="0" * 64, lock=None),
        machine={},
        began="2026-01-01T00:00:00+00:00",
        ended="2026-01-01T00:00:01+00:00",
        metrics={},
        orchestrator=None,
    )
    Chain(lab.paths.records, [Run]).append(run.outputs, run)


@pytest.fixture
def recorded(lab: Lab) -> Lab:
    """The lab, with run records of all that it made."""
    store, model = f"data/store/{TASK}/expert", f"models/{TASK}/bc"
    sets = []
    for one in lab.accepted().values():
        members = tuple(
            MemberEpisode(
                episode=episode.episode,
                digest=f"{episode.digest[::-1]}",  # another one than at the door, as for pictures of another size
                task=TASK,
                length=episode.length,
                success=episode.success,
                split="train",
            )
            for episode in one.episodes
        )
        sets.append(write_episode_set(EpisodeSet(dataset=one.id, statement=one.statement, episodes=members), lab.paths))
    run_record(lab, f"demo_store@{TASK}", (), (store,), {store: tuple(sets)})
    run_record(lab, f"bc@{TASK}", (store,), (model,))
    run_record(lab, "fidelity", ("data/store",), ("reports/fidelity",))
    return lab
