"""What is stale now, because of what, and since when?

An artefact is stale if something that its newest run read is no longer what that run read: another version of an
input was made since, a file of the repository was changed, a parameter or a module of its code; or if it holds
episodes that were withdrawn since. What was made from something stale is stale as well.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import yaml

from world4rl.audit.answers import Answer, Table, answer, count
from world4rl.audit.book import Book
from world4rl.audit.reach import starts_of
from world4rl.audit.versions import History, Link, Version, digest_inside
from world4rl.config import select_parameter
from world4rl.errors import DataError
from world4rl.provenance.decisions import Withdrawal
from world4rl.provenance.digests import digest_file, digest_folder
from world4rl.provenance.graph import Lineage, Stale, overdue
from world4rl.provenance.manifests import Acceptance, Manifest, build_manifest
from world4rl.provenance.records import Run

PARAMETERS = "params.yaml"


@dataclass
class Now:
    """How things are now.

    Args:
        book: The records.
        history: Their history.
        look: Whether artefacts are read from the disk as well; else they are taken to be what was recorded last.
    """

    book: Book
    history: History
    look: bool
    _digests: dict[str, str | None] = field(default_factory=dict)

    @cached_property
    def newest(self) -> Mapping[str, Version]:
        """The newest version of each path on record."""
        return self.history.current

    def digest(self, path: str) -> str | None:
        """The digest of a file or folder; None where it is gone."""
        if path not in self._digests:
            self._digests[path] = self._find(path)
        return self._digests[path]

    def changed(self, path: str) -> float:
        """When a file or folder changed last on the disk, in seconds since 1970; of one that is gone: when it went."""
        place = self.book.paths.root / path
        while not place.exists():
            place = place.parent
        files = place.rglob("*") if place.is_dir() and place == self.book.paths.root / path else ()
        return max(place.stat().st_mtime, *(one.stat().st_mtime for one in files), 0.0)

    @cached_property
    def parameters(self) -> Any:
        """The values of the parameter file; None where it cannot be read."""
        try:
            return yaml.safe_load(self.book.paths.params.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            return None

    def module(self, path: str) -> str | None:
        """The MD5 of a module; None where it is gone."""
        key = f"md5:{path}"
        if key not in self._digests:
            place = self.book.paths.root / path
            there = place.read_bytes() if place.is_file() else None
            self._digests[key] = None if there is None else hashlib.md5(there, usedforsecurity=False).hexdigest()
        return self._digests[key]

    def _find(self, path: str) -> str | None:
        place, recorded = self.book.paths.root / path, self.newest.get(path)
        if recorded is not None and not (self.look and place.exists()):
            return recorded.digest
        try:
            return digest_folder(place) if place.is_dir() else digest_file(place)
        except DataError:
            return None


def find_stale(book: Book, history: History, *, look: bool = False) -> dict[str, Stale]:
    """The stale artefacts by path.

    Args:
        book: The records.
        history: Their history.
        look: Whether to read the artefacts themselves, too.

    Raises:
        DataError: newest runs made each other's inputs.
    """
    now = Now(book, history, look)
    lineage, lacking = Lineage[str](), dict[str, dict[str, float]]()
    held = _withdrawn(book, history)
    for path, version in history.current.items():
        run = history.made_by[version][-1]
        links = history.links[run]
        lineage.add(path, {one.path for link in links for one in link.versions if one.path != path})
        lacking[path] = {
            **{cause: since for link in links for cause, since in _moved(now, link, run)},
            **dict(_settings(now, book.runs[run].predicate)),
            **({"withdrawn episodes": held[version]} if version in held else {}),
        }
    manifests = dict(_manifests(book))
    for path, since in manifests.items():
        lineage.add(path)
        lacking[path] = {"data/accepted": since}
    try:
        return overdue(lineage, lacking)
    except ValueError as error:
        raise DataError(
            str(error), where=book.paths.records, remedy="run the stages again, in the order of dvc.yaml"
        ) from None


def _moved(now: Now, link: Link, run: int) -> Iterator[tuple[str, float]]:
    """Inputs of a run that are others now, and when they became so."""
    parts = link.versions if link.proven and link.read not in link.versions else (link.read,)
    for part in parts:
        if now.digest(part.path) != part.digest and not _still_inside(now, link.read, part):
            yield part.path, _since(now, part, run)
    if parts == link.versions:
        known = {part.path for part in parts}
        for path in now.history.children(link.read.path):
            first = now.history.made_by[now.history.versions[path][0]][0]
            if path not in known and first > run:  # it was not there yet
                yield path, _ended(now.book, first)


def _still_inside(now: Now, read: Version, part: Version) -> bool:
    """Whether what was read of an artefact is the same in its newest version."""
    newest = now.newest.get(part.path)
    if newest is None or not read.path.startswith(f"{part.path}/") or now.digest(part.path) != newest.digest:
        return False
    return digest_inside(now.history.files[newest], read.path[len(part.path) + 1 :]) == read.digest


def _since(now: Now, part: Version, run: int) -> float:
    """When an input of a run was last what that run read."""
    history = now.history
    made = [(index, one) for one in set(history.versions.get(part.path, ())) for index in history.made_by[one]]
    later = sorted((index, one) for index, one in made if index > run)
    if later and now.digest(part.path) == later[-1][1].digest:
        same = [index for index, one in later if one == part]
        return _ended(now.book, next(index for index, _ in later if index > max(same, default=run)))
    return now.changed(part.path)


def _ended(book: Book, run: int) -> float:
    """When a run ended; where its record leaves that open: when the record was written."""
    ended = book.runs[run].predicate.ended
    return seconds(ended) if ended else book.run_files[run].stat().st_mtime


def _settings(now: Now, run: Run) -> Iterator[tuple[str, float]]:
    """Parameters and modules of the code that are no longer what they were."""
    if now.parameters is not None:
        for name, value in run.parameters.items():
            if not _alike(select_parameter(now.parameters, name), value):
                yield f"{PARAMETERS}: {name}", now.book.paths.params.stat().st_mtime
    for module, digest in run.code.modules.items():
        if now.module(module) != digest:
            yield module, now.changed(module)


def _alike(now: Any, then: Any) -> bool:
    """Whether two values are the same; `6e-05` is a number for one reader of YAML and a text for another."""
    if isinstance(now, Mapping) and isinstance(then, Mapping):
        return now.keys() == then.keys() and all(_alike(now[key], then[key]) for key in now)
    if isinstance(now, list) and isinstance(then, list):
        return len(now) == len(then) and all(map(_alike, now, then))
    if isinstance(now, str) and isinstance(then, float):
        try:
            return float(now) == then
        except ValueError:
            return False
    return now == then


def _withdrawn(book: Book, history: History) -> dict[Version, float]:
    """Versions that hold withdrawn episodes, and since when they should not."""
    found: dict[Version, float] = {}
    for one in book.decided(Withdrawal):
        at = seconds(one.at)
        for version in starts_of(book, history, book.twins(set(one.episodes))):
            found.setdefault(version, at)
        for version, datasets in history.datasets.items():
            if datasets & set(one.datasets) and _ended(book, history.made_by[version][-1]) < at:
                found.setdefault(version, at)
    return found


def _manifests(book: Book) -> Iterator[tuple[str, float]]:
    """Manifests that are not what follows from the accepted datasets."""
    by_task: dict[str, list[Acceptance]] = defaultdict(list)
    for one in book.acceptances:
        for task in {episode.task for episode in one.episodes}:
            by_task[task].append(one)
    for path in sorted(book.paths.manifest("any").parent.glob("*.json")):
        try:
            found = Manifest.model_validate_json(path.read_bytes())
        except (OSError, ValueError):
            continue  # `verify` names it
        if found != build_manifest(path.stem, by_task[path.stem]):
            folder = book.paths.accepted
            times = [one.stat().st_mtime for one in (folder, *folder.glob("*.json")) if one.exists()]
            yield path.relative_to(book.paths.root).as_posix(), max(times, default=path.stat().st_mtime)


def what_is_stale(book: Book, history: History, *, look: bool = False) -> Answer:
    """Answers for all current artefacts; the arguments are those of `find_stale`."""
    return tell_stale(book, history, find_stale(book, history, look=look), look=look)


def tell_stale(book: Book, history: History, found: Mapping[str, Stale], *, look: bool = False) -> Answer:
    """Answers with what `find_stale` found."""
    order = sorted(found, key=lambda path: (found[path].since, path))
    since = moment(found[order[0]].since) if order else None
    return answer(
        book,
        "What is stale now, and since when?",
        f"{count(len(found), 'artefact')} {'is' if len(found) == 1 else 'are'} stale, the oldest since {since}."
        if found
        else f"Nothing is stale: all {count(len(history.current), 'artefact')} have every change.",
        "doubt" if found else "good",
        {
            "stale": [
                {"path": path, "since": moment(found[path].since), "causes": list(found[path].causes)} for path in order
            ],
            "current": len(history.current),
            "read from disk": look,
        },
        sentences=()
        if look
        else ("Artefacts are taken to be what was recorded last; --disk reads them, `world4rl audit verify` as well.",),
        blocks=(
            Table(
                "Stale",
                ("artefact", "since", "because of"),
                [(path, moment(found[path].since), ", ".join(found[path].causes)) for path in order],
            ),
        ),
    )


def seconds(time: str) -> float:
    """ISO 8601 as seconds since 1970."""
    return datetime.fromisoformat(time).timestamp()


def moment(time: float) -> str:
    """Seconds since 1970 as ISO 8601, UTC."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
