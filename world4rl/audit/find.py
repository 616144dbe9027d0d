"""Finds out what a file is: by its content first, wherever it lies, then by its digest or its recorded path."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from world4rl.audit.book import Book
from world4rl.audit.versions import History, Version
from world4rl.errors import DataError
from world4rl.provenance.digests import digest_file, digest_files

PREFIX = 8  # digits of a digest that are taken for one


@dataclass(frozen=True)
class Found:
    """What something is.

    Attributes:
        asked: As it was asked for.
        digest: Of its content; what was given where a digest was.
        versions: The versions that it is, or is a part of, newest first; empty where no run made it.
        how: How that is known, in words.
        exact: Whether the content itself was recognised, all of it.
    """

    asked: str
    digest: str | None
    versions: tuple[Version, ...]
    how: str
    exact: bool


def find(book: Book, history: History, asked: str) -> Found:
    """What a path or digest stands for.

    Raises:
        DataError: there is nothing of that name here, on record or among the digests.
    """
    for path in (Path(asked), book.paths.root / asked):
        if path.exists():
            return _content(book, history, asked, path)
    if re.fullmatch(rf"[0-9a-f]{{{PREFIX},64}}", asked):
        whole = {one for one in history.made_by if one.digest.startswith(asked)}
        parts = {one for one, files in history.files.items() if any(d.startswith(asked) for d in files.values())}
        found = _newest_first(history, whole | parts)
        return Found(asked, asked, found, "a run made something with this digest" if found else "", bool(found))
    name = asked.rstrip("/")
    newest = _newest_first(history, (one for one in history.made_by if _within(name, one, history)))[:1]
    if newest:
        return Found(asked, newest[0].digest, newest, "not here; the newest version that is on record", False)
    raise DataError(
        "there is no such file, and no run made one",
        where=asked,
        remedy="give a file or folder, a recorded path, or at least 8 digits of a SHA-256",
    )


def on_record(history: History, path: str) -> Found:
    """The newest version of an output, without a look at the disk."""
    return Found(path, history.current[path].digest, (history.current[path],), "as its newest run recorded it", True)


def relative(book: Book, path: Path) -> str | None:
    """A path as the records name it; None outside the repository."""
    try:
        return path.resolve().relative_to(book.paths.root.resolve()).as_posix()
    except ValueError:
        return None


def files_of(path: Path) -> dict[str, str]:
    """The digests of a folder's files by their relative paths; a file's own at `.`.

    Raises:
        DataError: one cannot be read.
    """
    if path.is_dir():
        files = sorted(one for one in path.rglob("*") if one.is_file())
        return {one.relative_to(path).as_posix(): digest_file(one) for one in files}
    return {".": digest_file(path)}


def _content(book: Book, history: History, asked: str, path: Path) -> Found:
    files = files_of(path)
    digest = files["."] if path.is_file() else digest_files(files)
    name = relative(book, path)
    whole = {version for version in history.made_by if version.digest == digest}
    if whole:
        return Found(asked, digest, _here(history, whole, name), "its content is that of what a run made", True)
    if name is not None and history.children(name):
        return _above(asked, digest, name, files, history)
    holders: dict[str, set[Version]] = defaultdict(set)
    for version, own in history.files.items():
        for each in own.values():
            holders[each].add(version)
    known = Counter(version for each in files.values() for version in holders.get(each, ()))
    if not known:
        return Found(asked, digest, (), "no run made these bytes", False)
    most = max(known.values())
    best = _here(history, {version for version, found in known.items() if found == most}, name)
    if most == len(files):
        return Found(asked, digest, best, "its content is a part of what a run made", True)
    return Found(asked, digest, best, f"{most} of its {len(files)} files are those of what a run made", False)


def _above(asked: str, digest: str, name: str, files: Mapping[str, str], history: History) -> Found:
    """A folder of the repository that holds the outputs of several runs."""
    found: set[Version] = set()
    known = set()
    for path in history.children(name):
        below = path[len(name) + 1 :]
        own = {
            "." if one == below else one[len(below) + 1 :]: one for one in files if f"{one}/".startswith(f"{below}/")
        }
        for version in reversed(history.versions[path]):
            same = {own[one] for one, each in history.files[version].items() if one in own and files[own[one]] == each}
            if same and len(same) == len(own):
                found.add(version)
                known |= same
                break
    how = f"{len(known)} of its {len(files)} files are those of what runs made"
    return Found(asked, digest, _newest_first(history, found), how, len(known) == len(files))


def _within(name: str, version: Version, history: History) -> bool:
    if not name.startswith(f"{version.path}/"):
        return name == version.path
    return name[len(version.path) + 1 :] in history.files[version]


def _here(history: History, versions: set[Version], name: str | None) -> tuple[Version, ...]:
    """Among equals, those that belong where the file lies."""
    own = {one for one in versions if name is not None and f"{name}/".startswith(f"{one.path}/")}
    return _newest_first(history, own or versions)


def _newest_first(history: History, versions: Iterable[Version]) -> tuple[Version, ...]:
    return tuple(sorted(versions, key=lambda one: (-history.made_by[one][-1], one.path)))
