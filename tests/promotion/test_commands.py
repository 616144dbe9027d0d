"""What is typed: champions, robots and keys on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.promotion.conftest import TASK, Site
from world4rl.cli import app
from world4rl.config import dump_params
from world4rl.errors import ConfigError
from world4rl.files import write_text
from world4rl.paths import Paths
from world4rl.provenance import keys

ADA = ("--by", "ada", "--because", "the gripper is new")


def said(site: Site, *arguments: str) -> str:
    result = CliRunner().invoke(app, [*arguments, "--root", str(site.paths.root)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_from_the_first_challenge_to_the_fleet(site: Site) -> None:
    assert "no task has a champion yet" in said(site, "champions")
    assert "no robot runs a policy" in said(site, "fleet")
    write_text(site.paths.params, dump_params(site.params))
    first = site.refine("good", 0.8)
    said(site, "challenge", "--task", TASK)
    second = site.refine("better", 1.0)
    said(site, "challenge", "--task", TASK)

    shown = said(site, "champions")
    assert shown.startswith(f"{TASK}: {second[:16]} since ")
    assert "promoted by gate" in shown
    assert "evidence: " in shown
    assert first[:16] not in shown
    assert f"{first[:16]} since" in said(site, "champions", "--all")

    out = site.paths.root / "stick"
    deployed = said(site, "deploy", "--task", TASK, "--robot", "arm-1", *ADA, "--out", str(out))
    assert f"arm-1: {TASK} {second[:16]}" in deployed
    assert "(champion)" in deployed
    assert (out / "model.txt").read_text() == "better"
    assert "nothing was recorded" in said(site, "deploy", "--task", TASK, "--robot", "arm-1", *ADA)
    assert "rolled back to by ada" in said(site, "rollback", "--task", TASK, *ADA)
    said(site, "deploy", "--task", TASK, "--robot", "the-arm-by-the-window", *ADA)
    titles, *rows = said(site, "fleet").splitlines()
    assert [row.split()[0] for row in rows] == ["arm-1", "the-arm-by-the-window"]
    column = titles.index("standing")
    assert [row[column:].split("  ")[0] for row in rows] == ["earlier champion", "champion"]
    said(site, "undeploy", "--task", TASK, "--robot", "the-arm-by-the-window", *ADA)
    site.withdraw(second)
    assert "WITHDRAWN at 2026-06-01" in said(site, "fleet")

    (running,) = json.loads(said(site, "fleet", "--json"))
    assert running.items() >= {"robot": "arm-1", "policy": second, "standing": "earlier champion"}.items()
    history: list[dict[str, Any]] = json.loads(said(site, "champions", "--all", "--json"))
    assert [(one["policy"], one["champion"]) for one in history] == [(first, True), (second, False), (first, False)]
    assert [one["withdrawn"] is not None for one in history] == [False, True, False]
    assert "runs no policy" in said(site, "undeploy", "--task", TASK, "--robot", "arm-1", *ADA)
    assert json.loads(said(site, "fleet", "--json")) == []


def test_an_unknown_task_is_one_clear_error(site: Site) -> None:
    write_text(site.paths.params, dump_params(site.params))
    with pytest.raises(ConfigError, match="no task 'sokker-v3'"):
        said(site, "challenge", "--task", "sokker-v3")


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """Nobody has a key."""
    monkeypatch.setenv("WORLD4RL_SIGNING_KEY", str(tmp_path / "stranger" / "key.pem"))
    return Paths(tmp_path / "clone")


def test_keys_are_made_once_and_trusted_under_one_name(stranger: Paths) -> None:
    command = ["keys", "--name", "ada", "--root", str(stranger.root)]
    first = CliRunner().invoke(app, command, catch_exceptions=False).output
    assert str(keys.private_key_path()) in first
    assert "keys/ada.pem" in first
    private = keys.private_key_path().read_bytes()
    again = CliRunner().invoke(app, ["keys", "--name", "countess", "--root", str(stranger.root)]).output
    assert "keys/ada.pem" in again
    assert [path.name for path in stranger.trusted_keys.iterdir()] == ["ada.pem"]
    assert keys.private_key_path().read_bytes() == private
    assert keys.ensure_key(stranger) == keys.private_key_path()
    assert len(list(stranger.trusted_keys.iterdir())) == 1


def test_a_name_that_another_key_has_is_refused(
    stranger: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys.introduce(stranger, "ada")
    before = (stranger.trusted_keys / "ada.pem").read_text()
    monkeypatch.setenv("WORLD4RL_SIGNING_KEY", str(tmp_path / "eve.pem"))
    for _ in range(2):  # without a private key, and with one that was made elsewhere
        with pytest.raises(ConfigError, match=r"another key has this name|there is a key already"):
            keys.introduce(stranger, "ada")
        keys.introduce(Paths(tmp_path / "other"), "eve")
    assert (stranger.trusted_keys / "ada.pem").read_text() == before
    with pytest.raises(ConfigError, match="no name for a key"):
        keys.introduce(stranger, "../ada")
