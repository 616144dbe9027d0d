"""Append-only chains of in-toto statements: what ran, what was decided, and that nobody edited it since.

A record is a file `NUMBER-DIGEST.json`: an in-toto Statement (v1) whose subjects are files, with their SHA-256, and
whose predicate says what happened to them. It names the digest of the record before it, so that a record cannot be
changed, removed or put in between without breaking the chain from there on. Reading a chain checks all of it.

`Chain` keeps any predicates; `Run` is the one of a stage that ran, others stand beside what they are about.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, ValidationError

from world4rl.errors import DataError
from world4rl.files import locked, write_text
from world4rl.provenance.digests import digest_bytes
from world4rl.provenance.document import Digest, Frozen

GENESIS = "0" * 64  # what the first record names as the one before it
NAME = re.compile(r"(\d{8})-([0-9a-f]{16})\.json")


class Subject(Frozen):
    """A file or folder by its path in the repository, and its digest (`provenance.digests`)."""

    name: str
    digest: dict[Literal["sha256"], Digest]

    @property
    def sha256(self) -> str:
        """The digest."""
        return self.digest["sha256"]


def subject(name: str, digest: str) -> Subject:
    """A subject by its path and SHA-256."""
    return Subject(name=name, digest={"sha256": digest})


class Predicate(Frozen):
    """What a record says about its subjects.

    Attributes:
        previous: Digest of the record before this one; the chain fills it in.
    """

    predicate_type: ClassVar[str]
    previous: Digest = GENESIS


class Code(Frozen):
    """What ran.

    Attributes:
        commit: Of the repository; None outside one.
        dirty: Whether tracked files differed from it.
        digest: Of the modules that define the stage's work.
        lock: SHA-256 of the requirements lock; None where there is none.
        modules: MD5 of each of those modules, by its path; `digest` is the digest of this. Empty where nobody noted it.
    """

    commit: str | None
    dirty: bool
    digest: str
    lock: Digest | None
    modules: dict[str, str] = Field(default_factory=dict)


class Run(Predicate):
    """How the subjects came about: one run of a stage.

    Attributes:
        stage: The DVC stage, e.g. `bc@soccer-v3`.
        command: What it ran.
        inputs: What it read: outputs of other stages, and files of the repository that are no code.
        outputs: What it made, as DVC declares it: files and folders. The record's subjects are the single files.
        episodes: Of an output that holds episodes: the digests of its episode sets (`provenance.episodes`).
        parameters: Those that the stage may read.
        code: What ran.
        machine: Hardware, driver and library versions.
        began: ISO 8601, UTC.
        ended: ISO 8601, UTC.
        metrics: Figures that the stage wrote.
        orchestrator: The Dagster run; None where there was none.
    """

    predicate_type: ClassVar[str] = "https://world4rl.org/run/v1"
    stage: str
    command: str
    inputs: tuple[Subject, ...]
    outputs: tuple[Subject, ...]
    episodes: dict[str, tuple[Digest, ...]] = Field(default_factory=dict)
    parameters: dict[str, Any]
    code: Code
    machine: dict[str, Any]
    began: str
    ended: str
    metrics: dict[str, Any]
    orchestrator: str | None


class Record[P: Predicate](BaseModel):
    """An in-toto statement."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
    type_: Literal["https://in-toto.io/Statement/v1"] = Field(default="https://in-toto.io/Statement/v1", alias="_type")
    subject: tuple[Subject, ...]
    predicate_type: str = Field(alias="predicateType")
    predicate: SerializeAsAny[P]

    def text(self) -> str:
        """The record as it is written and digested: one form for one content."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), sort_keys=True, indent=1, allow_nan=False) + "\n"

    @property
    def digest(self) -> str:
        """SHA-256 of `text`."""
        return digest_bytes(self.text().encode())


class Chain[P: Predicate]:
    """The records of a folder, oldest first.

    Args:
        folder: Where they lie; need not exist yet.
        predicates: The kinds that may occur.
    """

    def __init__(self, folder: Path, predicates: Sequence[type[P]]) -> None:
        self.folder = Path(folder)
        self._kinds: dict[str, type[P]] = {kind.predicate_type: kind for kind in predicates}

    def read(self) -> list[Record[P]]:
        """Every record.

        Raises:
            DataError: one was changed, removed or put in; names the first file that does not fit.
        """
        records, faults = self.examine()
        if faults:
            raise faults[0]
        return records

    def examine(self) -> tuple[list[Record[P]], list[DataError]]:
        """What holds of a chain, and what does not.

        Returns:
            The records before the first file that does not fit; that file's fault, and those of later files that are
            not what their own names say. Nothing is believed that comes after the first fault.
        """
        records: list[Record[P]] = []
        faults: list[DataError] = []
        before = GENESIS
        for path in self.files():
            try:
                content = self._content(path)
                if not faults:
                    records.append(self._check(path, content, records, before))
                    before = digest_bytes(content.encode())
                elif not _named_by(path, content):
                    raise self._broken(path, "its content is not what its name says")
            except DataError as fault:
                faults.append(fault)
        return records, faults

    def _check(self, path: Path, content: str, records: Sequence[Record[P]], before: str) -> Record[P]:
        record = self._parse(path, content)
        if record.text() != content or not _named_by(path, content):
            raise self._broken(path, "its content is not what its name says")
        if records and record.predicate.previous == records[-1].predicate.previous:
            raise self._forked(path, self.files()[len(records) - 1])
        if int(path.name[:8]) != len(records) + 1:
            raise self._broken(path, f"it stands where record {len(records) + 1} should")
        if record.predicate.previous != before:
            raise self._broken(path, "the record before it is not the one that it names")
        return record

    @property
    def head(self) -> str:
        """Digest of the last record; `GENESIS` where there is none. Reads the last file only."""
        files = self.files()
        return digest_bytes(files[-1].read_bytes()) if files else GENESIS

    def append(self, subjects: Sequence[Subject], predicate: P) -> Record[P]:
        """Adds a record at the end; one writer at a time, and it is there whole or not at all.

        Args:
            subjects: What it is about.
            predicate: What it says; `previous` is filled in.
        """
        with locked(self.folder.with_suffix(".lock")):
            record = self.next(subjects, predicate)
            write_text(self.path_of(record), record.text())
        return record

    def next(self, subjects: Sequence[Subject], predicate: P) -> Record[P]:
        """The record that `append` would add now."""
        linked = predicate.model_copy(update={"previous": self.head})
        ordered = tuple(sorted(subjects, key=lambda one: one.name))
        return Record[P](subject=ordered, predicateType=linked.predicate_type, predicate=linked)

    def files(self) -> list[Path]:
        """The files of the records, oldest first."""
        return sorted(self.folder.glob("*.json"))

    def path_of(self, record: Record[P]) -> Path:
        """Where a record that comes next will lie."""
        return self.folder / f"{len(self.files()) + 1:08}-{record.digest[:16]}.json"

    def _content(self, path: Path) -> str:
        try:
            return path.read_bytes().decode("utf-8")  # as bytes: text mode would make one line end of another
        except (OSError, UnicodeDecodeError) as error:
            raise self._broken(path, f"it cannot be read: {error}") from None

    def _parse(self, path: Path, content: str) -> Record[P]:
        try:
            values = json.loads(content)
            kind = self._kinds[values["predicateType"]]
            return Record[kind].model_validate(values)  # type: ignore[valid-type]  # known only now
        except ValidationError as error:
            first = error.errors()[0]
            raise self._broken(path, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        except (ValueError, KeyError, TypeError):
            raise self._broken(path, "it is no statement of a known kind") from None

    def _forked(self, path: Path, other: Path) -> DataError:
        return DataError(
            f"two records follow the same one, this and {other.name}: each was added where the other was not known",
            where=path,
            remedy="keep the records of one place; move those that only the other had away, and repeat what they say",
        )

    def _broken(self, path: Path, why: str) -> DataError:
        return DataError(
            f"the chain of records is broken here: {why}",
            where=path,
            remedy=f"restore the records: git restore --source refs/world4rl/lineage -- {self.folder}; "
            "move away a file that is not in there",
        )


def _named_by(path: Path, content: str) -> bool:
    match = NAME.fullmatch(path.name)
    return match is not None and digest_bytes(content.encode()).startswith(match[2])
