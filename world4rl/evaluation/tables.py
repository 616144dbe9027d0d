"""The tables of evaluation, checked when they are written and again when they are read.

`trials.csv` holds a row a trial: `policy` (bc or refined), `seed`, `success` (0 or 1), `steps` (actions until success,
empty when it failed). Both policies must have been tried on the same seeds, or a paired test would lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from world4rl.errors import DataError
from world4rl.evaluation.statistics import PairedComparison, compare_paired

if TYPE_CHECKING:
    import pandera.pandas as pa

POLICIES = ("bc", "refined")


def trial_schema() -> pa.DataFrameSchema:
    """The pandera schema of `trials.csv`."""
    import pandera.pandas as pa

    return pa.DataFrameSchema(
        {
            "policy": pa.Column(str, pa.Check.isin(POLICIES)),
            "seed": pa.Column("int64", pa.Check.ge(0)),
            "success": pa.Column("int64", pa.Check.isin([0, 1])),
            "steps": pa.Column("Int64", pa.Check.ge(1), nullable=True),
        },
        checks=[
            pa.Check(_steps_where_success, error="steps must be given for a success, and only for one"),
            pa.Check(_same_seeds, error="both policies must have been tried on the same seeds"),
        ],
        unique=["policy", "seed"],
        strict=True,
    )


def _steps_where_success(trials: pd.DataFrame) -> pd.Series:
    return (trials["success"] == 1) == trials["steps"].notna()


def _same_seeds(trials: pd.DataFrame) -> bool:
    seeds = [set(trials.loc[trials["policy"] == policy, "seed"]) for policy in POLICIES]
    return bool(seeds[0]) and seeds[0] == seeds[1]


def check_trials(trials: pd.DataFrame, where: Path) -> pd.DataFrame:
    """Validates a table of trials.

    Args:
        trials: Columns policy, seed, success, steps.
        where: The file that it was read from or will be written to, for the message.

    Returns:
        The table with the schema's types.

    Raises:
        DataError: names every failure at once.
    """
    import pandera.pandas as pa

    try:
        return trial_schema().validate(trials.astype({"steps": "Int64"}), lazy=True)
    except pa.errors.SchemaErrors as error:
        problems = _problems(error.failure_cases)
    except (KeyError, TypeError, ValueError) as failure:
        problems = [f"steps: {failure}"]
    raise DataError(
        "the table of trials is wrong:\n" + "\n".join(f"    {problem}" for problem in problems),
        where=where,
        remedy="run `world4rl evaluate` for this task again",
    )


def _problems(cases: pd.DataFrame) -> list[str]:
    """A line for each check that failed, with an example: pandera lists every cell."""
    lines = []
    for (context, check), group in cases.groupby(["schema_context", "check"], sort=False):
        columns = ", ".join(sorted(set(group["column"].dropna().astype(str)))) if context == "Column" else "table"
        rows = group["index"].dropna().nunique()
        example = (
            f" ({rows} rows; row {group['index'].iloc[0]} has {group['failure_case'].iloc[0]})"
            if rows
            else (f" (found {group['failure_case'].iloc[0]})")
        )
        lines.append(f"{columns}: {check}{example}")
    return lines


def read_trials(path: Path) -> pd.DataFrame:
    """Reads and validates `trials.csv`.

    Raises:
        DataError: the file is missing, is not a table, or breaks the schema.
    """
    return check_trials(_read(path, "evaluate"), path)


def compare_trials(trials: pd.DataFrame, confidence: float) -> PairedComparison:
    """Compares the refined policy with BC, trial by trial of the same seed.

    Args:
        trials: A validated table of trials.
        confidence: Two-sided confidence of the interval.
    """
    outcomes = trials.pivot(index="seed", columns="policy", values="success")
    return compare_paired(outcomes["bc"], outcomes["refined"], confidence)


def read_curve(path: Path, columns: Sequence[str], stage: str) -> pd.DataFrame:
    """Reads a learning curve; cells may be empty where nothing was measured.

    Args:
        path: A CSV file.
        columns: Columns that it must have; the first one counts upwards.
        stage: Command of the stage that writes it, for the message.

    Returns:
        Those columns as float64.

    Raises:
        DataError: the file is missing, lacks a column, or holds text where a number belongs.
    """
    curve = _read(path, stage)
    missing = [column for column in columns if column not in curve]
    remedy = f"run `world4rl {stage}` again"
    if missing:
        raise DataError(f"the learning curve has no column {', '.join(missing)}", where=path, remedy=remedy)
    try:
        values = curve[list(columns)].astype("float64")
    except ValueError as error:
        raise DataError(f"the learning curve holds no number: {error}", where=path, remedy=remedy) from None
    if not values[columns[0]].is_monotonic_increasing:
        raise DataError(f"column {columns[0]} of the learning curve does not ascend", where=path, remedy=remedy)
    return values


def _read(path: Path, stage: str) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except FileNotFoundError:
        raise missing_output(path, stage) from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(f"not a table: {error}", where=path, remedy=f"run `world4rl {stage}` again") from None


def missing_output(path: Path, stage: str) -> DataError:
    """The error for a file that a stage should have written."""
    return DataError(
        f"the stage `{stage}` has not left its result",
        where=path,
        remedy=f"run that stage first: `dvc repro` does whatever is missing, `world4rl {stage}` this stage alone",
    )
