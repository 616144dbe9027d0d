"""The marker: what it promises, what differs, what is no marker."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from world4rl.errors import DataError
from world4rl.landing.marker import MARKER, disagreements, mark, parse_marker


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "info.json").write_text("{}")
    (tmp_path / "data.bin").write_bytes(b"\x00\x01")
    return tmp_path


def test_a_marker_fits_its_own_folder_and_leaves_itself_out(folder: Path) -> None:
    marker = mark(folder)
    (folder / MARKER).write_text(marker.model_dump_json())
    assert disagreements(parse_marker((folder / MARKER).read_bytes(), "here"), mark(folder)) == []
    assert set(marker.files) == {"meta/info.json", "data.bin"}


def test_every_difference_is_named(folder: Path) -> None:
    promised = mark(folder)
    (folder / "data.bin").write_bytes(b"\x00\x02")
    (folder / "meta" / "info.json").rename(folder / "meta" / "other.json")
    assert disagreements(promised, mark(folder)) == [
        "meta/info.json is missing",
        "meta/other.json is not in the marker",
        "data.bin has another content than the marker says",
    ]


def test_the_digest_is_of_names_and_contents_alone(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "renamed"
    folder.rename(elsewhere)
    digest = mark(elsewhere).digest
    (elsewhere / "data.bin").touch()
    assert mark(elsewhere).digest == digest
    (elsewhere / "data.bin").rename(elsewhere / "date.bin")
    assert mark(elsewhere).digest != digest


@given(content=st.binary(max_size=60))
def test_anything_else_is_refused_with_one_error(content: bytes) -> None:
    with pytest.raises(DataError, match="the marker cannot be read"):
        parse_marker(content, "somewhere/_COMPLETE")


@pytest.mark.parametrize(
    "text",
    [
        '{"format": 2, "files": {}}',
        '{"format": 1}',
        '{"format": 1, "files": {"a": {"bytes": -1, "sha256": "0"}}}',
        '{"format": 1, "files": {}, "more": 1}',
    ],
)
def test_a_marker_of_another_shape_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="the marker cannot be read"):
        parse_marker(text.encode(), "somewhere/_COMPLETE")
