"""`dvc.lock`: what stands in it, and how it comes back when DVC was killed while writing it.

DVC empties the file and writes it anew after every stage. Whoever opens the project through here keeps a copy of each
whole state in `.runs/dvc.lock`, and puts that in the place of one that was cut. What ran since the copy was taken is
no longer known to have run; DVC's run cache brings it back without computing it.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from world4rl.errors import DataError
from world4rl.files import replacing
from world4rl.paths import Paths

if TYPE_CHECKING:
    from dvc.repo import Repo

LOCK = "dvc.lock"
CONFLICT = b"\n<<<<<<< "
_log = logging.getLogger(__name__)


def open_repo(root: Path) -> Repo:
    """DVC's repository, after a look at its lock file. Whoever uses it closes it.

    Raises:
        DataError: `dvc.lock` cannot be read, and no copy of it is there; or somebody merged it and left a conflict.
    """
    from dvc.repo import Repo

    repo = Repo(str(root), _wait_for_lock=True)
    try:
        if not _look(root):
            with repo.lock:  # DVC is not writing it now
                if not _look(root):
                    _bring_back(root)
    except BaseException:
        repo.close()
        raise
    return repo


@lru_cache(maxsize=4)
def parsed_lock(lock: bytes) -> Mapping[str, Any]:
    """The stages in the bytes of a `dvc.lock`, numbers as DVC reads them; nobody changes them.

    That reading takes some 20 ms, and one walk through the lineage asks once a stage.

    Raises:
        DataError: it is no such file.
    """
    from dvc.exceptions import DvcException
    from dvc.utils.serialize import parse_yaml

    try:
        stages = parse_yaml(lock.decode(), LOCK)["stages"]
        if not isinstance(stages, dict) or not all("cmd" in entry for entry in stages.values()):
            raise TypeError("not every stage has its command")
    except (DvcException, KeyError, TypeError, UnicodeDecodeError) as error:
        raise DataError(
            f"not a DVC lock file: {error}",
            where=LOCK,
            remedy="restore it from git, or delete it: finished stages then come back from DVC's run cache",
        ) from None
    return stages


def stages_of(lock: bytes) -> Mapping[str, Any]:
    """The stages in the bytes of a `dvc.lock`; none where it is no such file. Numbers may come as texts."""
    import yaml

    try:
        stages = yaml.load(lock, yaml.CSafeLoader)["stages"]
    except (yaml.YAMLError, KeyError, TypeError):
        return {}
    return stages if isinstance(stages, dict) else {}


def without(lock: bytes, names: Collection[str]) -> bytes:
    """The bytes of a `dvc.lock` that does not know some of the stages."""
    from dvc.utils.serialize import dumps_yaml, parse_yaml_for_update

    content = parse_yaml_for_update(lock.decode(), LOCK)
    for name in names:
        del content["stages"][name]
    return bytes(dumps_yaml(content).encode())


def _look(root: Path) -> bool:
    """Whether `dvc.lock` is whole, or not there; keeps a copy of one that is."""
    try:
        content = (root / LOCK).read_bytes()
    except FileNotFoundError:
        return True
    if not content.endswith(b"\n"):
        return False
    try:
        parsed_lock(content)
    except DataError:
        return False
    _keep(Paths(root).kept_lock, content)
    return True


def _keep(copy: Path, content: bytes) -> None:
    with suppress(FileNotFoundError):
        if copy.read_bytes() == content:
            return
    with replacing(copy) as fresh:
        fresh.write_bytes(content)


def _bring_back(root: Path) -> None:
    path, copy = root / LOCK, Paths(root).kept_lock
    content = path.read_bytes()
    if CONFLICT in b"\n" + content or not copy.is_file():
        parsed_lock(content)  # tells what is wrong with it; all that may be missing is the end of its last line
        return
    with replacing(path) as fresh:
        fresh.write_bytes(copy.read_bytes())
    with replacing(copy.with_name(f"{LOCK}.cut")) as fresh:
        fresh.write_bytes(content)
    _log.warning("%s was cut, by a kill perhaps; the state before has come back, and what it lacks will", path)
