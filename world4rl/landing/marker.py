"""`_COMPLETE`: the file that says a landed dataset is whole, and what every file in it must contain.

Whoever copies a dataset writes it last. It is JSON:

    {"format": 1, "files": {"meta/info.json": {"bytes": 1234, "sha256": "…"}, …}}
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from world4rl.errors import DataError
from world4rl.provenance.digests import digest_file, digest_json

MARKER = "_COMPLETE"
AGAIN = "copy the dataset again with `world4rl land`, which writes the marker last"


class FileEntry(BaseModel):
    """What a file must contain."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Marker(BaseModel):
    """The content of a `_COMPLETE` file."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: Literal[1] = 1
    files: dict[str, FileEntry]

    @property
    def digest(self) -> str:
        """Digest of the dataset: the names and contents of its files, wherever it lies and whatever it is called."""
        return digest_json({name: entry.sha256 for name, entry in self.files.items()})


def parse_marker(content: bytes, where: str) -> Marker:
    """Reads a marker.

    Raises:
        DataError: it is not one.
    """
    try:
        return Marker.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(
            f"the marker cannot be read: {'.'.join(map(str, first['loc'])) or 'content'}: {first['msg']}",
            where=where,
            remedy=AGAIN,
        ) from None


def mark(folder: Path) -> Marker:
    """The marker that fits the files of a local folder; reads all of them.

    Raises:
        DataError: a file cannot be read.
    """
    files = {
        path.relative_to(folder).as_posix(): FileEntry(bytes=path.stat().st_size, sha256=digest_file(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MARKER
    }
    return Marker(files=files)


def disagreements(promised: Marker, found: Marker) -> list[str]:
    """How the files of a dataset differ from what its marker promises, a sentence each; empty when they agree."""
    return [
        *_listed(promised.files.keys() - found.files.keys(), "is missing"),
        *_listed(found.files.keys() - promised.files.keys(), "is not in the marker"),
        *_listed(_differing(promised.files, found.files), "has another content than the marker says"),
    ]


def _differing(promised: Mapping[str, FileEntry], found: Mapping[str, FileEntry]) -> set[str]:
    return {name for name in promised.keys() & found.keys() if promised[name] != found[name]}


def _listed(names: set[str], what: str) -> list[str]:
    return [f"{name} {what}" for name in sorted(names)]
