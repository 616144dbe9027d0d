"""What was withdrawn does not come back through the door."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.landing.conftest import TASK, Site
from world4rl.demos.layout import SIDE_FILE
from world4rl.errors import DataError
from world4rl.landing.quarantine import release
from world4rl.landing.take import take
from world4rl.provenance import keys
from world4rl.provenance.decisions import Decisions, Withdrawal
from world4rl.provenance.digests import digest_folder
from world4rl.provenance.manifests import Acceptance, read_acceptances, remove_acceptance

Record = Callable[..., Path]


def withdraw(site: Site, acceptance: Acceptance, *indices: int) -> None:
    """What `world4rl withdraw` leaves behind, without what it removes elsewhere."""
    private = site.paths.root / "private.pem"
    if not private.exists():
        keys.make_keys(private, site.paths.trusted_keys / "registrar.pem")
    gone = tuple(acceptance.episodes[index].digest for index in indices)
    decision = Withdrawal(
        at="2026-05-04T00:00:00+00:00",
        by="registrar",
        because="consent",
        episodes=gone,
        datasets=(acceptance.id,),
        affected=(),
        deployments=(),
    )
    Decisions(site.paths).add([], decision, private)
    remove_acceptance(acceptance.id, site.paths)
    shutil.rmtree(site.paths.landed(TASK))


@pytest.fixture
def accepted(site: Site, record: Record) -> Acceptance:
    record(site.folder / "first", (1, 2, 3))
    acceptance = site.settle()["first"].acceptance
    assert acceptance is not None
    return acceptance


def test_a_withdrawn_dataset_is_refused_under_any_name(site: Site, accepted: Acceptance) -> None:
    withdraw(site, accepted, 0, 1, 2)
    shutil.copytree(site.folder / "first", site.folder / "second")
    taken = site.settle()["second"]
    assert taken.state == "refused"
    assert taken.detail["withdrawn"] == 3
    assert not read_acceptances(site.paths)
    assert not site.paths.landed(TASK).exists()
    entries = [one for one in site.ledger.quarantined() if one.name == "second"]
    assert [(one.episode, one.checks, one.reason) for one in entries] == [
        (index, "withdrawn", "it was withdrawn on 2026-05-04") for index in range(3)
    ]
    with pytest.raises(DataError, match="no matter of judgement"):
        release(site.paths.root, entries[0].number, by="somebody", because="they changed their mind")


def test_among_others_a_withdrawn_episode_is_cut_out_before_anything_is_accepted(
    site: Site, accepted: Acceptance, record: Record
) -> None:
    withdraw(site, accepted, 1)
    record(site.folder / "more", (1, 2, 3, 4))
    taken = site.settle()["more"]
    assert taken.state == "accepted"
    assert (taken.detail["accepted"], taken.detail["withdrawn"]) == (3, 1)
    (acceptance,) = read_acceptances(site.paths)
    assert acceptance == taken.acceptance
    assert acceptance.derived_from is not None
    assert [one.digest for one in acceptance.episodes[:2]] == [accepted.episodes[0].digest, accepted.episodes[2].digest]
    folder = site.paths.landed(TASK, "expert") / acceptance.id
    record(site.paths.root / "wanted", (1, 3, 4))
    assert sorted(path.name for path in folder.rglob("*.parquet")) == sorted(
        path.name for path in (site.paths.root / "wanted").rglob("*.parquet")
    )
    before = digest_folder(folder)
    shutil.copytree(site.folder / "more", site.folder / "again")
    again = site.settle()["again"]
    assert again.state == "refused"
    assert digest_folder(folder) == before


def test_no_picture_is_drawn_of_a_withdrawn_episode(site: Site, accepted: Acceptance, record: Record) -> None:
    withdraw(site, accepted, 1)
    spoiled = record(site.folder / "more", (1, 2, 3, 4))
    side = json.loads((spoiled / SIDE_FILE).read_text())
    side["episodes"][3]["success"] = not side["episodes"][3]["success"]  # quarantined for another reason
    (spoiled / SIDE_FILE).write_text(json.dumps(side))
    site.settle()
    entries = {one.episode: one.checks for one in site.ledger.quarantined()}
    assert entries == {1: "withdrawn", 3: "success_label"}
    pictures = sorted(path.stem for path in site.paths.picture("", 0).parent.glob("*.png"))
    assert [name.rpartition("-")[2] for name in pictures] == ["3"]


def test_a_withdrawal_while_a_dataset_is_being_read_is_not_missed(
    site: Site, accepted: Acceptance, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    from world4rl.landing import take as taking

    record(site.folder / "late", (2, 4))
    (entry,) = [one for one in (site.look(), site.look(site.params.landing.quiet_seconds))[1].due if one.name == "late"]
    examine = taking.examine

    def examined(*arguments: Any) -> Any:
        found = examine(*arguments)
        withdraw(site, accepted, 0)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(taking, "examine", examined)
        assert site.take(entry.name) is None
    assert site.state("late") == "ready"
    assert site.took("late").state == "accepted"


def test_decisions_that_somebody_edited_let_nothing_in(site: Site, accepted: Acceptance, record: Record) -> None:
    withdraw(site, accepted, 0)
    (path,) = site.paths.decisions.glob("*.json")
    path.write_text(path.read_text().replace("registrar", "nobody"))
    record(site.folder / "later", (4,))
    site.look()
    site.look(site.params.landing.quiet_seconds)
    with pytest.raises(DataError, match="chain of records is broken"):
        take(
            "later",
            "run",
            inbox=site.inbox,
            ledger=site.ledger,
            params=site.params,
            paths=site.paths,
            clock=lambda: site.now,
        )
    assert site.state("later") == "ready", "the dataset is not to blame"


def test_read_in_another_way_a_dataset_that_held_withdrawn_episodes_is_not_let_in_blindly(
    site: Site, accepted: Acceptance, record: Record
) -> None:
    withdraw(site, accepted, 1)
    reading = site.params.reading.model_copy(update={"mapping": {"front": "observation.images.corner2"}})
    site.params = site.params.model_copy(update={"reading": reading})
    shutil.copytree(site.folder / "first", site.folder / "second")
    taken = site.settle()["second"]
    assert taken.state == "refused"
    assert "nobody can tell which" in taken.detail["why"]
