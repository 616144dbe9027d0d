"""What fails around a dataset, not in it: one clear error each, nothing lost, and the rest goes on."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.landing.conftest import TASK, Site
from tests.spoiling import cell, rows
from world4rl.errors import DataError, MachineError
from world4rl.landing import take as taking
from world4rl.landing.ledger import Ledger
from world4rl.landing.quarantine import release
from world4rl.landing.staging import discard_abandoned, staged
from world4rl.provenance.manifests import read_acceptances, read_manifest

Record = Callable[..., Path]


@pytest.fixture
def due(site: Site, record: Record) -> Site:
    """A site with a dataset `mine` that is due, whose second episode has an action out of bounds."""
    rows("action", cell(15, [0.0, 1.5, 0.0, 0.0]))(record(site.folder / "mine", (1, 2)))
    site.look()
    site.look(site.params.landing.quiet_seconds)
    return site


def failing(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    return fail


@pytest.mark.parametrize("place", ["get_file", "copytree", "write_acceptance", "write_manifests", "keep_pictures"])
def test_a_full_disk_fails_the_run_says_so_and_the_dataset_is_taken_later(
    due: Site, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = {"get_file": due.inbox._fs, "copytree": taking.shutil}.get(place, taking)
    with monkeypatch.context() as broken:
        broken.setattr(owner, place, failing(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
        with pytest.raises(MachineError, match="the disk is full") as caught:
            due.take("mine")
    assert caught.value.remedy
    entry = due.ledger.entries()["mine"]
    assert (entry.state, entry.attempts) == ("ready", 1)
    assert due.ledger.events("mine")[-1].detail["why"] == "the disk is full"
    assert due.look(1).due == [], "not at once"
    assert due.took(due.look(60).due[0].name).detail["accepted"] == 1
    assert len(due.ledger.quarantined()) == 1
    assert [path for path in due.paths.taking.iterdir() if path.is_dir()] == []


def test_a_network_that_fails_is_no_fault_of_the_dataset(due: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd(Exception):
        """As network libraries have them."""

    with monkeypatch.context() as broken:
        broken.setattr(due.inbox._fs, "get_file", failing(Odd("connection reset")))
        with pytest.raises(MachineError, match="the landing folder cannot be read: connection reset"):
            due.take("mine")
    assert due.state("mine") == "ready"
    assert due.ledger.quarantined() == []


def test_a_damaged_record_of_another_dataset_is_no_fault_of_this_one(due: Site, record: Record) -> None:
    due.took("mine")
    (path,) = due.paths.accepted.iterdir()
    good = path.read_bytes()
    path.write_bytes(good[:-20])
    record(due.folder / "next", (3,))
    due.look()
    assert [entry.name for entry in due.look(due.params.landing.quiet_seconds).due] == ["next"]
    with pytest.raises(DataError, match="damaged or edited by hand"):
        due.take("next")
    assert due.state("next") == "ready"
    path.write_bytes(good)
    assert due.took(due.look(60).due[0].name).state == "accepted"


def test_a_file_that_goes_while_it_is_copied_is_a_change(due: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    original = due.inbox._fs.get_file

    def meanwhile(*arguments: Any) -> None:
        (due.folder / "mine" / "meta" / "info.json").unlink(missing_ok=True)
        original(*arguments)

    with monkeypatch.context() as changing:
        changing.setattr(due.inbox._fs, "get_file", meanwhile)
        assert due.take("mine") is None
    assert due.ledger.quarantined() == []
    assert due.state("mine") == "ready"


def test_what_was_kept_out_is_known_also_after_a_kill_between_record_and_ledger(
    due: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(taking, "keep_pictures", failing(SystemExit()))
        with pytest.raises(SystemExit):
            due.take("mine", "dies")
    assert len(read_acceptances(due.paths)) == 1
    assert due.ledger.quarantined() == []
    due.dead.add("dies")
    due.look(5)
    assert due.took(due.look(60).due[0].name).state == "accepted"
    (entry,) = due.ledger.quarantined()
    assert (entry.episode, entry.checks) == (1, "out_of_bounds")


def test_the_manifest_follows_although_a_run_died_and_the_dataset_has_gone(
    due: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(taking, "write_manifests", failing(SystemExit()))
        with pytest.raises(SystemExit):
            due.take("mine", "dies")
    shutil.rmtree(due.folder / "mine")
    due.dead.add("dies")
    assert TASK in due.look(5).manifests
    assert len(read_manifest(due.paths.manifest(TASK)).roles["expert"].episodes) == 1


def test_two_that_share_an_episode_taken_at_once_bring_it_once(
    site: Site, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(site.folder / "one", (1, 2))
    record(site.folder / "two", (2, 3))
    site.look()
    site.look(site.params.landing.quiet_seconds)
    original, met = taking.examine, []

    def meanwhile(*arguments: Any) -> Any:
        result = original(*arguments)
        if not met:
            met.append(True)
            assert site.took("two").state == "accepted"
        return result

    monkeypatch.setattr(taking, "examine", meanwhile)
    assert site.took("one").detail["accepted"] == 1
    digests = [each.digest for one in read_acceptances(site.paths) for each in one.episodes]
    assert len(digests) == len(set(digests)) == 3
    (entry,) = site.ledger.quarantined()
    assert (entry.name, entry.episode, entry.checks) == ("one", 1, "duplicate")


def test_what_a_killed_run_left_is_removed_though_the_dataset_has_gone(due: Site) -> None:
    assert due.ledger.claim("mine", "killed", due.now) is not None
    with staged("mine", due.paths) as folder:
        place = folder
    (place / "meta").mkdir(parents=True)
    shutil.rmtree(due.folder / "mine")
    with staged("mine", due.paths):  # its process is alive
        (place / "meta").mkdir(parents=True)
        discard_abandoned(due.paths)
        assert place.exists()
    (place / "meta").mkdir(parents=True)
    due.dead.add("killed")
    due.look()
    assert not place.exists()


def test_what_a_run_left_that_was_killed_after_it_had_settled_is_removed(due: Site) -> None:
    due.took("mine")
    with staged("mine", due.paths) as folder:
        left = [folder, folder.with_name(f".{folder.name}.cut")]
    for place in left:
        (place / "meta").mkdir(parents=True)
    due.look()
    assert not any(place.exists() for place in left)


def test_an_accepted_copy_that_was_harmed_is_put_right_when_the_dataset_lands_again(due: Site) -> None:
    landed = due.paths.landed(TASK, "expert") / due.took("mine").detail["dataset"]
    (landed / "meta" / "info.json").unlink()
    (due.folder / "mine").rename(due.folder / "again")
    assert due.settle()["again"].state == "known"
    assert (landed / "meta" / "info.json").is_file()


def test_a_copy_to_another_disk_works_too(due: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taking.os, "link", failing(OSError(errno.EXDEV, os.strerror(errno.EXDEV))))
    taken = due.took("mine")
    assert (due.paths.landed(TASK, "expert") / taken.detail["dataset"] / "meta" / "info.json").is_file()


# ---- the landing folder -------------------------------------------------------------------------------------------


def test_a_landing_folder_that_went_away_is_an_error_and_nothing_is_forgotten(due: Site) -> None:
    due.folder.rename(due.folder.parent / "unmounted")
    with pytest.raises(MachineError, match="the landing folder has gone") as caught:
        due.look()
    assert caught.value.remedy
    assert due.state("mine") == "ready"
    (due.folder.parent / "unmounted").rename(due.folder)
    assert due.took(due.look().due[0].name).state == "accepted"


def test_a_landing_folder_that_was_never_there_is_empty(site: Site) -> None:
    site.folder.rmdir()
    assert site.look().due == []


def test_a_folder_that_cannot_be_read_does_not_stop_the_others(
    due: Site, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(due.folder / "locked", (3,))
    original = due.inbox._fs.info

    def info(path: Any, **options: Any) -> Any:
        if "/locked/" in str(getattr(path, "path", path)):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return original(path, **options)

    with monkeypatch.context() as broken:
        broken.setattr(due.inbox._fs, "info", info)
        found = due.look()
    assert [entry.name for entry in found.due] == ["mine"]
    assert list(found.unreadable) == ["locked"]
    assert "Permission denied" in found.unreadable["locked"]
    due.look()
    assert {entry.name for entry in due.look(due.params.landing.quiet_seconds).due} == {"mine", "locked"}


def test_a_name_that_is_no_text_does_not_stop_the_others(due: Site) -> None:
    Path(os.fsdecode(os.fsencode(due.folder) + b"/b\xffd")).mkdir()
    found = due.look()
    assert [entry.name for entry in found.due] == ["mine"]
    assert len(found.unreadable) == 1


def test_an_emptied_folder_has_gone(due: Site) -> None:
    due.took("mine")
    shutil.rmtree(due.folder / "mine")
    (due.folder / "mine").mkdir()
    due.look()
    assert due.state("mine") == "gone"


def test_a_dataset_that_went_away_and_came_back_gets_a_run_of_its_own(due: Site) -> None:
    key = due.ledger.entries()["mine"].key
    due.took("mine")
    (due.folder / "mine").rename(due.folder.parent / "away")
    due.look()
    (due.folder.parent / "away").rename(due.folder / "mine")
    due.look()
    (entry,) = due.look(due.params.landing.quiet_seconds).due
    assert entry.key != key, "Dagster starts one run a key"
    assert due.took("mine").detail["why"] == "it is accepted"


def test_a_clock_that_is_set_back_does_not_stretch_the_back_off(due: Site) -> None:
    assert due.ledger.claim("mine", "dies", due.now) is not None
    due.dead.add("dies")
    due.look()
    assert due.look(1).due == [], "not at once"
    assert due.took(due.look(-1_000_000).due[0].name).state == "accepted"


# ---- the ledger ---------------------------------------------------------------------------------------------------


def test_a_ledger_that_another_program_holds_says_so(due: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    due.ledger._db.execute("PRAGMA busy_timeout = 1")
    holder = sqlite3.connect(due.paths.ledger)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(DataError, match="database is locked") as caught:
        due.look()
    assert caught.value.remedy == "end the program that holds it"
    holder.rollback()
    assert due.took(due.look().due[0].name).state == "accepted"


def test_a_ledger_that_cannot_be_written_says_so(due: Site) -> None:
    due.ledger._db.execute("PRAGMA query_only = 1")
    with pytest.raises(DataError, match="attempt to write a readonly database") as caught:
        due.take("mine")
    assert caught.value.remedy == "make the file and its folder writable"
    due.ledger._db.execute("PRAGMA query_only = 0")
    assert due.took("mine").state == "accepted"


def test_a_folder_in_place_of_the_ledger_says_so(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").mkdir()
    with pytest.raises(DataError, match="unable to open") as caught:
        Ledger(tmp_path / "ledger.sqlite")
    assert caught.value.remedy == "make the file and its folder writable"


def test_a_damaged_ledger_says_so_and_can_be_made_anew_from_what_is_accepted(due: Site) -> None:
    due.took("mine")
    due.ledger._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    due.ledger.close()
    content = bytearray(due.paths.ledger.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    due.paths.ledger.write_bytes(bytes(content))
    with pytest.raises(DataError, match="the ledger cannot be used") as caught:
        Ledger(due.paths.ledger).entries()
    assert "what is accepted is then found to be known" in str(caught.value.remedy)
    for path in due.paths.ledger.parent.glob("ledger.sqlite*"):
        path.unlink()
    due.ledger = Ledger(due.paths.ledger)
    before = read_acceptances(due.paths)
    assert due.settle()["mine"].state == "accepted"
    assert read_acceptances(due.paths) == before
    assert [entry.checks for entry in due.ledger.quarantined()] == ["out_of_bounds"]


# ---- release ------------------------------------------------------------------------------------------------------


def test_a_released_episode_comes_in_with_what_was_overruled(due: Site) -> None:
    due.took("mine")
    told = release(due.paths.root, 1, by="ada", because="the gripper may overshoot")
    assert "mine is taken again" in told
    (entry,) = due.look().due
    taken = due.took(entry.name)
    assert taken.acceptance is not None
    assert [(each.episode, each.waived) for each in taken.acceptance.episodes] == [(0, ()), (1, ("out_of_bounds",))]
    assert due.look(1000).due == []
    with pytest.raises(DataError, match="it is released already"):
        release(due.paths.root, 1, by="ada", because="again")


def test_a_released_episode_stays_though_the_ledger_was_lost(due: Site) -> None:
    due.took("mine")
    release(due.paths.root, 1, by="ada", because="the gripper may overshoot")
    due.took(due.look().due[0].name)
    before = read_acceptances(due.paths)
    due.ledger.close()
    for path in due.paths.ledger.parent.glob("ledger.sqlite*"):
        path.unlink()
    due.ledger = Ledger(due.paths.ledger)
    assert due.settle()["mine"].state == "accepted"
    assert read_acceptances(due.paths) == before
    assert len(before[0].episodes) == 2


def test_a_release_finds_the_dataset_under_its_new_name(due: Site) -> None:
    due.took("mine")
    (due.folder / "mine").rename(due.folder / "yours")
    assert due.settle()["yours"].state == "known"
    assert "yours is taken again" in release(due.paths.root, 1, by="ada", because="fine")
    taken = due.took(due.look().due[0].name)
    assert taken.detail["accepted"] == 2
    assert len(read_acceptances(due.paths)) == 1


def test_a_release_of_what_has_gone_counts_when_it_lands_again(due: Site) -> None:
    due.took("mine")
    (due.folder / "mine").rename(due.folder.parent / "away")
    due.look()
    assert "has gone" in release(due.paths.root, 1, by="ada", because="fine")
    (due.folder.parent / "away").rename(due.folder / "again")
    assert due.settle()["again"].detail["accepted"] == 2


def test_nothing_is_released_while_a_run_takes_it(due: Site) -> None:
    due.took("mine")
    digest = due.ledger.entries()["mine"].digest
    due.ledger._db.execute("UPDATE arrivals SET state = 'taking'")
    with pytest.raises(DataError, match="a run is just taking this dataset"):
        due.ledger.release(1, by="ada", because="fine", now=due.now)
    assert due.ledger.entries()["mine"].digest == digest
    assert due.ledger.quarantined()[0].released is None


def test_what_is_no_matter_of_judgement_cannot_be_released(site: Site, record: Record) -> None:
    rows("action", cell(15, [float("nan")] * 4))(record(site.folder / "mine", (1, 2)))
    (record(site.folder / "broken", (3,)) / "meta" / "info.json").unlink()
    site.settle()
    for entry in site.ledger.quarantined():
        with pytest.raises(DataError, match="is no matter of judgement"):
            release(site.paths.root, entry.number, by="ada", because="I like it")
    with pytest.raises(DataError, match="there is no such entry"):
        release(site.paths.root, 99, by="ada", because="I like it")
