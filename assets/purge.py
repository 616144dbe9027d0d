"""Takes objects out of DVC's cache and remotes: what `dvc gc` cannot do, because it only knows what is in use.

Beside `dvc_project` the only module that knows how DVC keeps things: objects by their MD5, folders as `.dir` objects
that list their files, every run of a stage in the run cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assets.dvc_lock import LOCK, open_repo
from world4rl.errors import DataError, MachineError
from world4rl.provenance.digests import digest_files

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc_data.hashfile.db import HashFileDB

DIRECTORY = ".dir"
COMMAND = "world4rl withdraw"


@dataclass(frozen=True)
class Found:
    """Objects in a storage.

    Attributes:
        storage: `cache`, or the remote's name.
        bytes: Size by object.
    """

    storage: str
    bytes: Mapping[str, int]


class Storages:
    """The cache of a project and all its remotes.

    Args:
        root: Folder of `dvc.yaml`.

    Raises:
        MachineError: a remote cannot be reached, or keeps its files under their own names.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root).resolve()
        self._repo: Repo = open_repo(self.root)
        self._odbs: dict[str, HashFileDB] = {"cache": self._repo.cache.local}
        for name in sorted(self._repo.config["remote"]):
            self._odbs[name] = self._remote(name)
        self._trees: dict[str, Mapping[str, str]] = {}

    @property
    def remotes(self) -> list[str]:
        """Names of the remotes."""
        return [name for name in self._odbs if name != "cache"]

    def close(self) -> None:
        """Lets go of DVC's databases."""
        self._repo.close()

    @contextmanager
    def exclusively(self, folders: Sequence[Path]) -> Iterator[None]:
        """Keeps stages that read or write the folders from running meanwhile.

        Raises:
            MachineError: one is running.
        """
        from dvc.lock import LockError
        from dvc.rwlock import rwlock

        paths = [str(self.root / folder) for folder in folders]
        hardlink = self._repo.config["core"].get("hardlink_lock", False)
        with ExitStack() as stack:
            try:
                stack.enter_context(rwlock(self._repo.tmp_dir, self._repo.fs, COMMAND, [], paths, hardlink))
            except LockError as error:
                raise MachineError(
                    f"a stage is at work on the data: {str(error).splitlines()[0]}",
                    where=self.root,
                    remedy="wait until it is done, or stop it, and give the same command again",
                ) from error
            yield

    def trees(self) -> Mapping[str, Mapping[str, str]]:
        """Every version of every folder by its object: the files' objects by path.

        A folder is known as long as one storage has its list.
        """
        for odb in self._odbs.values():
            for name in _names(odb):
                if name.endswith(DIRECTORY) and name not in self._trees:
                    self._trees[name] = self._tree(odb, name)
        return self._trees

    def versions(self, paths: Iterable[str]) -> dict[tuple[str, str], str]:
        """Versions of outputs that the lock file or the run cache knows: the object by (path, SHA-256).

        The SHA-256 is that of `provenance.digests`; a version of which nothing is left is not among them. Reads all
        objects of the versions.
        """
        wanted = set(paths)
        outs = {(out["path"], out["md5"]) for out in self._outs() if out["path"] in wanted and "md5" in out}
        found = {}
        for path, name in sorted(outs):
            digest = self._digest(name)
            if digest is not None:
                found[path, digest] = name
        return found

    def parts(self, name: str) -> set[str]:
        """An object and, where it is a folder, those of its files."""
        return {name, *(self._find_tree(name).values() if name.endswith(DIRECTORY) else ())}

    def current(self) -> set[str]:
        """Objects of the single files that the lock file names now, folders apart."""
        return {out["md5"] for out in self._locked() if "md5" in out and not out["md5"].endswith(DIRECTORY)}

    def find(self, names: Iterable[str]) -> list[Found]:
        """Where objects are; storages that have none of them are left out."""
        wanted, found = set(names), []
        for storage, odb in self._odbs.items():
            there = wanted.intersection(_names(odb))
            if there:
                found.append(
                    Found(storage, {one: int(odb.fs.size(odb.oid_to_path(one)) or 0) for one in sorted(there)})
                )
        return found

    def remove(self, found: Found) -> None:
        """Removes objects; those that are gone by now are fine."""
        from dvc_data.hashfile.db import get_index

        odb = self._odbs[found.storage]
        get_index(odb).clear()  # DVC remembers what a remote has, and would not look again before the next push
        for name in found.bytes:
            with suppress(FileNotFoundError):
                odb.delete(name)

    def run(self, *arguments: str) -> None:
        """Runs DVC; what it prints goes to standard error.

        Raises:
            DataError: it failed.
        """
        search = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        done = subprocess.run(
            [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments],
            cwd=self.root,
            env={**os.environ, "PATH": search},
            stdout=sys.stderr,
            check=False,
        )
        if done.returncode:
            raise DataError(
                f"`dvc {' '.join(arguments)}` failed",
                where=self.root,
                remedy="mend what it printed above and give the same command again: it goes on from here",
            )

    def _remote(self, name: str) -> HashFileDB:
        address = str(self._repo.config["remote"][name].get("url", name))
        try:
            remote = self._repo.cloud.get_remote(name)
            named = remote.fs.version_aware or remote.worktree
            there = named or _reachable(remote.fs, remote.path)
        except Exception as error:  # whatever the library of a remote's protocol raises
            raise _gone(name, address, error) from error
        if named:
            raise MachineError(
                f"the remote {name} keeps files under their own names, in all their versions",
                where=address,
                remedy="remove them there by its own means, and `dvc remote remove` it before withdrawing here",
            )
        if not there:
            raise _gone(name, address, "there is no such place")
        return remote.odb

    def _tree(self, odb: HashFileDB, name: str) -> Mapping[str, str]:
        try:
            with odb.fs.open(odb.oid_to_path(name), "r") as file:
                return {entry["relpath"]: entry["md5"] for entry in json.load(file)}
        except (ValueError, TypeError, KeyError):
            raise DataError(
                "this list of a folder's files is damaged",
                where=odb.oid_to_path(name),
                remedy="remove it: `dvc push` or the stage that made the folder writes it again",
            ) from None

    def _find_tree(self, name: str) -> Mapping[str, str]:
        return self.trees().get(name, {}) if name not in self._trees else self._trees[name]

    def _digest(self, name: str) -> str | None:
        """SHA-256 of an object as `digest_file` or `digest_folder` has it; None where a part of it is nowhere."""
        if not name.endswith(DIRECTORY):
            return self._sha256(name)
        tree = self._find_tree(name)
        digests: dict[str, str] = {}
        for path, part in tree.items():
            digest = self._sha256(part)
            if digest is None:
                return None
            digests[path] = digest
        return digest_files(digests) if tree else None

    def _sha256(self, name: str) -> str | None:
        for odb in self._odbs.values():
            with suppress(FileNotFoundError), odb.fs.open(odb.oid_to_path(name), "rb") as file:
                running = hashlib.sha256()
                while part := file.read(1 << 20):
                    running.update(part)
                return running.hexdigest()
        return None

    def _locked(self) -> Iterator[Mapping[str, Any]]:
        from dvc.utils.serialize import load_yaml

        path = self.root / LOCK
        if path.exists():
            for stage in load_yaml(str(path)).get("stages", {}).values():
                yield from stage.get("outs", ())

    def _outs(self) -> Iterator[Mapping[str, Any]]:
        from dvc.utils.serialize import load_yaml

        yield from self._locked()
        for path in sorted(Path(self._repo.stage_cache.cache_dir).glob("??/*/*")):
            if path.is_file():
                yield from load_yaml(str(path)).get("outs", ())


def _gone(name: str, address: str, why: object) -> MachineError:
    return MachineError(
        f"the remote {name} cannot be reached: {why}; nothing was changed",
        where=address,
        remedy=f"restore access to it, or give it up with `dvc remote remove {name}`",
    )


def _names(odb: HashFileDB) -> Iterator[str]:
    with suppress(FileNotFoundError):
        yield from odb.all()


def _reachable(fs: Any, path: str) -> bool:
    """Whether a remote is there. Object stores know no empty folders: there the bucket has to be."""
    if fs.exists(path):
        return True
    if fs.protocol == "local":
        return False
    return bool(fs.exists(path.strip("/").partition("/")[0]))
