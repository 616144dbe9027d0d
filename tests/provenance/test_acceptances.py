"""Records of accepted datasets: sealed, so that every change is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from world4rl.errors import DataError
from world4rl.paths import Paths
from world4rl.provenance.manifests import Acceptance, LandedEpisode, read_acceptances, write_acceptance
from world4rl.provenance.statement import Statement


@pytest.fixture
def acceptance() -> Acceptance:
    episode = LandedEpisode(episode=0, task="reach-v3", length=9, success=True, digest="e" * 64)
    statement = Statement(operator="Ada ✓", licence="CC-BY-4.0")
    return Acceptance(id="d" * 16, name="from ada", digest="d" * 64, statement=statement, episodes=(episode,))


def test_they_come_back_as_they_were_written(acceptance: Acceptance, tmp_path: Path) -> None:
    write_acceptance(acceptance, Paths(tmp_path))
    assert read_acceptances(Paths(tmp_path)) == [acceptance]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(data=st.data())
def test_one_changed_byte_names_the_file(acceptance: Acceptance, tmp_path: Path, data: st.DataObject) -> None:
    write_acceptance(acceptance, Paths(tmp_path))
    (path,) = Paths(tmp_path).accepted.glob("*.json")
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(content))
    with pytest.raises(DataError) as caught:
        read_acceptances(Paths(tmp_path))
    assert path.name in str(caught.value)


def test_a_record_under_another_name_is_none(acceptance: Acceptance, tmp_path: Path) -> None:
    write_acceptance(acceptance, Paths(tmp_path))
    (path,) = Paths(tmp_path).accepted.glob("*.json")
    path.rename(path.with_stem("other"))
    with pytest.raises(DataError, match="seal"):
        read_acceptances(Paths(tmp_path))
