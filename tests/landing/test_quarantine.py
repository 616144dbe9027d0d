"""What is kept out, for people and machines: lists, and a page with pictures."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.demos.conftest import stock_dataset
from tests.landing.conftest import TASK, Site
from tests.spoiling import SIDE, cell, edit_json, rows
from world4rl.cli import app
from world4rl.landing import take as taking
from world4rl.landing.page import write_page

Record = Callable[..., Path]


def call(site: Site, *arguments: str) -> str:
    result = CliRunner().invoke(app, ["quarantine", *arguments, "--root", str(site.paths.root)])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def full(site: Site, record: Record) -> Site:
    """A site with an episode out of bounds, a dataset that is refused as a whole, and one that is held."""
    rows("action", cell(15, [0.0, 1.5, 0.0, 0.0]))(record(site.folder / "mine", (1, 2)))
    (record(site.folder / "<b>broken", (3,)) / "meta" / "info.json").unlink()
    record(site.folder / "waiting", (4,), task="soccer-v3")
    site.settle()
    return site


def test_lists_for_people_and_machines(full: Site) -> None:
    assert call(full, "list").splitlines()[1].endswith("mine episode 1 [out_of_bounds]: action leaves [-1, 1]")
    broken, mine = json.loads(call(full, "list", "--json"))
    assert (broken["name"], broken["episode"], broken["checks"]) == ("<b>broken", None, "dataset")
    assert (mine["name"], mine["episode"], mine["reason"]) == ("mine", 1, "action leaves [-1, 1]")
    assert mine["time"] == "1970-01-12 13:48:40Z"
    assert json.loads(call(full, "show", str(mine["number"]), "--json")) == mine
    assert "check    out_of_bounds" in call(full, "show", str(mine["number"]))
    assert "is taken again" in call(full, "release", str(mine["number"]), "--by", "ada", "--because", "it may")
    assert [entry["name"] for entry in json.loads(call(full, "list", "--json"))] == ["<b>broken"]
    (_, released) = json.loads(call(full, "list", "--json", "--all"))
    assert (released["released_by"], released["released_because"]) == ("ada", "it may")


def test_what_to_do_about_a_dataset_stands_with_its_evidence(full: Site) -> None:
    (number,) = [entry.number for entry in full.ledger.quarantined() if entry.episode is None]
    assert "meta/info.json; to do: give the dataset's root folder" in call(full, "show", str(number))
    page = write_page(full.paths.root).read_text()
    assert page.index("why: <code>") < page.index("to do: <code>") < page.index("or write into params.yaml: <code>")


def test_the_list_has_a_line_an_entry_whatever_a_dataset_is_called(site: Site, record: Record) -> None:
    (record(site.folder / "two\nlines\x1b[31m", (3,)) / "meta" / "info.json").unlink()
    site.settle()
    (line,) = call(site, "list").splitlines()
    assert "two lines [31m whole dataset [dataset]" in line


def test_the_page_stands_alone_and_shows_reason_evidence_checker_and_frames(full: Site) -> None:
    out = full.paths.root / "page.html"
    assert str(out) in call(full, "page", "--out", str(out))
    page = out.read_text()
    for words in (
        "2 kept out of training",
        "action leaves [-1, 1]",
        "Evidence: row 5, up to 1.5",
        "world4rl checks",
        "meta/info.json is missing",
        "world4rl quarantine release 2",
        "world4rl params --add-task soccer-v3",
    ):
        assert words in page, words
    assert "&lt;b&gt;broken" in page
    assert "<b>broken" not in page, "names are text"
    assert len(re.findall('<img src="data:image/png;base64,', page)) == 1
    assert re.findall(r'(?:src|href)="(?!data:)', page) == [], "nothing is fetched from elsewhere"


def test_released_entries_stay_on_the_page(full: Site) -> None:
    call(full, "release", "2", "--by", "ada", "--because", "it may")
    page = write_page(full.paths.root).read_text()
    assert full.paths.quarantine.read_text() == page
    assert "1 kept out of training" in page
    assert re.search("Released 20.* by ada: it may", page)


def test_a_picture_stays_as_long_as_the_dataset_lies_there(full: Site) -> None:
    (picture,) = full.paths.picture("", 0).parent.iterdir()
    write_page(full.paths.root)
    assert picture.exists()
    (full.folder / "mine").rename(full.folder.parent / "away")
    full.look()
    assert "<img" not in write_page(full.paths.root).read_text()
    assert not picture.exists()


def test_a_page_that_another_run_writes_meanwhile_takes_no_picture_away(
    site: Site, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = taking.keep_pictures

    def meanwhile(*arguments: Any) -> None:
        original(*arguments)
        write_page(site.paths.root)

    monkeypatch.setattr(taking, "keep_pictures", meanwhile)
    rows("action", cell(15, [0.0, 1.5, 0.0, 0.0]))(record(site.folder / "mine", (1, 2)))
    site.settle()
    assert "<img" in write_page(site.paths.root).read_text()


def test_an_empty_page(site: Site) -> None:
    assert "Nothing is kept out of training" in write_page(site.paths.root).read_text()


def test_pictures_of_videos_and_of_frames_that_cannot_be_decoded(site: Site, record: Record) -> None:
    stock_dataset(
        site.folder / "videos", cameras={"front": (24, 32)}, dtype="video", action=4, tasks=(TASK,), lengths=(8,)
    )
    rows("action", cell(3, [9.0, 0.0, 0.0, 0.0]))(site.folder / "videos")
    damaged = record(site.folder / "damaged", (1, 2))
    rows("observation.images.corner2", cell(10, {"bytes": b"x", "path": None}))(damaged)
    edit_json(damaged / SIDE, lambda side: side.update(operator="op-1"))
    site.settle()
    entries = {entry.name: entry for entry in site.ledger.quarantined()}
    shapes: dict[str, Any] = {}
    from PIL import Image

    for name, entry in entries.items():
        assert entry.episode is not None
        with Image.open(site.paths.picture(entry.digest, entry.episode)) as image:
            shapes[name] = image.size
    assert shapes == {"videos": (3 * 128, 96), "damaged": (3 * 96, 96)}


def test_what_a_corrected_dataset_replaced_is_kept_out_no_more(full: Site, record: Record) -> None:
    shutil.copytree(full.folder / "mine", full.folder / "copy")
    for name, seeds in {"mine": (1, 2), "<b>broken": (3,)}.items():
        shutil.rmtree(full.folder / name)
        record(full.folder / name, seeds)
    assert {name: taken.state for name, taken in full.settle().items()} == {
        "copy": "known",
        "mine": "accepted",
        "<b>broken": "accepted",
    }
    names = [entry["name"] for entry in json.loads(call(full, "list", "--json"))]
    assert names == ["mine"], "what it was before lies in a copy"
    shutil.rmtree(full.folder / "copy")
    shutil.rmtree(full.folder / "mine")
    full.look()
    assert json.loads(call(full, "list", "--json")) == []
    assert "Nothing is kept out of training" in write_page(full.paths.root).read_text()
    everything = json.loads(call(full, "list", "--json", "--all"))
    assert [entry["replaced"] for entry in everything] == ["1970-01-12 13:50:40Z"] * 2
    assert "(replaced by a version that was accepted)" in call(full, "list", "--all")
    assert "replaced by a version that was accepted 1970-01-12 13:50:40Z" in call(full, "show", "2")


def test_a_faulty_version_that_comes_back_is_kept_out_again(full: Site, record: Record) -> None:
    shutil.rmtree(full.folder / "<b>broken")
    good = record(full.folder / "<b>broken", (3,))
    full.settle()
    (good / "meta" / "info.json").unlink()
    assert full.settle()["<b>broken"].state == "refused"
    assert "<b>broken" in [entry["name"] for entry in json.loads(call(full, "list", "--json"))]


def test_what_is_said_of_a_refused_dataset_is_what_was_found_last(site: Site, record: Record) -> None:
    record(site.folder / "mine")
    for required in (("operator", "consent"), ("consent",)):
        site.change("landing", required=required)
        site.settle()
        (entry,) = json.loads(call(site, "list", "--json"))
        assert entry["reason"] == f"nothing is said about: {', '.join(required)}"
    site.change("landing", required=())
    assert site.settle()["mine"].state == "accepted"
    assert call(site, "list") == "nothing is quarantined\n"
    assert "replaced by a version that was accepted" in call(site, "show", "1")


def test_episodes_that_other_parameters_let_in_are_kept_out_no_more(site: Site, record: Record) -> None:
    folder = record(site.folder / "mine", (1, 2))
    for row, value in {5: 1.5, 15: 20.0}.items():
        rows("action", cell(row, [0.0, value, 0.0, 0.0]))(folder)
    assert site.settle()["mine"].state == "refused"
    assert len(json.loads(call(site, "list", "--json"))) == 2
    site.change("reading", action_range=(-15.0, 15.0))
    assert site.took(site.look(10).due[0].name).detail["accepted"] == 1
    (left,) = json.loads(call(site, "list", "--json"))
    assert (left["episode"], left["reason"]) == (1, "action leaves [-15, 15]")
