"""Digests of files that have not changed since they were last digested: the same bytes are not read twice.

For writing records, where DVC has just said that the files are what it made. Whoever audits files reads them.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from world4rl.errors import DataError
from world4rl.provenance.digests import digest_file, digest_files

FRESH_NS = 50_000_000  # a file changed so lately may change again without its time telling
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS digests "
    "(path TEXT PRIMARY KEY, size INTEGER, mtime INTEGER, inode INTEGER, sha256 TEXT) WITHOUT ROWID"
)


class DigestCache:
    """Digests by path, size, modification time and inode. Several processes may have it open.

    Args:
        path: The database; made when missing, and made anew when it is damaged.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = self._open(path)
        except sqlite3.DatabaseError:
            path.unlink(missing_ok=True)
            self._db = self._open(path)

    def _open(self, path: Path) -> sqlite3.Connection:
        database = sqlite3.connect(path, timeout=30.0, isolation_level=None)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = OFF")  # what is lost is digested again
        database.execute(_SCHEMA)
        return database

    def close(self) -> None:
        """Closes the database."""
        self._db.close()

    def file(self, path: Path) -> str:
        """`digest_file` of a file.

        Raises:
            DataError: the file cannot be read.
        """
        name = str(path.absolute())
        try:
            before = path.stat()
        except OSError:
            return digest_file(path)  # which says why it cannot be read
        key = (before.st_size, before.st_mtime_ns, before.st_ino)
        row = self._db.execute("SELECT size, mtime, inode, sha256 FROM digests WHERE path = ?", (name,)).fetchone()
        if row is not None and row[:3] == key:
            return str(row[3])
        digest = digest_file(path)
        if time.time_ns() - before.st_mtime_ns > FRESH_NS:
            self._db.execute("INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?, ?)", (name, *key, digest))
        return digest

    def folder(self, folder: Path) -> tuple[str, dict[str, str]]:
        """`digest_folder` of a folder, and the digests of its files by their path in it.

        Raises:
            DataError: the folder is missing or a file in it cannot be read.
        """
        if not folder.is_dir():
            raise DataError("no such folder", where=folder, remedy="restore it or run its stage again")
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        digests = {path.relative_to(folder).as_posix(): self.file(path) for path in files}
        return digest_files(digests), digests
