"""Decisions: signed, in order, and any change of them is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from world4rl.errors import DataError
from world4rl.paths import Paths
from world4rl.provenance import keys
from world4rl.provenance.decisions import Decisions, Deployment, Promotion

POLICY, OTHER = "a" * 64, "b" * 64


@pytest.fixture
def private(tmp_path: Path) -> Path:
    private = tmp_path / "private.pem"
    keys.make_keys(private, tmp_path / "repository" / "keys" / "ada.pem")
    return private


@pytest.fixture
def decisions(tmp_path: Path, private: Path) -> Decisions:
    decisions = Decisions(Paths(tmp_path / "repository"))
    said = {"at": "2026-01-01T00:00:00Z", "by": "ada", "because": "it is better"}
    decisions.add(
        (), Promotion(task="reach-v3", policy=POLICY, replaces=None, evidence={"gain": 12.0}, **said), private
    )
    decisions.add((), Deployment(robot="arm-1", task="reach-v3", policy=POLICY, **said), private)
    return decisions


def files(decisions: Decisions, tmp_path: Path, suffix: str) -> list[Path]:
    return sorted((tmp_path / "repository" / "data" / "decisions").glob(f"*{suffix}"))


def test_they_come_back_in_order_and_as_what_they_were(decisions: Decisions) -> None:
    promotion, deployment = (record.predicate for record in decisions.read())
    assert isinstance(promotion, Promotion)
    assert promotion.evidence == {"gain": 12.0}
    assert isinstance(deployment, Deployment)
    assert deployment.robot == "arm-1"


def test_a_signature_is_needed_and_a_trusted_one(decisions: Decisions, tmp_path: Path) -> None:
    signature = files(decisions, tmp_path, ".sig")[1]
    kept = signature.read_text()
    signature.unlink()
    with pytest.raises(DataError, match="is missing") as missing:
        decisions.read()
    assert missing.value.where == str(signature)
    signature.write_text(files(decisions, tmp_path, ".sig")[0].read_text())
    with pytest.raises(DataError, match="no trusted key") as caught:
        decisions.read()
    assert signature.name in str(caught.value)
    signature.write_text(kept)
    decisions.read()
    (tmp_path / "repository" / "keys" / "ada.pem").unlink()
    with pytest.raises(DataError, match="no trusted key"):
        decisions.read()


def test_a_record_that_was_made_anew_by_somebody_else_is_noticed(decisions: Decisions, tmp_path: Path) -> None:
    path = files(decisions, tmp_path, ".json")[1]
    path.write_text(path.read_text().replace("arm-1", "arm-2"))
    with pytest.raises(DataError, match="not what its name says") as caught:
        decisions.read()
    assert path.name in str(caught.value)


def test_the_private_key_is_its_owners_alone(private: Path) -> None:
    assert private.stat().st_mode & 0o077 == 0


def test_a_signature_has_one_form(decisions: Decisions, tmp_path: Path) -> None:
    signature = files(decisions, tmp_path, ".sig")[0]
    text = signature.read_text()
    for changed in (text.upper(), text.strip(), f" {text}", text.replace("\n", "\x0b")):
        signature.write_bytes(changed.encode())
        with pytest.raises(DataError, match="no signature") as caught:
            decisions.read()
        assert signature.name in str(caught.value)


def test_decisions_before_an_unsigned_one_hold(decisions: Decisions, tmp_path: Path) -> None:
    signature = files(decisions, tmp_path, ".sig")[1]
    signature.unlink()
    records, faults = decisions.examine()
    assert len(records) == 1
    assert [fault.where for fault in faults] == [str(signature)]
