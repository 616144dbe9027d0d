"""Files that are either whole or absent: write under a temporary name beside the target, then rename."""

from __future__ import annotations

import errno
import fcntl
import glob
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from world4rl.errors import MachineError

ABANDONED_SECONDS = 60.0
FULL = (os.strerror(errno.ENOSPC), "database or disk is full")  # the latter is SQLite's


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yields a temporary path beside `target` that becomes `target` when the block ends well.

    The caller creates a file or a folder there. If the block raises, the temporary path is removed and
    `target` stays as it was. A folder that is replaced is moved aside first and deleted last. What a process that
    was killed in such a block left behind is removed by the next one for the same target.

    Raises:
        MachineError: the disk is full.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target)
    holder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    lock = os.open(holder, os.O_RDONLY)
    fresh = holder / target.name
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield fresh
        if target.is_dir():
            target.rename(holder / "replaced")
        fresh.replace(target)
    except Exception as error:
        if disk_full(error):
            raise MachineError(
                "the disk is full; nothing was half-written",
                where=target,
                remedy=f"free space on the disk that holds {target.parent} and run the same command again",
            ) from error
        raise
    finally:
        os.close(lock)
        shutil.rmtree(holder, ignore_errors=True)


def _remove_abandoned(target: Path) -> None:
    """Removes the temporary folders of processes that were killed: nobody holds their lock any more."""
    for holder in target.parent.glob(f".{glob.escape(target.name)}.*.partial"):
        try:
            lock = os.open(holder, os.O_RDONLY)
        except FileNotFoundError:
            continue  # its owner finished meanwhile
        try:
            if time.time() - os.fstat(lock).st_mtime > ABANDONED_SECONDS:  # younger: its owner may be about to lock it
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(holder, ignore_errors=True)
        except BlockingIOError:
            continue
        finally:
            os.close(lock)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock, named by a file, that only one process at a time can have; waits for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Holds the same lock if nobody has it; yields whether."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def disk_full(error: BaseException | None) -> bool:
    """Whether a full disk is what an error, or what caused it, is about.

    SQLite and libraries that write from Rust or C++ keep the reason in the message only.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(words in str(error) for words in FULL):
            return True
        error = error.__cause__ or error.__context__
    return False


def write_text(target: Path, text: str) -> None:
    """Writes `text` to `target` atomically: whole or not at all, also after a loss of power."""
    with replacing(target) as fresh, fresh.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())  # the new name may reach the disk before the bytes do


def write_json(target: Path, value: Any) -> None:
    """Writes `value` as indented JSON with sorted keys (so that equal values give equal bytes)."""
    write_text(target, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(source: Path) -> Any:
    """Reads a JSON file."""
    return json.loads(Path(source).read_text(encoding="utf-8"))
