"""Random histories of a landing folder: whatever happens, each dataset is handled once, none is lost, none doubled."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.landing.conftest import TASK, Site, make_episode
from tests.spoiling import cell, missing, rows
from world4rl.config import Params
from world4rl.demos.recording import Recording, write_dataset
from world4rl.demos.survey import survey
from world4rl.landing import take as taking
from world4rl.landing.door import door_options
from world4rl.landing.ledger import SETTLED, Ledger
from world4rl.landing.marker import MARKER, mark
from world4rl.provenance.manifests import build_manifest, read_acceptances, read_manifest
from world4rl.provenance.statement import Statement

NEW_TASK = "reach-v3"
NAMES = ("a", "b", "c")
STEPS = ("_fetch", "examine", "_accept", "write_acceptance", "write_manifests", "keep_pictures")
SEEDS = {"pair": (1, 2), "overlap": (2, 3), "single": (4,), "bounds": (5, 6), "unknown": (7,), "broken": (8,)}


@cache
def contents() -> dict[str, Path]:
    """The datasets that may land: two that share an episode, one with an action out of bounds, one broken, ..."""
    folder = Path(mkdtemp(prefix="contents-"))
    for name, seeds in SEEDS.items():
        task = NEW_TASK if name == "unknown" else TASK
        how = Recording(task, "corner2", 16, ("x", "y", "z", "grip"), ("dx", "dy", "dz", "grip"), {"source": "expert"})
        write_dataset(folder / name, [("train", make_episode(s, 6)) for s in seeds], how, image_size=(24, 24))
    rows("action", cell(8, [0.0, 1.5, 0.0, 0.0]))(folder / "bounds")
    missing("meta/info.json")(folder / "broken")
    return {name: folder / name for name in SEEDS}


@cache
def digests() -> dict[str, frozenset[str]]:
    """The digests of every episode that could be accepted, by content; `released` is the one out of bounds."""
    site = Site(Path(mkdtemp(prefix="digests-")))
    options = door_options(site.params, Statement())
    found = {
        name: frozenset(e.digest for e in survey(path, options, {}).episodes)
        for name, path in contents().items()
        if name != "broken"
    }
    waived = door_options(site.params, Statement(), {1: frozenset({"out_of_bounds"})})
    everything = {e.digest for e in survey(contents()["bounds"], waived, {}).episodes}
    return {**found, "broken": frozenset(), "released": frozenset(everything - found["bounds"])}


class Folder(RuleBasedStateMachine):
    """People copy, rename and remove; a sensor looks; runs take, and die anywhere; Dagster starts one run a key."""

    def __init__(self) -> None:
        super().__init__()
        self.site = Site(Path(mkdtemp(prefix="history-")))
        self.holds: dict[str, str] = {}  # content by folder; "part" while it is on its way
        self.pending: dict[str, str] = {}  # datasets by the key of a run that was asked for and has not begun
        self.ended: set[str] = set()
        self.unclaimed: set[str] = set()  # keys of runs that died before they took anything
        self.reached: set[str] = set()  # contents that may have been read

    def teardown(self) -> None:
        self.settle()
        shutil.rmtree(self.site.folder.parent, ignore_errors=True)

    # people

    @rule(name=st.sampled_from(NAMES), content=st.sampled_from(sorted(SEEDS)), marked=st.booleans())
    def land(self, name: str, content: str, marked: bool) -> None:
        """The same again, another one under an old name, or a new one."""
        folder = self.site.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(contents()[content], folder)
        if marked:
            (folder / MARKER).write_text(mark(folder).model_dump_json())
        self.holds[name] = content
        self.look(0.0 if marked else 130.0)

    @rule(name=st.sampled_from(NAMES), content=st.sampled_from(sorted(SEEDS)))
    def copy_slowly(self, name: str, content: str) -> None:
        """First the metadata; the data come late."""
        folder = self.site.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(contents()[content] / "meta", folder / "meta")
        self.holds[name] = f"part of {content}"

    @precondition(lambda self: any(content.startswith("part of ") for content in self.holds.values()))
    @rule()
    def finish_copy(self) -> None:
        name = next(name for name, content in self.holds.items() if content.startswith("part of "))
        self.holds[name] = self.holds[name].removeprefix("part of ")
        shutil.copytree(contents()[self.holds[name]] / "data", self.site.folder / name / "data")

    @precondition(lambda self: 0 < len(self.holds) < len(NAMES))
    @rule(data=st.data())
    def rename(self, data: Any) -> None:
        old = data.draw(st.sampled_from(sorted(self.holds)))
        new = data.draw(st.sampled_from(sorted(set(NAMES) - self.holds.keys())))
        (self.site.folder / old).rename(self.site.folder / new)
        self.holds[new] = self.holds.pop(old)

    @precondition(lambda self: self.holds)
    @rule(data=st.data())
    def remove(self, data: Any) -> None:
        name = data.draw(st.sampled_from(sorted(self.holds)))
        shutil.rmtree(self.site.folder / name)
        del self.holds[name]

    @precondition(lambda self: NEW_TASK not in self.site.params.tasks)
    @rule()
    def add_task(self) -> None:
        values = self.site.params.model_dump()
        values["tasks"] = [*values["tasks"], NEW_TASK]
        values["task_parameters"][NEW_TASK] = {}
        self.site.params = Params.model_validate(values)

    def releasable(self) -> list[int]:
        """Entries that somebody may release now."""
        busy = [entry for entry in self.site.ledger.entries().values() if entry.state == "taking"]
        taken = {entry.digest for entry in busy} | {entry.name for entry in busy}
        return [
            entry.number
            for entry in self.site.ledger.quarantined()
            if entry.released is None and entry.checks == "out_of_bounds" and not taken & {entry.digest, entry.name}
        ]

    @precondition(lambda self: self.releasable())
    @rule()
    def release(self) -> None:
        self.site.ledger.release(self.releasable()[0], by="ada", because="it is fine", now=self.site.now)

    # machines

    @rule(seconds=st.sampled_from([-5000.0, 10.0, 130.0, 130.0, 2000.0, 2000.0]))
    def look(self, seconds: float) -> None:
        for entry in self.site.look(seconds).due:
            if entry.key in self.unclaimed:
                self.site.ledger.give_back(entry.name, self.site.now, "its run died", "ready")
            elif entry.key not in self.pending:
                assert entry.key not in self.ended, f"no second run is started for the key {entry.key}"
                self.pending[entry.key] = entry.name

    @precondition(lambda self: self.pending)
    @rule(data=st.data())
    def run(self, data: Any) -> None:
        self._run(data.draw(st.sampled_from(sorted(self.pending))))

    @precondition(lambda self: self.pending)
    @rule(data=st.data(), step=st.sampled_from(["start", *STEPS]), after=st.booleans())
    def run_and_die(self, data: Any, step: str, after: bool) -> None:
        key = data.draw(st.sampled_from(sorted(self.pending)))
        if step == "start":
            self.pending.pop(key)
            self.ended.add(key)
            self.unclaimed.add(key)
            return
        with dying(step, after):
            self._run(key)

    @precondition(lambda self: len(set(self.pending.values())) > 1)
    @rule()
    def run_two_at_once(self) -> None:
        """The second one begins and ends while the first one has read its dataset and not decided yet."""
        first, second = list({name: key for key, name in self.pending.items()}.values())[:2]
        original, met = taking.examine, []

        def meanwhile(*arguments: Any) -> Any:
            result = original(*arguments)
            if not met:
                met.append(True)
                self._run(second)
            return result

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(taking, "examine", meanwhile)
            self._run(first)

    @rule()
    def restart(self) -> None:
        self.site.ledger.close()
        self.site.ledger = Ledger(self.site.paths.ledger)

    def _run(self, key: str) -> None:
        name = self.pending.pop(key)
        self.ended.add(key)
        self.reached.add(self.holds.get(name, ""))
        try:
            self.site.take(name, key)
        except SystemExit:
            self.site.dead.add(key)

    # what must hold

    @invariant()
    def no_episode_is_accepted_twice(self) -> None:
        accepted = [each.digest for one in read_acceptances(self.site.paths) for each in one.episodes]
        assert len(set(accepted)) == len(accepted)

    @invariant()
    def what_is_accepted_is_there_whole(self) -> None:
        for one in read_acceptances(self.site.paths):
            for task in {each.task for each in one.episodes}:
                assert mark(self.site.paths.landed(task, "expert") / one.id).digest == one.digest

    @invariant()
    def the_ledger_agrees_with_the_records(self) -> None:
        entries = self.site.ledger.entries().values()
        records = {one.digest for one in read_acceptances(self.site.paths)}
        assert {entry.digest for entry in entries if entry.state == "accepted"} <= records
        if all(entry.state != "taking" for entry in entries):
            self.manifests_follow_from_the_records()

    def manifests_follow_from_the_records(self) -> None:
        records = read_acceptances(self.site.paths)
        for task in self.site.params.tasks if records else ():
            if self.site.paths.manifest(task).exists() or any(e.task == task for one in records for e in one.episodes):
                assert read_manifest(self.site.paths.manifest(task)) == build_manifest(task, records)

    def settle(self) -> None:
        """Left alone, everything comes to its end."""
        for _ in range(8):
            self.look(2000.0)
            for key in sorted(self.pending):
                self._run(key)
        entries = self.site.ledger.entries()
        records = read_acceptances(self.site.paths)
        accepted = {each.digest for one in records for each in one.episodes}
        known = digests()
        for name, content in self.holds.items():
            state = entries[name].state
            assert state in SETTLED, f"{name} with {content} is {state}"
            if content.startswith("part of ") or content == "broken":
                assert state == "refused"
            elif content == "unknown" and NEW_TASK not in self.site.params.tasks:
                assert state == "held"
            else:
                assert state in ("accepted", "known")
                assert known[content] <= accepted, f"episodes of {content} are lost"
        possible = frozenset().union(*(known[content] for content in self.reached if content in known))
        assert accepted <= possible | known["released"]
        released = {entry.digest for entry in self.site.ledger.quarantined() if entry.released is not None}
        assert bool(accepted & known["released"]) <= bool(released)
        for name, content in self.holds.items():
            if content == "bounds" and entries[name].digest in released:
                assert known["released"] <= accepted, "somebody answered for it"
        assert all(entries[name].state == "gone" for name in entries.keys() - self.holds.keys())
        self.manifests_follow_from_the_records()

    @initialize()
    def begin(self) -> None:
        contents(), digests()


@contextmanager
def dying(step: str, after: bool) -> Any:
    """A run that is killed before or after a step."""
    original: Callable[..., Any] = getattr(taking, step)

    def die(*arguments: Any) -> Any:
        if after:
            original(*arguments)
        raise SystemExit

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(taking, step, die)
        yield


TestHistories = Folder.TestCase
TestHistories.settings = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
)
