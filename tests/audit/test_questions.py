"""The answers: right, and with bad news where there are any."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from benchmarks.lineage import MadeUp
from tests.audit.conftest import TASKS, open_book
from world4rl.audit.episodes import which_episodes
from world4rl.audit.pages import overview
from world4rl.audit.reach import everyone, reach
from world4rl.audit.stale import find_stale, what_is_stale
from world4rl.audit.verify import verify
from world4rl.audit.versions import Version
from world4rl.audit.who import who
from world4rl.errors import ConfigError, DataError
from world4rl.files import read_json
from world4rl.provenance.digests import digest_bytes, merkle_root
from world4rl.provenance.manifests import Acceptance, read_acceptances
from world4rl.provenance.records import subject

PUSH, REACH = TASKS


def dataset(made: MadeUp, name: str) -> Acceptance:
    return next(one for one in read_acceptances(made.paths) if one.name == name)


def test_a_checkpoint_found_anywhere_names_its_episodes(made: MadeUp, read, tmp_path: Path) -> None:
    found = tmp_path / "from a robot"
    shutil.copytree(made.paths.bc(PUSH), found)
    for place in (str(found), str(found / "model.safetensors"), made.digest(f"models/{PUSH}/bc")):
        answer = which_episodes(*read, place)
        landed = dataset(made, "dataset_0").episodes
        stored = {digest_bytes(one.digest.encode()) for one in landed}
        assert answer.ok
        assert stored < {one["digest"] for one in answer.data["episodes"]}
        assert answer.data["count"] == len(landed) + 4, "and what the simulator recorded"
        assert answer.data["merkle_root"] == merkle_root(sorted(one["digest"] for one in answer.data["episodes"]))
        assert answer.data["operators"] == {"": 4, "ada": 3}
        assert answer.data["licences"] == {"": 4, "CC-BY-4.0": 3}
        assert answer.data["robots"] == {"arm-1": 3, "simulator": 4}


def test_a_policy_was_made_by_all_that_its_world_model_saw(made: MadeUp, read) -> None:
    answer = which_episodes(*read, f"models/{PUSH}/refined")
    behind = {digest_bytes(e.digest.encode()) for one in read_acceptances(made.paths) for e in one.episodes}
    assert behind <= {one["digest"] for one in answer.data["episodes"]}
    assert answer.data["operators"].keys() == {"", "ada", "ben"}


def test_an_older_version_is_told_from_the_newest(read) -> None:
    _, history = read
    first, *_, last = history.versions["models/world_model"]
    counts = [which_episodes(*read, one.digest).data["count"] for one in (first, last)]
    assert counts[0] < counts[1]


def test_what_nobody_made_is_said_to_be_so(read, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"somebody's")
    for ask in (which_episodes, who):
        answer = ask(*read, str(tmp_path / "model.safetensors"))
        assert not answer.ok
        assert "no run made these bytes" in answer.headline
    with pytest.raises(DataError, match="no such file"):
        which_episodes(*read, "models/none")


def test_a_checkpoint_with_one_file_changed_is_no_longer_what_was_made(made: MadeUp, read, tmp_path: Path) -> None:
    found = tmp_path / "bc"
    shutil.copytree(made.paths.bc(PUSH), found)
    (found / "config.json").write_text("{}")
    answer = which_episodes(*read, str(found))
    assert not answer.ok
    assert "1 of its 2 files" in answer.data["how"]
    (difference,) = verify(*read, [str(found)]).data["differences"]
    assert difference["file"] == f"{found}/config.json"


def test_an_operator_reaches_what_was_made_from_their_episodes(made: MadeUp, read) -> None:
    book, history = read
    answer = reach(book, history, operator="ben")
    reached = {(one["path"], one["sha256"]) for one in answer.data["artefacts"]}
    assert (f"models/{PUSH}/bc", made.digest(f"models/{PUSH}/bc")) not in reached, "that is ada's alone"
    assert (f"models/{REACH}/bc", made.digest(f"models/{REACH}/bc")) in reached
    assert {(one.path, one.digest) for one in history.versions["models/world_model"]} <= reached
    running = [one for one in answer.data["deployments"] if one["until"] is None]
    assert [(one["robot"], one["task"]) for one in running] == [("arm-1", PUSH)]
    assert answer.data["champions"] == {task: made.digest(f"models/{task}/refined") for task in TASKS}
    assert answer.data["episodes"] == sum(
        len(one.episodes) for one in book.acceptances if one.statement.operator == "ben"
    )


def test_names_stay_as_they_are(copy: MadeUp) -> None:
    copy.land([PUSH], 1, operator="Ada Lovelace")
    copy.repro()
    assert reach(*open_book(copy.paths.root), operator="Ada Lovelace").headline.startswith("Operator Ada Lovelace ")


def test_one_table_says_what_everybody_reached(read) -> None:
    book, history = read
    first, *each = everyone(book, history)
    operators, datasets = first.blocks
    assert [row[0] for row in operators.rows] == ["ada", "ben"]
    assert [one.question for one in each] == ["What did operator ada reach?", "What did operator ben reach?"]
    for row in operators.rows:
        told = reach(book, history, operator=row[0]).data
        current = [one for one in told["artefacts"] if one["current"]]
        assert row[1:4] == (told["episodes"], len(told["artefacts"]), len(current))
        assert row[4:] == (", ".join(TASKS), "arm-1")
    assert {row[1] for row in datasets.rows} == {"", *(f"dataset_{number}" for number in range(6))}
    for row in datasets.rows:
        assert row[2] == len(reach(book, history, dataset=row[0]).data["artefacts"])


def test_each_way_runs_through_the_graph(read) -> None:
    book, history = read
    answer = reach(book, history, operator="ben")
    assert len(answer.data["artefacts"]) > 20
    for one in answer.data["artefacts"]:
        way = [(step["path"], step["sha256"]) for step in one["way"]]
        assert way[-1] == (one["path"], one["sha256"])
        for before, after in itertools.pairwise(way):
            sources = {
                source.version
                for made in history.makings([Version(*after)])
                for source in history.lineage.made_from[made]
            }
            assert Version(*before) in sources


def test_an_episode_is_known_by_its_digest_as_it_landed_and_as_training_sees_it(made: MadeUp, read) -> None:
    landed = dataset(made, "dataset_1").episodes[0].digest
    answers = [reach(*read, episode=one) for one in (landed, digest_bytes(landed.encode())[:20])]
    assert answers[0].data["artefacts"] == answers[1].data["artefacts"] != []
    whole = reach(*read, dataset="dataset_1")
    assert whole.data["artefacts"] == reach(*read, dataset=dataset(made, "dataset_1").id).data["artefacts"]
    assert whole.data["artefacts"] == answers[0].data["artefacts"]


def test_reach_asks_about_one_thing_that_is_known(read) -> None:
    for wrong in ({}, {"operator": "ada", "dataset": "dataset_1"}, {"episode": "not hex"}):
        with pytest.raises(ConfigError):
            reach(*read, **wrong)
    for unknown in ({"operator": "zoe"}, {"dataset": "none"}, {"episode": "0123456789"}):
        with pytest.raises(DataError, match=r"knows|names"):
            reach(*read, **unknown)


def test_who_tells_everything_about_the_run(made: MadeUp, read) -> None:
    answer = who(*read, str(made.paths.refined(PUSH)))
    (run,) = answer.data["runs"]
    assert run["stage"] == f"refined@{PUSH}"
    assert run["code"]["commit"] == "5" * 40
    assert run["machine"]["gpu"] == "none"
    assert run["orchestrator"] == f"run-refined@{PUSH}"
    assert {one["what"] for one in answer.data["decisions"]} == {
        f"promoted to champion of {PUSH}",
        f"deployed on arm-1 for {PUSH}",
    }
    text = answer.text()
    assert all(word in text for word in ("seed", "requirements lock", "555555555555", "data/store"))


def test_nothing_is_stale_and_all_is_as_made_in_the_beginning(read) -> None:
    assert what_is_stale(*read).data["stale"] == []
    assert find_stale(*read, look=True) == {}
    assert verify(*read).ok


def test_a_landed_dataset_makes_its_task_stale_and_what_is_shared(copy: MadeUp) -> None:
    copy.land([REACH], 1, operator="dora")
    stale = find_stale(*open_book(copy.paths.root))
    assert f"models/{REACH}/bc" in stale
    assert f"models/{PUSH}/bc" not in stale
    assert stale["models/world_model"].causes == (f"data/manifests/{REACH}.json",)
    assert abs(stale["models/world_model"].since - time.time()) < 600
    assert verify(*open_book(copy.paths.root)).ok, "what waits for its stage is as it was accepted"
    copy.repro()
    assert find_stale(*open_book(copy.paths.root)) == {}


def test_a_manifest_that_was_not_made_anew_is_stale_itself(copy: MadeUp) -> None:
    copy.land([REACH], 1, manifests=False)
    stale = find_stale(*open_book(copy.paths.root))
    assert stale[f"data/manifests/{REACH}.json"].causes == ("data/accepted",)
    assert f"models/{REACH}/bc" in stale
    assert f"data/manifests/{PUSH}.json" not in stale


def test_withdrawn_episodes_make_what_holds_them_stale_since_then(copy: MadeUp) -> None:
    landed = dataset(copy, "dataset_0")
    copy.withdraw([landed.episodes[0].digest])
    book, history = open_book(copy.paths.root)
    stale = find_stale(book, history)
    withdrawal = book.decisions[-1].predicate
    assert stale[f"data/store/{PUSH}/expert"].causes == ("withdrawn episodes",)
    assert what_is_stale(book, history).data["stale"][0]["since"] == withdrawal.at
    assert f"data/store/{REACH}/expert" not in stale
    answer = which_episodes(book, history, f"models/{PUSH}/bc")
    assert answer.data["withdrawn"] == 1
    assert not answer.ok
    first = overview(book, history)[0]
    assert not first.ok
    assert f"Robots that run what was made from withdrawn episodes: arm-1 ({PUSH})." in first.text()


def test_a_changed_parameter_makes_all_stale_that_may_read_it(copy: MadeUp) -> None:
    copy.set_parameters(seed=1)
    stale = find_stale(*open_book(copy.paths.root))
    assert stale[f"models/{PUSH}/bc"].causes == ("params.yaml: seed",)
    copy.set_parameters(seed=0)
    assert find_stale(*open_book(copy.paths.root)) == {}


def test_an_artefact_that_was_changed_on_the_disk_is_seen_where_artefacts_are_read(copy: MadeUp) -> None:
    changed = copy.paths.bc(PUSH) / "config.json"
    changed.write_text("{}")
    os.utime(changed, (1_800_000_000, 1_800_000_000))
    book, history = open_book(copy.paths.root)
    assert find_stale(book, history) == {}
    stale = find_stale(book, history, look=True)
    assert stale[f"models/{PUSH}/refined"].since == 1_800_000_000
    assert f"models/{PUSH}/bc" in stale[f"models/{PUSH}/refined"].causes


def test_an_old_version_on_the_disk_is_recognised(copy: MadeUp) -> None:
    book, history = open_book(copy.paths.root)
    old = history.versions[f"models/{PUSH}/refined"][0]
    copy.set_parameters(seed=5)
    copy.repro()
    copy.set_parameters(seed=0)
    copy.repro()
    book, history = open_book(copy.paths.root)
    file = copy.paths.refined(PUSH) / "model.safetensors"
    now = file.read_bytes()
    assert history.files[old]["model.safetensors"] != digest_bytes(now)
    file.write_bytes(copy.paths.bc(PUSH).joinpath("model.safetensors").read_bytes())
    (difference,) = verify(book, history).data["differences"]
    assert difference["file"] == f"models/{PUSH}/refined/model.safetensors"
    assert f"models/{PUSH}/bc" in difference["note"]


def test_missing_and_unknown_files_are_named(copy: MadeUp) -> None:
    (copy.paths.bc(PUSH) / "config.json").unlink()
    (copy.paths.bc(PUSH) / "backdoor.py").write_text("")
    shutil.rmtree(copy.paths.bc(REACH))
    answer = verify(*open_book(copy.paths.root))
    assert not answer.ok
    assert {(one["file"], one["problem"]) for one in answer.data["differences"]} == {
        (f"models/{PUSH}/bc/config.json", "is missing"),
        (f"models/{PUSH}/bc/backdoor.py", "is unknown"),
        (f"models/{REACH}/bc", "is missing"),
    }


def test_parts_and_wholes_can_be_verified(made: MadeUp, read) -> None:
    for path in (
        "",
        "data",
        "models",
        "reports",
        "data/store",
        f"models/{PUSH}/bc",
        f"models/{PUSH}/bc/config.json",
        f"reports/bc/{PUSH}.json",
    ):
        assert verify(*read, [str(made.paths.root / path)]).ok, path
    with pytest.raises(DataError, match="no such file"):
        verify(*read, ["models/none"])


def test_what_lies_beside_the_artefacts_of_a_folder_is_unknown(copy: MadeUp) -> None:
    stranger = copy.paths.root / "models" / "found" / "model.safetensors"
    stranger.parent.mkdir()
    stranger.write_text("?")
    (difference,) = verify(*open_book(copy.paths.root), [str(copy.paths.root / "models")]).data["differences"]
    assert (difference["file"], difference["problem"]) == ("models/found/model.safetensors", "is unknown")


def test_the_artefacts_of_a_task_that_left_may_be_gone(copy: MadeUp) -> None:
    for folder in ("data/raw", "data/store", "data/landed", "models", "reports/evaluation", "reports/data"):
        shutil.rmtree(copy.paths.root / folder / REACH)
    for name in ("bc", "refined", "evaluation"):
        (copy.paths.root / "reports" / name / f"{REACH}.json").unlink()
    assert not verify(*open_book(copy.paths.root)).ok
    copy.tasks = (PUSH,)
    copy.set_parameters(seed=0)
    answer = verify(*open_book(copy.paths.root))
    assert answer.data["differences"] == []
    assert f"models/{REACH}/bc" in answer.text()


def test_a_champion_that_was_kept_is_verified(copy: MadeUp) -> None:
    older, newer = sorted(copy.paths.champions(PUSH).iterdir(), key=lambda one: one.stat().st_mtime)[-2:]
    (newer / "config.json").write_text("{}")
    shutil.rmtree(older)
    shutil.copytree(copy.paths.bc(PUSH), copy.paths.champions(PUSH) / ("0" * 16))
    expected = {
        f"models/champions/{PUSH}/{newer.name}/config.json": "differs",
        f"models/champions/{PUSH}/{older.name}": "is missing",
        f"models/champions/{PUSH}/{'0' * 16}": "is unknown",
    }
    for asked in ([], [str(copy.paths.root / "models")]):
        found = verify(*open_book(copy.paths.root), asked).data["differences"]
        assert {one["file"]: one["problem"] for one in found} == expected


def test_the_champion_of_a_withdrawal_may_be_gone(copy: MadeUp) -> None:
    gone = sorted(copy.paths.champions(PUSH).iterdir())[0]
    affected = [subject(f"models/{PUSH}/refined", copy.digest(gone.relative_to(copy.paths.root).as_posix()))]
    copy.withdraw(["0" * 64], affected=affected)
    shutil.rmtree(gone)
    assert verify(*open_book(copy.paths.root)).ok


def test_a_signature_is_verified_though_another_model_differs(copy: MadeUp) -> None:
    """Also that of a champion that is no longer the newest model."""
    superseded = next(
        one
        for one in sorted(copy.paths.champions(REACH).iterdir())
        if copy.digest(one.relative_to(copy.paths.root).as_posix()) != copy.digest(f"models/{REACH}/refined")
    )
    (copy.paths.bc(PUSH) / "config.json").write_text("{}")
    digests = {copy.digest(f"models/{REACH}/bc"), copy.digest(superseded.relative_to(copy.paths.root).as_posix())}
    signatures = [copy.paths.signature(digest) for digest in digests]
    for one in signatures:
        one.write_text(one.read_text().replace('"sig"', '"Sig"'))
    expected = {f"models/{PUSH}/bc/config.json", *(str(one.relative_to(copy.paths.root)) for one in signatures)}
    found = verify(*open_book(copy.paths.root)).data["differences"]
    assert {one["file"] for one in found} == expected
    signatures[1].unlink()
    found = verify(*open_book(copy.paths.root)).data["differences"]
    assert {one["file"] for one in found} == expected


def test_a_broken_chain_is_named_and_what_holds_is_told(copy: MadeUp) -> None:
    file = sorted(copy.paths.records.glob("*.json"))[20]
    file.write_text(file.read_text().replace("ended", "ENDED"))
    book, history = open_book(copy.paths.root)
    assert len(book.runs) == 20
    for answer in (
        which_episodes(book, history, f"models/{PUSH}/bc"),
        what_is_stale(book, history),
        verify(book, history),
    ):
        assert not answer.ok
        assert file.name in answer.text()
        assert "20 run records" in answer.text()
        assert json.loads(answer.json())["records"]["faults"][0]["file"] == str(file)


def test_a_lost_episode_set_is_a_fault(copy: MadeUp) -> None:
    lost = next(copy.paths.episode_set("x").parent.glob("*.json"))
    lost.unlink()
    book, _ = open_book(copy.paths.root)
    assert [fault.file for fault in book.faults] == [str(lost)]


def test_acceptances_are_sealed(copy: MadeUp) -> None:
    file = next(copy.paths.accepted.glob("*.json"))
    values = read_json(file)
    assert next(iter(values)) == "seal"
    file.write_text(file.read_text().replace('"name"', '"name" '))
    book, _ = open_book(copy.paths.root)
    assert [fault.file for fault in book.faults] == [str(file)]
