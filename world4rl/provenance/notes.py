"""What a stage's command notes about its own run: only the process that did the work knows when, on what and how.

A run record is written later, by whoever keeps the lineage, perhaps long after and in another process. The note says
which run it is about: it names the digest of the metrics that the run wrote, seconds included.
"""

from __future__ import annotations

import os
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from world4rl import machine
from world4rl.errors import DataError
from world4rl.files import write_text
from world4rl.paths import Paths
from world4rl.provenance.digests import digest_file
from world4rl.provenance.git import Git

ORCHESTRATOR = "WORLD4RL_ORCHESTRATOR"  # environment: the run of the orchestrator that this process belongs to
LOCK_FILE = "requirements.lock"


class Note(BaseModel):
    """What a run knows about itself.

    Attributes:
        command: As `dvc.yaml` has it.
        parameters: Those that the stage may read, with those about the machine.
        seeds: What random numbers were drawn from.
        commit: Of the repository; None outside one.
        dirty: Whether tracked files differed from it.
        lock: SHA-256 of the requirements lock; None where there is none.
        machine: Hardware, driver and library versions.
        began: ISO 8601, UTC.
        ended: As `began`.
        orchestrator: The orchestrator's run; None where there was none.
        metrics: SHA-256 of the metrics file that the run wrote; None where it wrote none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: Literal[1] = 1
    command: str
    parameters: dict[str, Any]
    seeds: dict[str, Any]
    commit: str | None
    dirty: bool
    lock: str | None
    machine: dict[str, Any]
    began: str
    ended: str
    orchestrator: str | None
    metrics: str | None


def now() -> str:
    """The time, as records have it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def begin(command: str, parameters: dict[str, Any], root: Path) -> Note:
    """A note as it stands when a stage begins, while the code on the disk is still the code that runs.

    Args:
        command: As `dvc.yaml` has it.
        parameters: JSON values by name.
        root: The repository's root folder.
    """
    git = Git(root)
    commit = git.resolve("HEAD")
    lock = root / LOCK_FILE
    return Note(
        command=command,
        parameters=parameters,
        seeds={"seed": parameters.get("seed"), "PYTHONHASHSEED": os.environ.get("PYTHONHASHSEED")},
        commit=commit,
        dirty=commit is not None and git.dirty(),
        lock=digest_file(lock) if lock.is_file() else None,
        machine={},
        began=now(),
        ended="",
        orchestrator=os.environ.get(ORCHESTRATOR),
        metrics=None,
    )


def end(note: Note, metrics: Path, paths: Paths) -> None:
    """Writes the note of a stage that ended well.

    Args:
        note: As it began.
        metrics: The metrics file of the stage.
        paths: Where notes lie.
    """
    done = note.model_copy(
        update={
            "machine": machine.describe_fully(),
            "ended": now(),
            "metrics": digest_file(metrics) if metrics.is_file() else None,
        }
    )
    write_text(paths.note(name_of(note.command)), done.model_dump_json(indent=1) + "\n")


def read(command: str, metrics: Path, paths: Paths) -> Note | None:
    """The note about the run of a command that wrote the metrics which lie there now; None where there is none."""
    try:
        note = Note.model_validate_json(paths.note(name_of(command)).read_bytes())
        belongs = note.command == command and note.metrics == digest_file(metrics)
    except (OSError, ValidationError, DataError):
        return None
    return note if belongs else None


def name_of(command: str) -> str:
    """The name of a command's note: its words without the program, which is as good as a file name."""
    return "-".join(word.lstrip("-").replace("/", "-") for word in shlex.split(command)[1:])
