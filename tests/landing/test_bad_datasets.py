"""Every kind of bad dataset through the whole path: refused or quarantined with the right reason, and nothing lost.

Beside each of them a good dataset lands, which must not notice.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.demos.conftest import episode, recording, stock_dataset
from tests.landing.conftest import TASK, Site
from tests.spoiling import (
    DATA,
    EPISODES,
    INFO,
    LENGTHS,
    SIDE,
    TASKS,
    VIDEOS,
    WHOLE,
    Bad,
    another_task,
    both,
    cell,
    edit_json,
    name_task,
    rename_feature,
    rows,
)
from world4rl.config import Params, load_profile
from world4rl.demos.recording import write_dataset
from world4rl.demos.store import open_stores
from world4rl.demos.storing import store_demos
from world4rl.demos.survey import survey
from world4rl.landing.deposit import land
from world4rl.landing.door import Taken, door_options
from world4rl.landing.ledger import Quarantined
from world4rl.landing.marker import MARKER, mark
from world4rl.landing.verify import verify
from world4rl.provenance.manifests import build_manifest, read_acceptances, read_manifest
from world4rl.provenance.statement import Statement

Record = Callable[..., Path]


def small(**landing: Any) -> Params:
    """The demo's parameters for pictures of 24 pixels, so that what is checked at the door is what is stored."""
    values = load_profile("demo").model_dump()
    values["simulation"]["image_size"] = 24
    values["landing"] |= landing
    return Params.model_validate(values)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The good datasets that are spoilt, one of pictures and one of videos, and what the simulator collected."""
    folder = tmp_path_factory.mktemp("originals")
    successes = (7, 14, None, None, None)
    episodes = [
        ("train", episode(100 + number, length, success_from=successes[number]))
        for number, length in enumerate(LENGTHS)
    ]
    write_dataset(folder / "pictures", episodes, recording(), image_size=(24, 24))
    stock_dataset(
        folder / "videos",
        cameras={"front": (24, 24)},
        dtype="video",
        action=4,
        state=4,
        tasks=(TASK,),
        lengths=(20, 15, 20),
        success=True,
    )
    collected = [("train", episode(1, success_from=4)), ("test", episode(2))]
    write_dataset(folder / "collected", collected, recording(), image_size=(24, 24))
    return {name: folder / name for name in ("pictures", "videos", "collected")}


@pytest.fixture(scope="module")
def digests(originals: dict[str, Path]) -> dict[str, dict[int, str]]:
    """Of the good episodes, by dataset and number."""
    options = door_options(small(), Statement())
    options = type(options)(**{**vars(options), "action_range": None})
    found = {name: survey(path, options, {}) for name, path in originals.items()}
    return {name: {e.episode: e.digest for e in each.episodes} for name, each in found.items()}


@pytest.fixture
def place(site: Site, originals: dict[str, Path], record: Record) -> Site:
    """A site where a good dataset has just been copied, and the simulator has collected."""
    return prepare(site, originals, record)


def prepare(site: Site, originals: dict[str, Path], record: Record) -> Site:
    site.params = small(quiet_seconds=120.0)
    shutil.copytree(originals["collected"], site.paths.raw(TASK, "expert"))
    record(site.folder / "good", (201, 202))
    return site


def wide(site: Site) -> Site:
    """Whose actions may have any size: those of stock datasets are drawn without bounds."""
    values = site.params.model_dump()
    values["reading"]["action_range"] = None
    site.params = Params.model_validate(values)
    return site


def check_all(site: Site, taken: dict[str, Taken], expected: set[str]) -> list[Quarantined]:
    """Asserts that the episodes with the expected digests, and the good dataset's, went all the way, and no other."""
    assert taken["good"].state == "accepted"
    assert taken["good"].acceptance is not None
    good = {each.digest for each in taken["good"].acceptance.episodes}
    assert len(good) == 2
    records = read_acceptances(site.paths)
    accepted = [each.digest for one in records for each in one.episodes]
    assert sorted(accepted) == sorted(good | expected), "the good episodes, each once"
    assert read_manifest(site.paths.manifest(TASK)) == build_manifest(TASK, records)
    verify(site.params, site.paths, TASK)
    store_demos(site.params, site.paths, TASK)
    stores = open_stores(site.paths, [TASK], ["expert"])
    landed = [digest for store in stores if store.path.name != "collected" for digest in store.episodes["digest"]]
    assert sorted(landed) == sorted(good | expected), "what is stored is what was accepted"
    assert all(store.verify() == [] for store in stores)
    assert [path for path in site.paths.taking.iterdir() if path.is_dir()] == [], "no copy is left behind"
    return site.ledger.quarantined()


def assert_found(site: Site, bad: Bad, known: dict[int, str]) -> None:
    """Lands what lies in the folder, and asserts that exactly what is bad of `bad` is kept out, for that reason."""
    taken = site.settle()
    lost = () if bad.episodes is None else bad.episodes
    expected = {} if bad.episodes is None else {n: d for n, d in known.items() if n not in lost}
    entries = check_all(site, taken, set(expected.values()))
    assert {entry.name for entry in entries} == {"bad"}
    assert [entry.episode for entry in entries] == ([None] if bad.episodes is None else list(lost))
    for entry in entries:
        assert (entry.checks, bad.phrase in entry.reason) == (bad.check, True), entry
    assert taken["bad"].state == site.state("bad") == ("accepted" if expected else "refused")


@pytest.mark.parametrize("kind", EPISODES)
def test_bad_episodes_are_quarantined_and_the_others_go_all_the_way(
    kind: str, place: Site, originals: dict[str, Path], digests: dict[str, dict[int, str]]
) -> None:
    EPISODES[kind].spoil(Path(shutil.copytree(originals["pictures"], place.folder / "bad")))
    assert_found(place, EPISODES[kind], digests["pictures"])


@pytest.mark.parametrize("kind", WHOLE)
def test_a_bad_dataset_is_refused_and_nothing_of_it_goes_anywhere(
    kind: str, place: Site, originals: dict[str, Path]
) -> None:
    if kind == "nobody consented":
        edit_json(place.folder / "good" / SIDE, lambda side: side.update(licence="CC0-1.0", consent="form 7"))
        place.params = small(required=("licence", "consent"))
    WHOLE[kind].spoil(Path(shutil.copytree(originals["pictures"], place.folder / "bad")))
    assert_found(place, WHOLE[kind], {})


@pytest.mark.parametrize("kind", VIDEOS)
def test_so_it_is_with_videos(
    kind: str, place: Site, originals: dict[str, Path], digests: dict[str, dict[int, str]]
) -> None:
    VIDEOS[kind].spoil(Path(shutil.copytree(originals["videos"], place.folder / "bad")))
    assert_found(wide(place), VIDEOS[kind], digests["videos"])


def test_the_tables_hold_far_more_than_forty_kinds() -> None:
    assert len(EPISODES) + len(WHOLE) + len(VIDEOS) + len(MARKERS) >= 100


# ---- markers ------------------------------------------------------------------------------------------------------


def on_marker(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / MARKER, change)


def of_another(folder: Path) -> None:
    (folder / MARKER).write_text(mark(folder.parent / "good").model_dump_json())


def link(path: Path, target: Path) -> None:
    path.unlink()
    path.symlink_to(target)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


MARKERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "empty marker": ("the marker cannot be read", lambda folder: (folder / MARKER).write_bytes(b"")),
    "marker that is no JSON": ("the marker cannot be read", lambda folder: (folder / MARKER).write_text("complete")),
    "marker that is a link": ("is a link", lambda folder: link(folder / MARKER, folder / INFO)),
    "marker that leads nowhere": ("is a link", lambda folder: link(folder / MARKER, folder / "nowhere")),
    "marker that is a pipe": ("is no regular file", lambda folder: pipe(folder / MARKER)),
    "marker of another format": ("the marker cannot be read: format", on_marker(lambda m: m.update(format=2))),
    "marker with more in it": ("the marker cannot be read: more", on_marker(lambda m: m.update(more=1))),
    "marker without files": ("meta/info.json is not in the marker", on_marker(lambda m: m.update(files={}))),
    "marker of another dataset": ("has another content than the marker says", of_another),
    "marker that names a missing file": (
        "meta/more.json is missing",
        on_marker(lambda m: m["files"].update({"meta/more.json": m["files"][INFO]})),
    ),
    "marker that names a file elsewhere": (
        "../../etc/passwd is missing",
        on_marker(lambda m: m["files"].update({"../../etc/passwd": m["files"][INFO]})),
    ),
    "file not in the marker": ("notes.txt is not in the marker", lambda folder: (folder / "notes.txt").write_text("x")),
    "wrong size": (
        f"{INFO} has another content than the marker says",
        on_marker(lambda m: m["files"][INFO].update(bytes=1)),
    ),
    "wrong hash": (
        f"{DATA} has another content than the marker says",
        on_marker(lambda m: m["files"][DATA].update(sha256="0" * 64)),
    ),
    "hash that is none": ("the marker cannot be read: files", on_marker(lambda m: m["files"][DATA].update(sha256="x"))),
    "file missing": (f"{TASKS} is missing", lambda folder: (folder / TASKS).unlink()),
    "file cut short": (
        f"{DATA} has another content than the marker says",
        lambda folder: (folder / DATA).write_bytes((folder / DATA).read_bytes()[:-1]),
    ),
}


@pytest.mark.parametrize("kind", MARKERS)
def test_a_marker_that_does_not_fit_refuses_the_dataset(kind: str, place: Site, originals: dict[str, Path]) -> None:
    phrase, spoil = MARKERS[kind]
    land(originals["pictures"], place.inbox, name="bad", said={})
    spoil(place.folder / "bad")
    assert_found(place, Bad("marker", phrase, spoil, None), {})


def test_a_marker_alone_is_no_dataset(place: Site) -> None:
    (place.folder / "bad").mkdir()
    (place.folder / "bad" / MARKER).write_text('{"format": 1, "files": {}}')
    assert_found(place, Bad("dataset", "meta/info.json is missing", lambda folder: None, None), {})


def test_a_folder_with_the_name_of_the_marker_is_none(place: Site, originals: dict[str, Path]) -> None:
    folder = Path(shutil.copytree(originals["pictures"], place.folder / "bad"))
    (folder / MARKER).mkdir()
    (folder / MARKER / "marker.json").write_text(mark(folder).model_dump_json())
    assert_found(place, Bad("files", "is in a folder that has the marker's name", lambda folder: None, None), {})


@settings(max_examples=25)
@given(data=st.data())
def test_a_marker_notices_any_damage(originals: dict[str, Path], data: Any) -> None:
    files = sorted(path.relative_to(originals["pictures"]) for path in originals["pictures"].rglob("*.*"))
    file = data.draw(st.sampled_from(files), "file")
    with TemporaryDirectory() as folder:
        site = Site(Path(folder))
        land(originals["pictures"], site.inbox, name="bad", said={})
        content = bytearray((site.folder / "bad" / file).read_bytes())
        place = data.draw(st.integers(0, len(content) - 1), "place")
        content[place] ^= 1 << data.draw(st.integers(0, 7), "bit")
        (site.folder / "bad" / file).write_bytes(bytes(content))
        assert site.settle()["bad"].state == "refused"
        (entry,) = site.ledger.quarantined()
        assert (entry.checks, str(file) in entry.reason) == ("marker", True)
        assert read_acceptances(site.paths) == []


# ---- any number of bad episodes -----------------------------------------------------------------------------------

FAULTS: dict[str, tuple[str, Callable[[int], Any]]] = {
    "not_finite": ("action", lambda column: [float("nan") if k == column else 0.0 for k in range(4)]),
    "out_of_bounds": ("action", lambda column: [-1.001 if k == column else 0.0 for k in range(4)]),
    "wrong_shape": ("action", lambda column: None),
    "unknown_task": ("task_index", lambda column: 7 + column),
    "table": ("timestamp", lambda column: 50.0 + column),
    "row_range": ("index", lambda column: 900 + column),
    "decoded_frames": ("observation.images.corner2", lambda column: {"bytes": b"x" * column, "path": None}),
}


@settings(max_examples=25)
@given(faults=st.dictionaries(st.integers(0, 4), st.sampled_from(sorted(FAULTS)), min_size=1), data=st.data())
def test_exactly_the_spoilt_episodes_are_kept_out_each_for_its_own_fault(
    originals: dict[str, Path], digests: dict[str, dict[int, str]], faults: dict[int, str], data: Any
) -> None:
    with TemporaryDirectory() as folder:
        site = Site(Path(folder))
        site.params = small()
        target = Path(shutil.copytree(originals["pictures"], site.folder / "bad"))
        for number, check in faults.items():
            row = sum(LENGTHS[:number]) + data.draw(st.integers(0, LENGTHS[number] - 1), f"row in {number}")
            column, value = FAULTS[check]
            rows(column, cell(row, value(data.draw(st.integers(0, 3), "column"))))(target)
        taken = site.settle()["bad"]
        assert {entry.episode: entry.checks for entry in site.ledger.quarantined()} == faults
        kept = {number: digest for number, digest in digests["pictures"].items() if number not in faults}
        accepted = {} if taken.acceptance is None else {e.episode: e.digest for e in taken.acceptance.episodes}
        assert accepted == kept


# ---- what was there before ----------------------------------------------------------------------------------------


def test_an_episode_of_another_dataset_is_not_taken_twice(
    place: Site, originals: dict[str, Path], digests: dict[str, dict[int, str]], record: Record
) -> None:
    place.settle()
    record(place.folder / "bad", (202, 203))
    place.settle()
    (entry,) = place.ledger.quarantined()
    assert (entry.episode, entry.checks) == (0, "duplicate")
    assert "the same content as episode 1 of good" in entry.reason


def test_a_trial_of_an_evaluation_never_becomes_a_demonstration(place: Site, record: Record) -> None:
    record(place.folder / "trials", (301, 302), side={"source": "evaluation"})
    place.settle()
    record(place.folder / "bad", (302, 303))
    taken = place.settle()
    assert taken["bad"].detail["accepted"] == 1
    (entry,) = place.ledger.quarantined()
    assert (entry.episode, entry.checks) == (0, "duplicate")
    assert "episode 1 of trials" in entry.reason


def test_a_held_out_episode_of_the_simulator_never_becomes_a_demonstration(place: Site, originals: Any) -> None:
    place.settle()
    verify(place.params, place.paths, TASK)
    store_demos(place.params, place.paths, TASK)
    shutil.copytree(originals["collected"], place.folder / "bad")
    edit_json(place.folder / "bad" / SIDE, lambda side: side.pop("episodes"))
    assert place.settle()["bad"].state == "known"
    reasons = [entry.reason for entry in place.ledger.quarantined()]
    assert reasons == [
        "the same content as train episode 0 of those collected here (expert)",
        "the same content as test episode 1 of those collected here (expert)",
    ]


# ---- tasks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "command", "lines"),
    [
        ("reach-v3", "world4rl params --add-task reach-v3", "reach-v3: {}"),
        ("fold-towel", "world4rl params --add-task fold-towel", "fold-towel: {simulated: false}"),
        (
            "Pick up the 'red' cube!",
            "world4rl params --add-task pick-up-the-red-cube --called 'Pick up the '\"'\"'red'\"'\"' cube!'",
            "pick-up-the-red-cube: {simulated: false, called: [Pick up the 'red' cube!]}",
        ),
    ],
)
def test_a_dataset_of_an_unknown_task_is_held_and_says_what_to_write(
    name: str, command: str, lines: str, place: Site, originals: dict[str, Path]
) -> None:
    target = Path(shutil.copytree(originals["pictures"], place.folder / "bad"))
    name_task(name)(target)
    taken = place.settle()["bad"]
    assert (taken.state, taken.detail["why"]) == ("held", f"the parameters do not name its task {name!r}")
    assert taken.detail["to do"] == command
    assert lines in taken.detail["or write into params.yaml"]
    assert place.ledger.quarantined() == []


def test_a_dataset_of_which_one_task_is_unknown_is_held_as_a_whole(place: Site, originals: dict[str, Path]) -> None:
    target = Path(shutil.copytree(originals["pictures"], place.folder / "bad"))
    both(another_task, rows("task_index", lambda values: values.__setitem__(slice(36, 48), [1] * 12)))(target)
    taken = place.settle()["bad"]
    assert (taken.state, taken.detail["needs"]) == ("held", ["reach-v3"])


# ---- what looks odd and is good -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["with space", "Prüfung-ä-机器人", "-rf", "a'b\"c", "x" * 200, "new\nline"])
def test_any_name_of_a_folder_will_do(name: str, place: Site, originals: dict[str, Path]) -> None:
    target = Path(shutil.copytree(originals["pictures"], place.folder / name))
    (target / "meta" / "notes ü 机.txt").write_text("of the operator")
    assert place.settle()[name].detail["accepted"] == 5


def test_a_dataset_without_success_labels_is_taken_unless_it_evaluates(place: Site, originals: dict[str, Path]) -> None:
    for name, role in (("demonstrations", "expert"), ("trials", "evaluation")):
        target = Path(shutil.copytree(originals["pictures"], place.folder / name))
        rename_feature("next.success", f"labels.{name}")(target)
        edit_json(target / SIDE, lambda side, role=role: (side.pop("episodes"), side.update(source=role)))
        name_task(TASK if role == "expert" else "button-press-v3")(target)
    taken = place.settle()
    assert taken["demonstrations"].detail["accepted"] == 5
    assert taken["trials"].state == "refused"
    assert {(entry.name, entry.checks) for entry in place.ledger.quarantined()} == {("trials", "success_label")}
    assert "which an evaluation is for" in place.ledger.quarantined()[0].reason


def test_a_fault_of_our_own_code_refuses_one_dataset_and_says_so(
    place: Site, originals: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from world4rl.landing import door

    original = door.survey

    def fails(folder: Path, *arguments: Any) -> Any:
        if (folder / "meta" / "odd").exists():
            raise TypeError("a case that nobody thought of")
        return original(folder, *arguments)

    monkeypatch.setattr(door, "survey", fails)
    target = Path(shutil.copytree(originals["pictures"], place.folder / "bad"))
    (target / "meta" / "odd").write_text(json.dumps({}))
    bad = Bad("dataset", "it cannot be read: TypeError: a case that nobody thought of", lambda folder: None, None)
    assert_found(place, bad, {})
