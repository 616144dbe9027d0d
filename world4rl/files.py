"""Files that are either whole or absent: write under a temporary name beside the target, then rename."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from world4rl.errors import MachineError


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yields a temporary path beside `target` that becomes `target` when the block ends well.

    The caller creates a file or a folder there. If the block raises, the temporary path is removed and
    `target` stays as it was. A folder that is replaced is moved aside first and deleted last.

    Raises:
        MachineError: the disk is full.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    holder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    fresh = holder / target.name
    try:
        yield fresh
        if target.is_dir():
            target.rename(holder / "replaced")
        os.replace(fresh, target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise MachineError(
                "the disk is full; nothing was half-written",
                where=target,
                remedy=f"free space on the disk that holds {target.parent} and run the same command again",
            ) from error
        raise
    finally:
        shutil.rmtree(holder, ignore_errors=True)


def write_text(target: Path, text: str) -> None:
    """Writes `text` to `target` atomically."""
    with replacing(target) as fresh:
        fresh.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any) -> None:
    """Writes `value` as indented JSON with sorted keys (so that equal values give equal bytes)."""
    write_text(target, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(source: Path) -> Any:
    """Reads a JSON file."""
    return json.loads(Path(source).read_text(encoding="utf-8"))
