"""The lineage of versions: what every run made from what.

A version is an artefact's path and digest. Several runs may make the same one, each from data of its own, so the nodes
of the graph are makings: a version and the run that made it. A run's input is the newest making, before that run, of
the same path and digest. Where a run read a folder that holds the outputs of others (`data/store`), its digest is
computed again from their files: equal digests prove which versions lay there. Where nothing earlier fits, everything
that may have lain there is taken for an input, and the link is said to be assumed: an audit that names too much is
better than one that misses something.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import NamedTuple

from world4rl.audit.book import Book
from world4rl.paths import Paths
from world4rl.provenance.digests import digest_files
from world4rl.provenance.graph import Lineage
from world4rl.provenance.records import Record, Run, Subject

LANDED = Paths().landed("any").parent.as_posix()


@dataclass(frozen=True, order=True)
class Version:
    """A file or folder that a run made or read.

    Attributes:
        path: In the repository.
        digest: Of its content.
    """

    path: str
    digest: str

    def __str__(self) -> str:
        return f"{self.path} @ {self.digest[:12]}"


class Making(NamedTuple):
    """A version and the run that made it, by its index in the book; None where no run did."""

    version: Version
    run: int | None


@dataclass(frozen=True)
class Link:
    """An input of a run.

    Attributes:
        read: What the run recorded.
        versions: What that was: earlier outputs, or `read` itself where no run made it.
        proven: Whether the digests say so.
    """

    read: Version
    versions: tuple[Version, ...]
    proven: bool = True


@dataclass
class History:
    """The versions of all runs. Runs go by their index in the book, oldest first.

    Attributes:
        lineage: What was made from what.
        made_by: The runs that made each version.
        versions: The versions of each path, in the order in which they were made; one made again stands twice.
        files: The digests of the single files of each version, by their paths relative to it; of a file: at `.`.
        links: The inputs of each run.
        holds: Digests of the episode sets of a version.
        datasets: Ids of the accepted datasets that a version holds as they landed.
    """

    lineage: Lineage[Making] = field(default_factory=Lineage)
    made_by: dict[Version, list[int]] = field(default_factory=lambda: defaultdict(list))
    versions: dict[str, list[Version]] = field(default_factory=lambda: defaultdict(list))
    files: dict[Version, dict[str, str]] = field(default_factory=dict)
    links: list[tuple[Link, ...]] = field(default_factory=list)
    holds: dict[Version, set[str]] = field(default_factory=lambda: defaultdict(set))
    datasets: dict[Version, set[str]] = field(default_factory=lambda: defaultdict(set))
    _below: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    @property
    def current(self) -> Mapping[str, Version]:
        """The newest version of each path."""
        return {path: found[-1] for path, found in self.versions.items()}

    def makings(self, versions: Iterable[Version]) -> set[Making]:
        """All makings of some versions."""
        return {Making(one, run) for one in versions for run in self.made_by.get(one, (None,))}

    def behind(self, versions: Iterable[Version]) -> set[Making]:
        """Everything that some versions were made from by any run, they themselves included."""
        made = self.makings(versions)
        return made | self.lineage.ancestors(made)

    def beyond(self, versions: Iterable[Version]) -> set[Making]:
        """Everything that was made from any making of some versions, they themselves included."""
        made = self.makings(versions)
        return made | self.lineage.descendants(made)

    def newest(self, version: Version) -> Making:
        """The last making of a version."""
        return Making(version, self.made_by[version][-1])

    def is_assumed(self, source: Making, made: Making) -> bool:
        """Whether no digest says that something was made from a source, only that it may have been."""
        if made.run is None:
            return False
        said = [link.proven for link in self.links[made.run] if source.version in link.versions]
        return bool(said) and not any(said)

    def outputs(self, run: int, record: Record[Run]) -> list[Version]:
        """What a run made."""
        return [Version(out.name, out.sha256) for out in record.predicate.outputs]

    def children(self, folder: str) -> Sequence[str]:
        """Paths of outputs below a folder."""
        return self._below.get(folder, ())

    def add(self, record: Record[Run]) -> None:
        """Adds a run that came after all others."""
        run = len(self.links)
        links = tuple(self._link(Version(one.name, one.sha256), record.predicate) for one in record.predicate.inputs)
        self.links.append(links)
        sources = [self.before(version, run) for link in links for version in link.versions]
        for out in record.predicate.outputs:
            version = Version(out.name, out.sha256)
            if out.name not in self.versions:
                for folder in parents_of(out.name):
                    self._below[folder].append(out.name)
            self.versions[out.name].append(version)
            self.made_by[version].append(run)
            self.files[version] = files = _files(out.name, record.subject)
            self.lineage.add(Making(version, run), sources)
            self.holds[version].update(_sets_of(out.name, record.predicate))
            if is_landed(out.name):
                self.datasets[version].update(name.split("/")[0] for name in files if "/" in name)

    def before(self, version: Version, run: int) -> Making:
        """The making of a version that a run found."""
        earlier = [one for one in self.made_by.get(version, ()) if one < run]
        return Making(version, earlier[-1] if earlier else None)

    def _link(self, read: Version, run: Run) -> Link:
        if read in self.made_by:
            return Link(read, (read,))
        inside = self._inside(read)
        if inside is not None:
            return inside
        below = self.children(read.path)
        if not below:
            others = sorted(set(self.versions.get(read.path, ())))  # somebody's change of one of these, perhaps
            return Link(read, (read, *others), proven=not others)
        tasks = run.parameters.get("tasks")
        newest = [self.versions[path][-1] for path in below]
        of_tasks = [
            one for one in newest if isinstance(tasks, list) and set(PurePosixPath(one.path).parts) & set(tasks)
        ]
        for guess in (newest, of_tasks):  # the folders of a task that the parameters lost may be gone, or not
            if self._together(read.path, guess) == read.digest:
                return Link(read, tuple(guess))
        return Link(read, tuple(sorted({one for path in below for one in self.versions[path]})), proven=False)

    def _together(self, folder: str, versions: Iterable[Version]) -> str:
        """The digest of a folder that holds nothing but these versions."""
        files: dict[str, str] = {}
        for version in versions:
            below = PurePosixPath(version.path).relative_to(folder)
            files |= {(below / name).as_posix(): digest for name, digest in self.files[version].items()}
        return digest_files(files)

    def _inside(self, read: Version) -> Link | None:
        """A file or folder inside of an output; None where there is no such output."""
        for path in parents_of(read.path):
            for version in reversed(self.versions.get(path, [])):
                if digest_inside(self.files[version], read.path[len(path) + 1 :]) == read.digest:
                    return Link(read, (version,))
            if path in self.versions:
                return Link(read, tuple(sorted(set(self.versions[path]))), proven=False)
        return None


def is_landed(path: str) -> bool:
    """Whether an output is the folder of accepted datasets of a task and role."""
    return PurePosixPath(path).parts[:-2] == PurePosixPath(LANDED).parts


def digest_inside(files: Mapping[str, str], name: str) -> str | None:
    """The digest of a file or folder inside of a version; None where it has none of that name."""
    below = {path[len(name) + 1 :]: digest for path, digest in files.items() if path.startswith(f"{name}/")}
    return files.get(name) or (digest_files(below) if below else None)


def history_of(book: Book) -> History:
    """The history that the records of a book tell."""
    history = History()
    for record in book.runs:
        history.add(record)
    _add_policies(book, history)
    _add_late(history)
    return history


def _add_late(history: History) -> None:
    """What was read, or acted, before any run was on record that made it was made by the first one on record later.

    Plain `dvc repro` leaves a run without a record until `world4rl record`; what follows from it may have one before.
    """
    for version, runs in history.made_by.items():
        if Making(version, None) in history.lineage.made_from:
            history.lineage.add(Making(version, None), [Making(version, runs[0])])


def _add_policies(book: Book, history: History) -> None:
    """Rollouts were made by the policy that acted: it is an input of what holds them."""
    by_digest: dict[str, list[Version]] = defaultdict(list)
    for version in history.made_by:
        by_digest[version.digest].append(version)
    acted = {one.id: one.statement.policy for one in book.acceptances}
    for version in list(history.made_by):
        policies = {acted.get(dataset) for dataset in history.datasets[version]}
        policies |= {book.sets[digest].statement.policy for digest in history.holds[version] if digest in book.sets}
        for policy in policies - {None}:
            for run in history.made_by[version]:
                acted_before = [history.before(one, run) for one in by_digest[str(policy)]]
                history.lineage.add(Making(version, run), acted_before)


def _files(output: str, subjects: Iterable[Subject]) -> dict[str, str]:
    return {
        "." if one.name == output else one.name[len(output) + 1 :]: one.sha256
        for one in subjects
        if f"{one.name}/".startswith(f"{output}/")
    }


def _sets_of(output: str, run: Run) -> tuple[str, ...]:
    return run.episodes.get(output, ())


def parents_of(path: str) -> list[str]:
    """Folders above a path, nearest first."""
    return [parent.as_posix() for parent in PurePosixPath(path).parents][:-1]
