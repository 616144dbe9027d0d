"""Remembered digests are those of the files as they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from world4rl.errors import DataError
from world4rl.provenance import digest_cache
from world4rl.provenance.digest_cache import DigestCache
from world4rl.provenance.digests import digest_file, digest_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    for name in ("a", "sub/b"):
        (folder / name).write_text(name)
        os.utime(folder / name, (1e9, 1e9))  # long ago
    return folder


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files whose bytes were read."""
    found: list[Path] = []

    def read(path: Path) -> str:
        found.append(path)
        return digest_file(path)

    monkeypatch.setattr(digest_cache, "digest_file", read)
    return found


def test_it_says_what_digesting_says_and_reads_once(tmp_path: Path, folder: Path, reads: list[Path]) -> None:
    for _ in range(2):  # the second one opens what the first one wrote
        cache = DigestCache(tmp_path / "digests.sqlite")
        digest, files = cache.folder(folder)
        cache.close()
        assert digest == digest_folder(folder)
        assert files == {"a": digest_file(folder / "a"), "sub/b": digest_file(folder / "sub" / "b")}
    assert len(reads) == 2


def test_a_changed_file_is_read_again(tmp_path: Path, folder: Path) -> None:
    cache = DigestCache(tmp_path / "digests.sqlite")
    cache.folder(folder)
    (folder / "a").write_text("c")  # as long as before
    assert cache.folder(folder)[0] == digest_folder(folder)
    before = (folder / "a").stat()
    (folder / "new").write_text("d")
    os.utime(folder / "new", ns=(before.st_atime_ns, before.st_mtime_ns))
    (folder / "new").replace(folder / "a")  # same size, same time, another file
    assert cache.folder(folder)[0] == digest_folder(folder)


def test_a_file_that_is_being_written_is_not_remembered(tmp_path: Path, folder: Path, reads: list[Path]) -> None:
    cache = DigestCache(tmp_path / "digests.sqlite")
    (folder / "a").write_text("fresh")
    for _ in range(2):
        assert cache.file(folder / "a") == digest_file(folder / "a")
        os.utime(folder / "a")
    assert len(reads) == 2


def test_a_damaged_database_is_made_anew(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "digests.sqlite").write_text("no database, but long enough to be taken for one " * 40)
    assert DigestCache(tmp_path / "digests.sqlite").file(folder / "a") == digest_file(folder / "a")


def test_what_is_missing_is_named(tmp_path: Path, folder: Path) -> None:
    cache = DigestCache(tmp_path / "digests.sqlite")
    for call in (cache.file, cache.folder):
        with pytest.raises(DataError, match="gone"):
            call(folder / "gone")
