"""A withdrawal from its first look to the last remote, with real DVC and real datasets."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from assets.withdrawing import Request
from tests.withdrawal.conftest import ADA, BOB, TASK, Lab, pictures_of
from world4rl.audit.book import read_book
from world4rl.errors import ConfigError, DataError, MachineError
from world4rl.landing.staging import staged
from world4rl.promotion.champions import keep
from world4rl.provenance.decisions import Decisions, Deployment, Withdrawal
from world4rl.provenance.digests import digest_folder
from world4rl.provenance.manifests import read_manifest, write_acceptance


def withdrawals(lab: Lab) -> list[Withdrawal]:
    return [one.predicate for one in Decisions(lab.paths).read() if isinstance(one.predicate, Withdrawal)]


def restored(lab: Lab) -> dict[str, str]:
    """Digests of the accepted episodes' datasets after everything was lost but the remote and what Git keeps."""
    shutil.rmtree(lab.paths.landed(TASK))
    shutil.rmtree(lab.root / ".dvc" / "cache")
    lab.dvc("pull", "-q", f"landed@{TASK}")
    return {path.name: digest_folder(path) for path in lab.paths.landed(TASK, "expert").iterdir() if path.is_dir()}


def md5s(folder: Path) -> set[str]:
    return {hashlib.md5(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def test_a_look_changes_nothing(lab: Lab) -> None:
    before = lab.snapshot()
    plan = lab.plan(Request(operator=ADA))
    assert lab.snapshot() == before
    first, second, third = (lab.accepted()[name] for name in ("first", "second", "third"))
    assert {one.digest for one in plan.episodes} == {one.digest for one in (*first.episodes, *second.episodes)}
    kept = {cut.acceptance.id: len(cut.keep) for cut in plan.cuts}
    assert kept == {first.id: 0, second.id: 0, third.id: 2}, "the third holds a copy of an episode of the first"
    assert {found.storage for found in plan.objects} == {"cache", "store"}
    assert set(plan.retrain) == {f"demo_store@{TASK}", f"bc@{TASK}", "fidelity"}
    assert {path for path, _ in plan.affected} == {f"data/store/{TASK}/expert", f"models/{TASK}/bc", "reports/fidelity"}
    assert plan.landing == ["first", "second", "third"]


def test_nothing_of_a_person_who_withdrew_is_left(recorded: Lab) -> None:
    lab = recorded
    request = Request(operator=ADA, also_landing=True)
    doomed = lab.plan(request).objects
    lab.withdraw(request)
    everything = lab.pictures()
    for seed in (1, 2, 3, 4):
        assert not pictures_of(seed) & everything
    for seed in (5, 6, 100, 101):
        assert pictures_of(seed) <= everything
    gone = set().union(*(found.bytes for found in doomed)) - md5s(lab.paths.landed(TASK))
    assert len(gone) > 30
    assert not any(gone & there for there in lab.objects().values())
    for path in lab.root.parent.rglob("*"):
        assert not (path.is_file() and ADA.encode() in path.read_bytes()), path
    assert any(BOB.encode() in path.read_bytes() for path in lab.paths.accepted.iterdir())
    (decision,) = withdrawals(lab)
    assert len(decision.episodes) == 4
    assert len(decision.datasets) == 3
    assert {one.name for one in decision.affected} == {
        f"data/store/{TASK}/expert",
        f"models/{TASK}/bc",
        "reports/fidelity",
    }
    assert not read_book(lab.paths).faults, "lists of episodes without names are vouched for by the decision"


def test_pictures_of_quarantined_episodes_go_too(lab: Lab) -> None:
    """They show the same person; episodes that were never accepted have no digest that could be withdrawn."""
    hers = lab.paths.picture(lab.accepted()["second"].digest, 7)
    hers.parent.mkdir(parents=True, exist_ok=True)
    hers.write_bytes(b"what the camera saw")
    lab.paths.quarantine.parent.mkdir(parents=True, exist_ok=True)
    lab.paths.quarantine.write_text("with her picture in it")
    lab.withdraw(Request(operator=ADA))
    assert not hers.exists()
    assert "with her picture in it" not in lab.paths.quarantine.read_text()


def test_one_episode_goes_and_the_others_stay_to_the_bit(lab: Lab) -> None:
    first = lab.accepted()["first"]
    second = lab.accepted()["second"]
    lab.withdraw(Request(episodes=(f"{first.id}:1",), also_landing=True))
    everything = lab.pictures()
    assert not pictures_of(2) & everything
    assert pictures_of(1) <= everything
    derived = lab.accepted()["first"]
    assert derived.id != first.id
    assert derived.derived_from == first.digest
    assert derived.statement == first.statement
    assert [one.digest for one in derived.episodes] == [first.episodes[0].digest, first.episodes[2].digest]
    digests = {one.digest for one in read_manifest(lab.paths.manifest(TASK)).roles["expert"].episodes}
    assert digests == {one.digest for name in ("first", "second", "third") for one in lab.accepted()[name].episodes}
    before = {path.name: digest_folder(path) for path in lab.paths.landed(TASK, "expert").iterdir() if path.is_dir()}
    assert restored(lab) == before
    assert set(before) == {derived.id, second.id, lab.accepted()["third"].id}
    lab.dvc("repro", "-q")
    assert {path.name for path in lab.paths.store(TASK, "expert").iterdir()} == {*before, "collected"}


def test_what_others_use_as_well_stays(lab: Lab) -> None:
    second = lab.accepted()["second"]
    before = lab.objects()["remote"]
    doomed = set().union(*(found.bytes for found in lab.plan(Request(dataset=second.id)).objects))
    lab.withdraw(Request(dataset=second.id))
    assert before - lab.objects()["remote"] == doomed
    assert len(restored(lab)) == 2
    lab.dvc("repro", "-q")


def test_the_same_words_twice_say_that_there_is_nothing(lab: Lab) -> None:
    lab.withdraw(Request(operator=ADA))
    before = lab.snapshot()
    with pytest.raises(DataError, match="no accepted dataset was recorded by this operator"):
        lab.withdraw(Request(operator=ADA))
    with pytest.raises(DataError, match="no such accepted episode"):
        lab.plan(Request(episodes=("0123456789abcdef",)))
    lab.withdraw(Request())
    assert lab.snapshot() == before


def test_models_leave_only_when_asked_and_never_those_that_somebody_relies_on(recorded: Lab) -> None:
    lab = recorded
    model = digest_folder(lab.paths.bc(TASK))
    deployment = Deployment(at="2026-01-01T00:00:00+00:00", by="b", because="c", robot="arm", task=TASK, policy=model)
    Decisions(lab.paths).add([], deployment, lab.root.parent / "private.pem")
    champion = keep(lab.paths.bc(TASK), model, lab.paths, TASK)
    lab.withdraw(Request(operator=ADA))
    (decision,) = withdrawals(lab)
    assert decision.deployments == ({"robot": "arm", "task": TASK, "policy": model},)
    assert lab.plan(Request(models=True)).empty, "a robot runs it"
    Decisions(lab.paths).add([], deployment.model_copy(update={"policy": None}), lab.root.parent / "private.pem")
    assert lab.plan(Request()).empty, "models were not asked for"
    plan = lab.plan(Request(models=True))
    assert [found.storage for found in plan.objects] == ["cache", "store"]
    assert plan.champions == [champion]
    lab.withdraw(Request(models=True))
    assert not champion.exists()
    assert lab.plan(Request(models=True)).empty


@pytest.mark.parametrize("what", ["missing", "named"])
def test_a_remote_that_cannot_be_cleaned_stops_it_before_anything_changes(lab: Lab, what: str) -> None:
    if what == "missing":
        lab.remote.rename(lab.remote.with_name("unmounted"))
        match = "the remote store cannot be reached"
    else:
        lab.dvc("remote", "add", "-q", "bucket", "s3://bucket/place")
        lab.dvc("remote", "modify", "-q", "bucket", "version_aware", "true")
        match = "keeps files under their own names"
    before = lab.snapshot()
    with pytest.raises(MachineError, match=match):
        lab.withdraw(Request(operator=ADA))
    assert lab.snapshot() == before


def test_a_run_that_is_just_taking_a_dataset_keeps_its_copy(lab: Lab) -> None:
    with staged("another", lab.paths) as copy:
        (copy / "meta").mkdir(parents=True)
        lab.withdraw(Request(operator=ADA))
        assert copy.is_dir()


def test_without_a_key_nothing_changes(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD4RL_SIGNING_KEY", str(lab.root.parent / "nowhere.pem"))
    before = lab.snapshot()
    with pytest.raises(ConfigError, match="no signing key"):
        lab.withdraw(Request(operator=ADA))
    assert lab.snapshot() == before


def test_a_key_that_the_repository_does_not_know_yet_is_trusted_before_it_signs(lab: Lab) -> None:
    shutil.rmtree(lab.paths.trusted_keys)
    lab.withdraw(Request(operator=ADA))
    (decision,) = Decisions(lab.paths).read()
    assert decision.predicate.at.endswith("Z")


def test_a_stage_that_reads_the_data_is_waited_for(lab: Lab) -> None:
    from dvc.repo import Repo
    from dvc.rwlock import rwlock

    with Repo(str(lab.root)) as repo, rwlock(repo.tmp_dir, repo.fs, "stage", [str(lab.root / "data/store")], [], False):
        lock = Path(repo.tmp_dir) / "rwlock"
        mine = lock.read_text()
        lock.write_text(mine.replace(f'"pid": {os.getpid()}', '"pid": 1'))  # a process does not block itself
        before = lab.snapshot()
        with pytest.raises(MachineError, match="a stage is at work"):
            lab.withdraw(Request(operator=ADA))
        assert lab.snapshot() == before
        lock.write_text(mine)


def test_a_dataset_that_lands_meanwhile_is_not_overlooked(lab: Lab) -> None:
    from assets.withdrawing import Withdrawals

    own = Withdrawals(lab.root)
    plan = own.plan(Request(operator=ADA))
    third = lab.accepted()["third"]
    said = third.statement.model_copy(update={"operator": "Somebody"})
    write_acceptance(third.model_copy(update={"statement": said}), lab.paths)
    with pytest.raises(DataError, match="accepted meanwhile"):
        own.carry_out(Request(operator=ADA), plan, by="a", because="b")
    own.close()
    assert not withdrawals(lab)
