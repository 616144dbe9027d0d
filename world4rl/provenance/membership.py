"""Which episodes a folder of stores holds, whose they are and for which use, read from what the stores were made of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from world4rl.demos.layout import COLLECTED, SIDE_FILE, UNLABELLED
from world4rl.errors import DataError
from world4rl.files import read_json
from world4rl.paths import SOURCES, Paths, Source
from world4rl.provenance.episodes import EpisodeSet, MemberEpisode
from world4rl.provenance.manifests import read_role_manifest
from world4rl.provenance.statement import Statement, read_statement

COLUMNS = ["episode", "digest", "task", "length", "success", "split"]
TABLE = "episodes.parquet"


def episode_sets(output: Path, paths: Paths) -> list[EpisodeSet]:
    """The sets of all stores in an output of a stage, sorted by dataset; none where it is no folder of stores.

    Args:
        output: An output of a stage, below the root.
        paths: Where the datasets lie that the stores were made from.

    Raises:
        DataError: a store or the statement about its dataset cannot be read.
    """
    place = _place(output, paths)
    if place is None:
        return []
    statements = dict(_statements(*place, paths))
    return [_set(store, statements) for store in sorted(path.parent for path in output.glob(f"*/{TABLE}"))]


def _place(output: Path, paths: Paths) -> tuple[str, Source] | None:
    """The task and source that a folder of stores is about."""
    for source in SOURCES:
        if output == paths.store(output.parent.name, source):
            return output.parent.name, source
    return None


def _statements(task: str, source: Source, paths: Paths) -> Iterator[tuple[str, Statement]]:
    """Statements about the datasets of a source by dataset: those that the stage itself was given."""
    side = paths.raw(task, source) / SIDE_FILE
    if side.is_file():
        yield COLLECTED, read_statement(_json(side), str(side))
    landed = paths.landed(task, source)
    if landed.is_dir():
        for dataset in read_role_manifest(landed).datasets:
            yield dataset.id, dataset.statement


def _set(store: Path, statements: dict[str, Statement]) -> EpisodeSet:
    if store.name not in statements:
        remedy = "`dvc repro` makes the store anew from the datasets that are there"
        raise DataError("nothing says who recorded the episodes of this store", where=store, remedy=remedy)
    labelled = _json(store / "store.json").get("labels") != UNLABELLED
    try:
        rows = pq.read_table(store / TABLE, columns=COLUMNS).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"the store is damaged: {error}", where=store / TABLE, remedy="run its stage again") from None
    episodes = (MemberEpisode(**{**row, "success": row["success"] if labelled else None}) for row in rows)
    return EpisodeSet(
        dataset=store.name,
        statement=statements[store.name],
        episodes=tuple(sorted(episodes, key=lambda one: one.episode)),
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        values = read_json(path)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read: {error}", where=path, remedy="run its stage again") from None
    if not isinstance(values, dict):
        raise DataError("this is no JSON object", where=path, remedy="run its stage again")
    return values
