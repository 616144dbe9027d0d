"""The chain of run records: whole as written, broken by any change."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from world4rl.errors import DataError
from world4rl.provenance.digests import digest_bytes
from world4rl.provenance.records import GENESIS, Chain, Code, Record, Run, Subject


def subject(name: str) -> Subject:
    return Subject(name=name, digest={"sha256": digest_bytes(name.encode())})


def run(stage: str) -> Run:
    return Run(
        stage=stage,
        command=f"world4rl {stage}",
        inputs=(subject("data/in.bin"),),
        outputs=(subject(f"models/{stage}.bin"),),
        parameters={"seed": 0},
        code=Code(commit="c" * 40, dirty=False, digest="abc", lock=None),
        machine={"cores": 2},
        began="2026-01-01T00:00:00Z",
        ended="2026-01-01T00:01:00Z",
        metrics={"loss": 0.25},
        orchestrator=None,
    )


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    chain = Chain(tmp_path / "records", (Run,))
    for name in "abcd":
        chain.append([subject(f"models/{name}.bin")], run(name))
    return chain


def test_records_are_read_in_order_and_linked(chain: Chain) -> None:
    records = chain.read()
    assert [record.predicate.stage for record in records] == list("abcd")
    assert [record.predicate.previous for record in records] == [GENESIS, *(record.digest for record in records[:-1])]
    assert chain.head == records[-1].digest


def test_a_record_is_an_in_toto_statement(chain: Chain) -> None:
    values = json.loads(sorted(chain.folder.glob("*.json"))[0].read_text())
    assert values["_type"] == "https://in-toto.io/Statement/v1"
    assert values["predicateType"].startswith("https://")
    assert values["subject"] == [{"name": "models/a.bin", "digest": {"sha256": digest_bytes(b"models/a.bin")}}]


def test_a_missing_folder_is_an_empty_chain(tmp_path: Path) -> None:
    chain = Chain(tmp_path / "none", (Run,))
    assert chain.read() == []
    assert chain.head == GENESIS
    assert not chain.folder.exists()


def test_removing_swapping_or_inserting_is_noticed(chain: Chain) -> None:
    first, second, third, _ = sorted(chain.folder.glob("*.json"))
    contents = {path: path.read_text() for path in (first, second, third)}
    second.unlink()
    with pytest.raises(DataError, match="where record 2 should"):
        chain.read()
    second.write_text(contents[third])
    with pytest.raises(DataError) as caught:
        chain.read()
    assert second.name in str(caught.value)
    second.unlink()
    forged = Record[Run].model_validate_json(contents[second])
    forged = forged.model_copy(update={"predicate": forged.predicate.model_copy(update={"stage": "other"})})
    (chain.folder / f"00000002-{forged.digest[:16]}.json").write_text(forged.text())
    with pytest.raises(DataError, match="the record before it is not the one that it names") as caught:
        chain.read()
    assert third.name in str(caught.value), "the first one that does not fit"


def test_two_chains_that_were_put_together_are_told_from_a_broken_one(chain: Chain, tmp_path: Path) -> None:
    shutil.copytree(chain.folder, tmp_path / "clone" / "records")
    elsewhere = Chain(tmp_path / "clone" / "records", (Run,))
    for place, stages in ((chain, "ef"), (elsewhere, "gh")):
        for stage in stages:
            place.append([], run(stage))
    for path in elsewhere.files():
        shutil.copy(path, chain.folder)
    fork = chain.files()[4:6]
    assert {path.name[:8] for path in fork} == {"00000005"}
    with pytest.raises(DataError, match=f"two records follow the same one, this and {fork[0].name}") as caught:
        chain.read()
    assert caught.value.where == str(fork[1])
    for path in set(elsewhere.files()[4:]):  # as the error says
        (chain.folder / path.name).unlink()
    assert [record.predicate.stage for record in chain.read()] == list("abcdef")


def test_what_comes_before_a_fault_still_holds(chain: Chain) -> None:
    _, second, _, fourth = sorted(chain.folder.glob("*.json"))
    second.write_text(second.read_text().replace("0.25", "0.75"))
    fourth.write_text("{}")
    records, faults = chain.examine()
    assert [record.predicate.stage for record in records] == ["a"]
    assert [fault.where for fault in faults] == [str(second), str(fourth)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(data=st.data())
def test_one_flipped_bit_anywhere_names_the_file(chain: Chain, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(chain.folder.glob("*.json"))[:-1]))
    content = path.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    flipped = bytearray(content)
    flipped[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bytes(flipped))
    try:
        with pytest.raises(DataError) as caught:
            chain.read()
        assert path.name in str(caught.value)
    finally:
        path.write_bytes(content)


def test_writers_do_not_lose_each_others_records(tmp_path: Path) -> None:
    folder = tmp_path / "records"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: Chain(folder, (Run,)).append([subject(f"m/{n}")], run(f"s{n}")), range(40)))
    records = Chain(folder, (Run,)).read()
    assert {record.predicate.stage for record in records} == {f"s{n}" for n in range(40)}
