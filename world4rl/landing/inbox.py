"""What lies in the landing folder: every direct subfolder is a dataset, whole or still on its way.

The folder may be on any file system that fsspec knows. Listing it reads no data: a dataset is recognised again by its
fingerprint, the names, sizes and versions (modification time or entity tag) of its files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

from world4rl.errors import ConfigError, DataError, MachineError, World4RLError
from world4rl.files import disk_full
from world4rl.landing.marker import MARKER
from world4rl.provenance.digests import digest_bytes, digest_json

UPLOADING = "_LANDING"  # there from the first file of `world4rl land` to its marker: never take this for quiet
LINK, IRREGULAR = "link", "irregular"  # in place of a size: nothing of the kind is copied
HIDDEN = (".", "_")  # prefixes of names that are no datasets: what copying tools write while they work


@dataclass(frozen=True)
class Arrival:
    """A folder in the landing folder.

    Attributes:
        name: Of the folder.
        marker: Version of its marker; None where there is none.
        uploading: Whether `world4rl land` is at work on it, or was interrupted; its marker does not count yet.
        fingerprint: Changes whenever a file in it does; begins with the version of the marker.
    """

    name: str
    marker: str | None
    uploading: bool
    fingerprint: str

    def has_marker_of(self, fingerprint: str) -> bool:
        """Whether it has the marker that it had when its fingerprint was this one."""
        return self.marker is not None and fingerprint.startswith(self.marker)


def open_inbox(address: str, root: Path) -> Inbox:
    """The landing folder at an address; one without a protocol is a path, below `root` unless absolute."""
    return Inbox(address if "://" in address else str((root / address).resolve()))


class Inbox:
    """The landing folder.

    Args:
        address: A local path, or any address that fsspec knows, e.g. `s3://bucket/landing`.

    Raises:
        ConfigError: fsspec does not know it, or lacks the package for it.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        # Nothing that was listed before counts: whether something changed is what we are here to find out.
        try:
            self._fs, self._root = fsspec.core.url_to_fs(address, use_listings_cache=False, skip_instance_cache=True)
        except (ValueError, ImportError) as error:
            raise ConfigError(
                f"no such landing folder can be reached: {error}",
                where=address,
                remedy="give a path, or an address that fsspec knows, like s3://BUCKET/FOLDER",
            ) from error

    def is_there(self) -> bool:
        """Whether there is a landing folder; of a store of objects, which has no empty folders, whether the bucket is.

        Raises:
            MachineError: the file system cannot be asked.
        """
        local = "file" in (self._fs.protocol if isinstance(self._fs.protocol, tuple) else (self._fs.protocol,))
        with self._reaching():
            return bool(self._fs.exists(self._root if local else self._root.split("/")[0]))

    def names(self) -> list[str]:
        """Folders in the landing folder, sorted; none where it does not exist yet.

        Raises:
            MachineError: the landing folder cannot be listed.
        """
        with self._reaching():
            try:
                entries = self._fs.ls(self._root, detail=True)
            except FileNotFoundError:
                return []
        names = (str(entry["name"]).rstrip("/").rpartition("/")[2] for entry in entries if entry["type"] == "directory")
        return sorted(name for name in names if not name.startswith(HIDDEN))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except World4RLError:
            raise
        except Exception as error:
            raise MachineError(
                f"the landing folder cannot be written: {error}",
                where=self.address,
                remedy="restore access to it, make room there, or name another one with --to; the same command again "
                "goes on from there",
            ) from error

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, World4RLError):
            raise
        except Exception as error:  # each file system and network library has errors of its own
            if disk_full(error):
                raise
            raise MachineError(
                f"the landing folder cannot be read: {error}",
                where=self.address,
                remedy="restore access to it; what lies there waits meanwhile",
            ) from error

    def look(self, name: str) -> Arrival | None:
        """A folder as it is now; None where it has gone, or is empty.

        Raises:
            MachineError: it cannot be read.
        """
        files = self._listed(name)
        if not files:  # or its owner lets nobody in: a listing tells no errors
            with suppress(FileNotFoundError), self._reaching():
                self._fs.info(self._path(name, MARKER))
            return None
        uploading = UPLOADING in files
        marker = digest_json(files[MARKER]) if MARKER in files and not uploading else None
        return Arrival(name, marker, uploading, f"{marker or ''}{digest_json(files)}")

    def files(self, name: str) -> dict[str, list[Any]]:
        """Size and version of every file of a dataset by its path in it, the marker apart.

        A link has `LINK` for a size, and what is neither file nor link `IRREGULAR`.

        Raises:
            MachineError: it cannot be read.
        """
        return {path: version for path, version in self._listed(name).items() if path != MARKER}

    def _listed(self, name: str) -> dict[str, list[Any]]:
        prefix = self._path(name, "")
        try:
            with self._reaching():
                found = self._fs.find(prefix, detail=True)
        except FileNotFoundError:
            return {}
        return dict(sorted((str(path).removeprefix(prefix), _version(info)) for path, info in found.items()))

    def marker(self, name: str) -> bytes:
        """The bytes of a dataset's marker.

        Raises:
            FileNotFoundError: it has gone.
            DataError: it is no file.
            MachineError: it cannot be read.
        """
        version = self._listed(name).get(MARKER)
        if version is not None:
            _require_regular(MARKER, version)
        with self._reaching():
            return bytes(self._fs.cat_file(self._path(name, MARKER)))

    def fetch(self, name: str, files: Mapping[str, Any], target: Path) -> Iterator[str]:
        """Copies files of a dataset below a local folder, one at a time; yields the path of each.

        Raises:
            FileNotFoundError: a file has gone.
            DataError: something is no file, or its path would lead out of the folder.
            MachineError: the landing folder cannot be read.
            OSError: the disk is full.
        """
        for path, version in files.items():
            _require_file(path, version, target)
        for path in files:
            local = target / path
            local.parent.mkdir(parents=True, exist_ok=True)
            with self._reaching():
                self._fs.get_file(self._path(name, path), str(local))
            yield path

    def put(self, name: str, files: Mapping[str, Path], marker: bytes) -> Iterator[str]:
        """Copies local files into a new dataset of the landing folder, the marker last; yields the path of each.

        What an interrupted call with the same marker left is written again.

        Raises:
            DataError: there is such a folder already, and another call made it; or there is no such bucket.
            MachineError: the landing folder cannot be reached or written.
        """
        self.names()  # also stores of objects say here that they cannot be reached, and not that there is no bucket
        if "://" in self.address and not self.is_there():
            raise DataError("there is no such place to land datasets", where=self.address, remedy="make the bucket")
        folder_there = self._fs.exists(self._path(name, "").rstrip("/"))
        with self._writing():
            uploading = self._path(name, UPLOADING)
            own = digest_bytes(marker).encode()  # somebody else may be landing another dataset under the same name
            if folder_there and not self._fs.exists(uploading):
                raise DataError(
                    "there is a dataset of this name in the landing folder",
                    where=f"{self.address}/{name}",
                    remedy="choose another one with --name",
                )
            if folder_there and self._fs.cat_file(uploading) != own:
                raise DataError(
                    "another dataset of this name is on its way into the landing folder, or its upload broke off",
                    where=f"{self.address}/{name}",
                    remedy="choose another one with --name, or remove the folder if nobody is landing it",
                )
            self._fs.makedirs(self._path(name, "").rstrip("/"), exist_ok=True)
            self._fs.pipe_file(uploading, own)
            for path, local in files.items():
                target = self._path(name, path)
                self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
                self._fs.put_file(str(local), target)
                yield path
            self._fs.pipe_file(self._path(name, MARKER), marker)
            self._fs.rm_file(uploading)

    def remove(self, name: str) -> None:
        """Removes a dataset from the landing folder; one that is not there is fine."""
        with suppress(FileNotFoundError):
            self._fs.rm(self._path(name, "").rstrip("/"), recursive=True)
        self._fs.invalidate_cache()

    def _path(self, name: str, path: str) -> str:
        return f"{self._root.rstrip('/')}/{name}/{path}"


def _require_regular(path: str, version: list[Any]) -> None:
    if version[0] == LINK:
        raise DataError("is a link, and links are not followed", where=path, remedy="copy with `cp -rL`")
    if version[0] == IRREGULAR:
        raise DataError("is no regular file", where=path, remedy="remove it")


def _require_file(path: str, version: list[Any], target: Path) -> None:
    _require_regular(path, version)
    if path.startswith(f"{MARKER}/"):
        raise DataError("is in a folder that has the marker's name", where=path, remedy=f"remove {MARKER}")
    if not (target / path).resolve().is_relative_to(target.resolve()):
        raise DataError("the path leads out of the dataset", where=path, remedy="rename the file")


def _version(info: Mapping[str, Any]) -> list[Any]:
    if info.get("islink"):
        return [LINK, str(info.get("destination"))]
    if info["type"] != "file":
        return [IRREGULAR, str(info["type"])]
    for key in ("ETag", "etag", "mtime", "LastModified", "updated", "last_modified"):
        if info.get(key) is not None:
            return [info["size"], str(info[key])]
    return [info["size"], ""]
