"""`world4rl land`: copies a dataset into the landing folder, with what an auditor will ask about it and a marker."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from world4rl import progress
from world4rl.demos.layout import SIDE_FILE
from world4rl.demos.reading import open_dataset
from world4rl.errors import ConfigError, DataError
from world4rl.files import write_json
from world4rl.landing.inbox import HIDDEN, Inbox
from world4rl.landing.marker import MARKER, FileEntry, Marker, mark
from world4rl.provenance.digests import digest_file
from world4rl.provenance.statement import read_statement


def land(dataset: Path, inbox: Inbox, *, name: str | None, said: Mapping[str, str | None]) -> str:
    """Copies a dataset into the landing folder. The dataset itself is not changed.

    Args:
        dataset: Root folder of a LeRobot v3 dataset.
        inbox: The landing folder.
        name: Of its folder there; None: that of the dataset.
        said: The statement's fields; what is None stays as the dataset's own side file has it.

    Returns:
        The name.

    Raises:
        DataError: it is no LeRobot dataset, or the landing folder has one of this name.
        ConfigError: the name cannot be used.
        MachineError: the landing folder cannot be reached or written.
    """
    name = name or dataset.resolve().name
    if not re.fullmatch(r"[\w.-]+", name) or name.startswith(HIDDEN):
        raise ConfigError(f"{name!r} cannot name a dataset", where="--name", remedy="use letters, digits, . _ -")
    source = open_dataset(dataset)
    if (dataset / MARKER).exists():
        raise DataError("the dataset has a marker already", where=dataset / MARKER, remedy=f"remove {MARKER} from it")
    side: dict[str, Any] = {**source.side, **{key: value for key, value in said.items() if value is not None}}
    read_statement(side, SIDE_FILE)
    with TemporaryDirectory() as folder:
        own = Path(folder) / "side.json"
        write_json(own, side)
        marker = mark(dataset)
        entry = FileEntry(bytes=own.stat().st_size, sha256=digest_file(own))
        marker = Marker(files=dict(sorted({**marker.files, SIDE_FILE: entry}.items())))
        files = {path: own if path == SIDE_FILE else dataset / path for path in marker.files}
        with progress.track(f"land {name}", len(files), unit="file") as bar:
            for _ in inbox.put(name, files, marker.model_dump_json(indent=1).encode()):
                bar.advance()
    return name
