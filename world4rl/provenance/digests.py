"""Digests of files, folders and arrays: what "the same data" means everywhere in this repository.

All digests are SHA-256 in lower-case hex. Those of arrays cover dtype and shape as well as the bytes, so that no two
different arrays share one; lists of digests are summed up by the Merkle tree of RFC 6962.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from world4rl.errors import DataError

if TYPE_CHECKING:
    import numpy as np


def digest_bytes(content: bytes) -> str:
    """SHA-256 of bytes."""
    return hashlib.sha256(content).hexdigest()


def digest_json(value: Any) -> str:
    """Digest of a JSON value, whatever the order of its keys."""
    return digest_bytes(json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())


def digest_arrays(arrays: Mapping[str, np.ndarray], *, header: Any = None) -> str:
    """Digest of named arrays and of a JSON header, whatever the order of the names.

    Args:
        arrays: Arrays of numbers or booleans by name; memory layout and byte order do not matter.
        header: What else belongs to the content.
    """
    import numpy as np  # takes longer to import than most questions about records take to answer

    running = hashlib.sha256()
    little = {
        name: np.ascontiguousarray(array, array.dtype.newbyteorder("<")) for name, array in sorted(arrays.items())
    }
    shapes = {name: [array.dtype.str, list(array.shape)] for name, array in little.items()}
    running.update(digest_json({"header": header, "arrays": shapes}).encode())
    for array in little.values():
        running.update(array.data if array.size else b"")
    return running.hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror}", where=path, remedy="restore it or run its stage again"
        ) from error


def digest_folder(folder: Path) -> str:
    """Digest of a folder's files: their relative paths and bytes; empty folders, times and modes do not count.

    Raises:
        DataError: the folder is missing or a file in it cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError("no such folder", where=folder, remedy="restore it or run its stage again")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return digest_files({path.relative_to(folder).as_posix(): digest_file(path) for path in files})


def digest_files(files: Mapping[str, str]) -> str:
    """Digest of a folder whose files have these digests, by their paths relative to it."""
    return digest_json(dict(files))


def merkle_root(digests: Iterable[str]) -> str:
    """Root of the Merkle tree (RFC 6962) over digests in their order.

    Leaves and inner nodes are hashed with different prefixes, so that no list of digests can pass for another.
    """
    leaves = [hashlib.sha256(b"\x00" + bytes.fromhex(digest)).digest() for digest in digests]
    return _tree(leaves).hex()


def _tree(nodes: Sequence[bytes]) -> bytes:
    if not nodes:
        return hashlib.sha256(b"").digest()
    if len(nodes) == 1:
        return nodes[0]
    split = 1 << (len(nodes) - 1).bit_length() - 1  # the largest power of two below the number of leaves
    return hashlib.sha256(b"\x01" + _tree(nodes[:split]) + _tree(nodes[split:])).digest()
