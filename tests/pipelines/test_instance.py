"""The settings of the persistent instance: written once, replaced only where nobody edited them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipelines import instance
from pipelines.instance import SETTINGS, prepare_home
from world4rl.provenance.digests import digest_bytes


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")  # so that what prepare_home sets is undone
    monkeypatch.setenv("DAGSTER_DISABLE_TELEMETRY", "1")


def test_taking_datasets_never_waits_for_training(tmp_path: Path) -> None:
    settings = yaml.safe_load((prepare_home(tmp_path) / "dagster.yaml").read_text())
    runs = settings["concurrency"]["runs"]
    limits = {limit["key"]: limit["limit"] for limit in runs["tag_concurrency_limits"]}
    assert limits == {"world4rl/passage": 2, "world4rl/dataset": 2, "dagster/partition": 1}
    assert runs["max_concurrent_runs"] > limits["world4rl/passage"] + limits["world4rl/dataset"]
    assert settings["concurrency"]["pools"] == {"default_limit": 1, "granularity": "op"}


def test_edited_settings_stay_and_those_of_an_earlier_version_are_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instance, "FORMER", {digest_bytes(b"# of before\n")})
    file = prepare_home(tmp_path) / "dagster.yaml"
    file.write_text("# of before\n")
    prepare_home(tmp_path)
    assert file.read_text() == SETTINGS
    file.write_text("# of mine\n")
    prepare_home(tmp_path)
    assert file.read_text() == "# of mine\n"
