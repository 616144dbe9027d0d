"""What the tables of a dataset and of a store must look like: pandera schemas, validated lazily.

A validation returns every failure at once as findings; failures in rows that belong to an episode name that episode.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pandera.pandas as pa
from pandera.errors import SchemaErrors

from world4rl.demos.checks import Finding, rows_text

TIMESTAMP_TOLERANCE = 0.25  # of a frame: less than a lost frame, more than any clock's rounding


EPISODE_TABLE = pa.DataFrameSchema(
    {
        "episode_index": pa.Column("int64", [pa.Check.ge(0)], unique=True, coerce=True),
        "length": pa.Column("int64", pa.Check.ge(1), coerce=True),
        "data/chunk_index": pa.Column("int64", pa.Check.ge(0), coerce=True),
        "data/file_index": pa.Column("int64", pa.Check.ge(0), coerce=True),
        "dataset_from_index": pa.Column("int64", pa.Check.ge(0), coerce=True),
        "dataset_to_index": pa.Column("int64", pa.Check.ge(1), coerce=True),
    },
    name="episode table (meta/episodes)",
)
"""A row an episode, as LeRobot writes it; further columns (videos, statistics, tasks) are allowed."""


FRAME_TABLE = pa.DataFrameSchema(
    {
        "timestamp": pa.Column("float64", pa.Check.ge(0), coerce=True),
        "frame_index": pa.Column("int64", pa.Check.ge(0), coerce=True),
        "episode_index": pa.Column("int64", pa.Check.ge(0), coerce=True),
        # Not unique: of two rows with one number only one is wrong, and `checks.check_row_range` knows which.
        "index": pa.Column("int64", pa.Check.ge(0), coerce=True),
        "task_index": pa.Column("int64", coerce=True),
        "frame_order": pa.Column(
            "int64", pa.Check.eq(0, error="frame_index does not count 0, 1, 2, …"), nullable=True, coerce=True
        ),
        "lateness": pa.Column(
            "float64",
            pa.Check(
                lambda late: late.abs() <= TIMESTAMP_TOLERANCE, error="timestamp does not follow frame_index / fps"
            ),
            nullable=True,
        ),
    },
    name="frame table (data)",
)
"""A row a frame: LeRobot's five index columns and the two that `derive` adds."""


def derive(frames: pd.DataFrame, fps: float) -> pd.DataFrame:
    """A frame table with two columns more: `frame_order` (frame_index minus the row's position in its episode) and
    `lateness` (frames by which the timestamp is off). As columns they can be checked row by row."""
    position = frames.groupby("episode_index").cumcount()
    return frames.assign(
        frame_order=frames["frame_index"] - position, lateness=frames["timestamp"] * fps - frames["frame_index"]
    )


STORE_EPISODES = pa.DataFrameSchema(
    {
        "episode": pa.Column("int64", pa.Check.ge(0), unique=True),
        "start": pa.Column("int64", pa.Check.ge(0)),
        "length": pa.Column("int64", pa.Check.ge(1)),
        "task": pa.Column("object"),
        "source": pa.Column("object"),
        "split": pa.Column("object", pa.Check.isin(["train", "validation", "test"])),
        "success": pa.Column("bool"),
        "seed": pa.Column("Int64", nullable=True),
        "digest": pa.Column("object", pa.Check.str_matches(r"^[0-9a-f]{64}$")),
        "source_dataset": pa.Column("object"),
    },
    checks=pa.Check(
        lambda table: table["start"] == table["length"].cumsum() - table["length"],
        name="offsets",
        error="episodes do not follow one another without gaps",
    ),
    strict=True,
    ordered=True,
    name="episode table (episodes.parquet)",
)
"""A row an episode of a store, in the order of its rows."""


def validate(schema: pa.DataFrameSchema, table: pd.DataFrame, episodes: np.ndarray | None = None) -> list[Finding]:
    """Every failure of a table as findings, one a check and episode.

    Args:
        schema: What the table must look like.
        table: The table, with a default index 0, 1, 2, …
        episodes: int64, the episode that each row belongs to. Without it, and for failures that concern no single
            row, the findings are about the whole dataset.
    """
    try:
        schema.validate(table, lazy=True)
    except SchemaErrors as errors:
        return _findings(str(schema.name), errors.failure_cases, episodes)
    return []


def _findings(table: str, cases: pd.DataFrame, episodes: np.ndarray | None) -> list[Finding]:
    findings = []
    rows = pd.to_numeric(cases["index"], errors="coerce")
    for key, group in rows.groupby([cases["column"].astype(str), cases["check"].astype(str)], sort=False):
        column, check = map(str, key)
        if check.startswith("column_in_dataframe"):
            column = str(cases.loc[group.index[0], "failure_case"])
        reason = f"{table}: {_words(column, check)}"
        places = np.unique(group.dropna().to_numpy(np.int64))
        if episodes is None or not len(places):
            findings.append(Finding(None, "table", reason, rows_text(places) if len(places) else ""))
            continue
        for episode in np.unique(episodes[places]):
            begin = np.flatnonzero(episodes == episode)[0]
            own = places[episodes[places] == episode] - begin
            findings.append(Finding(int(episode), "table", reason, rows_text(own)))
    return list(dict.fromkeys(findings))


def _words(column: str, check: str) -> str:
    if check.startswith("column_in_dataframe"):
        return f"column {column} is missing"
    if check == "not_nullable":
        return f"{column} has empty cells"
    if check == "field_uniqueness":
        return f"{column} has repeated values"
    if check.startswith(("coerce_dtype", "dtype")):
        return f"{column} is not of the type that {check} asks for"
    return check if " " in check else f"{column} fails {check}"
