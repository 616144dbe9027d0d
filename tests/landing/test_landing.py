"""What becomes of datasets in the landing folder: each handled once and recorded, none lost, none doubled."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.landing.conftest import OTHER, TASK, Site
from world4rl.errors import ConfigError, DataError, MachineError
from world4rl.landing import take as taking
from world4rl.landing.deposit import land
from world4rl.landing.inbox import UPLOADING, Inbox
from world4rl.landing.marker import MARKER, mark
from world4rl.provenance.manifests import build_manifest, read_acceptances, read_manifest

Record = Callable[..., Path]


def episodes(site: Site, role: Any = "expert", task: str = TASK) -> int:
    return len(read_manifest(site.paths.manifest(task)).roles[role].episodes)


def test_a_marked_dataset_is_taken_at_once_and_becomes_data_of_its_task(
    site: Site, record: Record, tmp_path: Path
) -> None:
    said = {"operator": "op-7", "consent": "research", "source": "expert"}
    land(record(tmp_path / "mine"), site.inbox, name=None, said=said)
    (due,) = site.look().due
    taken = site.took(due.name)
    assert taken.acceptance is not None
    assert taken.state == site.state("mine") == "accepted"
    assert taken.manifests == tuple(site.params.tasks), "those of the tasks did not exist before"
    (dataset,) = read_manifest(site.paths.manifest(TASK)).roles["expert"].datasets
    assert (dataset.statement.operator, dataset.statement.consent) == ("op-7", "research")
    assert [episode.episode for episode in dataset.episodes] == [0, 1]
    assert (site.paths.landed(TASK, "expert") / dataset.id / "meta" / "info.json").is_file()
    assert [event.state for event in site.ledger.events("mine")] == ["waiting", "ready", "taking", "accepted"]
    assert site.look(10).due == []


def test_without_a_marker_nothing_may_change_for_the_quiet_period(site: Site, record: Record) -> None:
    folder = record(site.folder / "copied")
    quiet = site.params.landing.quiet_seconds
    assert not site.look().due
    assert not site.look(quiet - 1).due
    late = folder / "meta" / "late.txt"
    late.write_text("one more file")
    assert not site.look(2).due, "a late file: the period begins anew"
    assert not site.look(quiet - 1).due
    late.unlink()
    site.look()
    (due,) = site.look(quiet).due
    assert site.took(due.name).state == "accepted"


def test_a_marker_that_came_before_its_files_counts_once_and_then_the_quiet_period(
    site: Site, record: Record, tmp_path: Path
) -> None:
    folder = record(site.folder / "copied")
    (folder / MARKER).write_text(mark(folder).model_dump_json())
    (file,) = (folder / "data").rglob("*.parquet")
    file.rename(tmp_path / "late")
    assert site.took(site.look().due[0].name).state == "refused"
    (tmp_path / "late").rename(file)
    quiet = site.params.landing.quiet_seconds
    assert site.look().due == site.look(quiet - 1).due == []
    assert site.took(site.look(1).due[0].name).state == "accepted"
    (folder / "late.txt").write_text("what its marker does not name")
    assert site.look().due == []
    (folder / MARKER).write_text(mark(folder).model_dump_json())
    assert site.took(site.look().due[0].name).state == "known", "a new marker counts at once"


def test_files_from_the_future_and_a_clock_that_is_set_back_do_not_matter(site: Site, record: Record) -> None:
    folder = record(site.folder / "skewed")
    os.utime(folder / "meta" / "info.json", (4e9, 4e9))
    quiet = site.params.landing.quiet_seconds
    site.look()
    site.look(-100_000)
    assert not site.look(quiet - 1).due
    assert len(site.look(1).due) == 1


def test_an_interrupted_upload_never_counts_as_quiet_and_can_be_done_again(
    site: Site, record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = record(tmp_path / "mine")
    with monkeypatch.context() as broken:
        broken.setattr(site.inbox._fs, "pipe_file", fail_on(site.inbox._fs.pipe_file, MARKER))
        with pytest.raises(MachineError, match="cannot be written: the network went away"):
            land(mine, site.inbox, name=None, said={})
    site.look()
    assert not site.look(10 * site.params.landing.quiet_seconds).due
    land(mine, site.inbox, name=None, said={})
    (due,) = site.look().due
    assert site.took(due.name).state == "accepted"
    with pytest.raises(DataError, match="there is a dataset of this name"):
        land(mine, site.inbox, name=None, said={})


def test_an_upload_that_broke_off_after_its_marker_can_be_done_again(
    site: Site, record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = record(tmp_path / "mine")
    with monkeypatch.context() as broken:
        broken.setattr(site.inbox._fs, "rm_file", fail_on(site.inbox._fs.rm_file, UPLOADING))
        with pytest.raises(MachineError, match="cannot be written: the network went away"):
            land(mine, site.inbox, name=None, said={})
    assert site.settle() == {}
    land(mine, site.inbox, name=None, said={})
    assert site.took(site.look().due[0].name).state == "accepted"


def test_a_place_that_cannot_be_written_or_does_not_exist_is_one_clear_error(
    site: Site, record: Record, tmp_path: Path
) -> None:
    mine = record(tmp_path / "mine")
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match=r"the landing folder cannot be written: .*Not a directory"):
        land(mine, Inbox(str(tmp_path / "file")), name=None, said={})
    with pytest.raises(MachineError, match=r"cannot be written: .*File name too long"):
        land(mine, site.inbox, name="x" * 300, said={})
    with pytest.raises(ConfigError, match="Protocol not known: nowhere"):
        Inbox("nowhere://bucket/landing")


def test_two_that_land_at_once_under_one_name_do_not_mix(
    site: Site, record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (record(tmp_path / owner / "demos", seeds) for owner, seeds in {"a": (1, 2), "b": (3,)}.items())
    original = site.inbox._fs.put_file

    def meanwhile(*arguments: Any) -> None:
        original(*arguments)
        with pytest.raises(DataError, match="another dataset of this name is on its way"):
            land(second, site.inbox, name=None, said={})

    with monkeypatch.context() as busy:
        busy.setattr(site.inbox._fs, "put_file", meanwhile)
        land(first, site.inbox, name=None, said={})
    assert site.took(site.look().due[0].name).detail["accepted"] == 2


def fail_on(original: Callable[..., Any], name: str) -> Callable[..., Any]:
    def call(path: str, *arguments: Any) -> Any:
        if path.endswith(name):
            raise ConnectionError("the network went away")
        return original(path, *arguments)

    return call


def test_the_same_dataset_twice_renamed_or_in_a_new_folder_is_known(site: Site, record: Record) -> None:
    folder = record(site.folder / "first")
    shutil.copytree(folder, site.folder / "second")
    assert {name: taken.state for name, taken in site.settle().items()} == {
        "first": "accepted",
        "second": "known",
    }
    folder.rename(site.folder / "third")
    taken = site.settle()["third"]
    assert taken.state == "known"
    assert "as first" in taken.detail["why"]
    assert site.state("first") == "gone"
    assert episodes(site) == 2
    assert len(read_acceptances(site.paths)) == 1


def test_a_folder_that_grew_brings_only_what_is_new(site: Site, record: Record) -> None:
    folder = record(site.folder / "growing", (1, 2))
    site.settle()
    shutil.rmtree(folder)
    record(folder, (1, 2, 3))
    taken = site.settle()["growing"]
    assert taken.state == "accepted"
    assert (taken.detail["accepted"], taken.detail["known"], taken.detail["quarantined"]) == (1, 2, 0)
    assert episodes(site) == 3
    assert site.ledger.quarantined() == []


def test_a_twin_in_another_dataset_is_quarantined_with_its_name(site: Site, record: Record) -> None:
    record(site.folder / "one", (1, 2))
    site.settle()
    record(site.folder / "two", (2, 3))
    site.settle()
    (entry,) = site.ledger.quarantined()
    assert (entry.name, entry.episode, entry.checks) == ("two", 0, "duplicate")
    assert "episode 1 of one" in entry.reason
    assert episodes(site) == 3


def test_two_runs_never_take_one_dataset_and_a_dead_one_is_replaced(site: Site, record: Record) -> None:
    record(site.folder / "mine")
    site.look()
    (entry,) = site.look(site.params.landing.quiet_seconds).due
    assert site.ledger.claim("mine", "first", site.now) is not None
    assert site.take("mine", "second") is None
    assert site.look(5).due == []
    site.dead.add("first")
    assert site.look(5).due == [], "not at once"
    (again,) = site.look(60).due
    assert again.key != entry.key
    assert site.took("mine", "third").state == "accepted"


@pytest.mark.parametrize("step", ["_fetch", "examine", "_accept", "write_acceptance", "write_manifests"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_that_dies_anywhere_leaves_a_state_that_the_next_one_goes_on_from(
    site: Site, record: Record, monkeypatch: pytest.MonkeyPatch, step: str, when: str
) -> None:
    record(site.folder / "mine")
    site.look()
    site.look(site.params.landing.quiet_seconds)
    original = getattr(taking, step)

    def die(*arguments: Any) -> Any:
        if when == "after":
            original(*arguments)
        raise SystemExit

    with monkeypatch.context() as broken:
        broken.setattr(taking, step, die)
        with pytest.raises(SystemExit):
            site.take("mine", "dies")
    assert site.state("mine") == "taking"
    site.dead.add("dies")
    site.look(5)
    (due,) = site.look(60).due
    taken = site.took(due.name)
    assert taken.state == "accepted"
    assert episodes(site) == 2
    assert [path.name for path in site.paths.landed(TASK, "expert").iterdir()] == [taken.detail["dataset"]]


def test_a_full_disk_loses_nothing(site: Site, record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    record(site.folder / "mine")
    site.look()
    site.look(site.params.landing.quiet_seconds)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as broken:
        broken.setattr(taking.shutil, "copytree", full)
        with pytest.raises(MachineError, match="the disk is full"):
            site.take("mine", "full")
    assert read_acceptances(site.paths) == []
    site.dead.add("full")
    site.look(5)
    assert site.took(site.look(60).due[0].name).state == "accepted"


def test_a_dataset_that_changes_while_it_is_read_is_given_back(
    site: Site, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = record(site.folder / "mine")
    site.look()
    site.look(site.params.landing.quiet_seconds)
    fetch = site.inbox.fetch

    def meanwhile(*arguments: Any) -> Any:
        yield from fetch(*arguments)
        (folder / "meta" / "new.txt").write_text("late")

    with monkeypatch.context() as changing:
        changing.setattr(site.inbox, "fetch", meanwhile)
        assert site.take("mine") is None
    assert site.state("mine") == "ready"
    assert not site.look(60).due, "it has another fingerprint now, and must be quiet first"
    assert len(site.look(site.params.landing.quiet_seconds).due) == 1


def test_a_wrong_marker_is_refused_and_names_the_files(site: Site, record: Record, tmp_path: Path) -> None:
    land(record(tmp_path / "mine"), site.inbox, name=None, said={})
    with (site.folder / "mine" / "meta" / "info.json").open("a") as file:
        file.write(" ")
    taken = site.took(site.look().due[0].name)
    assert taken.state == "refused"
    (entry,) = site.ledger.quarantined()
    assert entry.episode is None
    assert "meta/info.json has another content than the marker says" in entry.reason


def test_an_unknown_task_is_held_until_the_parameters_name_it(site: Site, record: Record) -> None:
    record(site.folder / "mine", task="soccer-v3")
    taken = site.settle()["mine"]
    assert taken.state == "held"
    assert "soccer-v3" in taken.detail["to do"]
    assert site.look(1000).due == []
    values = site.params.model_dump()
    values["tasks"] = [*values["tasks"], "soccer-v3"]
    values["task_parameters"]["soccer-v3"] = {}
    site.params = type(site.params).model_validate(values)
    (due,) = site.look().due
    assert site.took(due.name).state == "accepted"
    assert episodes(site, task="soccer-v3") == 2


def test_what_must_be_stated_is_asked_for(site: Site, record: Record) -> None:
    site.params = site.params.model_copy(
        update={"landing": site.params.landing.model_copy(update={"required": ("operator", "consent")})}
    )
    record(site.folder / "anonymous", side={"source": "expert", "operator": "op-1"})
    taken = site.settle()["anonymous"]
    assert taken.state == "refused"
    assert taken.detail["why"] == "nothing is said about: consent"


def test_what_was_refused_is_taken_again_once_the_parameters_read_it_in_another_way(
    site: Site, record: Record, tmp_path: Path
) -> None:
    site.change("landing", required=("consent",))
    site.change("reading", mapping={"observation.images.corner2": "nobody"})
    record(site.folder / "mine")
    land(record(tmp_path / "torn", (3,)), site.inbox, name=None, said={})
    (site.folder / "torn" / "meta" / "info.json").unlink()
    assert {name: taken.state for name, taken in site.settle().items()} == {"mine": "refused", "torn": "refused"}
    site.change("landing", quiet_seconds=60.0)
    assert site.look(1000).due == [], "that is no matter of the door"
    for change, state in ((("landing", {"required": ()}), "refused"), (("reading", {"mapping": {}}), "accepted")):
        site.change(change[0], **change[1])
        (due,) = site.look().due
        event = site.ledger.events("mine")[-1]
        assert (event.state, event.detail["why"]) == (
            "ready",
            "`reading` or `landing.required` in the parameters changed after it was refused",
        )
        assert site.look().due == [due], "once"
        assert site.took(due.name).state == state
        assert site.look(1000).due == []
    assert site.state("torn") == "refused", "nobody came to read it"


@pytest.mark.parametrize("role", ["expert", "policy", "random", "evaluation"])
def test_a_role_decides_which_branch_a_dataset_feeds(site: Site, record: Record, role: str) -> None:
    record(site.folder / "mine", side={"source": role})
    site.settle()
    assert {r: len(m.episodes) for r, m in read_manifest(site.paths.manifest(TASK)).roles.items()} == {
        **dict.fromkeys(("expert", "policy", "random", "evaluation"), 0),
        role: 2,
    }
    assert episodes(site, role, OTHER) == 0


def test_a_manifest_does_not_depend_on_the_order_of_landing(site: Site, record: Record) -> None:
    for name, seeds in {"a": (1, 2), "b": (3,), "c": (4, 5)}.items():
        record(site.folder / name, seeds)
        site.settle()
    records = read_acceptances(site.paths)
    assert len(records) == 3
    assert (
        build_manifest(TASK, records) == build_manifest(TASK, records[::-1]) == read_manifest(site.paths.manifest(TASK))
    )


def test_an_edited_manifest_is_noticed(site: Site, record: Record, spoil: Any) -> None:
    record(site.folder / "mine")
    site.settle()
    path = site.paths.manifest(TASK)
    spoil(path, lambda m: m["roles"]["expert"]["datasets"][0]["episodes"][0].update(digest="0" * 64))
    with pytest.raises(DataError, match="the root of role expert is not that of its episodes"):
        read_manifest(path)
