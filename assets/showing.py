"""Pieces of the metadata that a person sees on an asset's page: learning curves, pictures, tables, file links."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dagster import MarkdownMetadataValue, MetadataValue, PathMetadataValue

from world4rl.files import read_json

LARGEST_PICTURE = 400_000  # bytes; Dagster keeps metadata in its event log


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> MarkdownMetadataValue:
    """A table; a missing value is shown as a dash."""
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    return MetadataValue.md("\n".join(lines))


def figures(path: Path) -> dict[str, Any]:
    """Every number and short text at the top of a metrics file: Dagster plots the numbers over time."""
    return {name: value for name, value in read_json(path).items() if isinstance(value, (int, float, str))}


def percent(rate: float | None) -> str:
    """A rate as a percentage."""
    return "–" if rate is None else f"{100 * rate:.1f} %"


def picture(path: Path) -> MarkdownMetadataValue:
    """A PNG file, embedded; its path alone when it is too large for Dagster's event log."""
    content = path.read_bytes()
    return MetadataValue.md(_embed(content, path.stem) if len(content) <= LARGEST_PICTURE else f"`{path}`")


def curves(path: Path, columns: Sequence[str], *, log: bool = False) -> MarkdownMetadataValue:
    """A chart of some columns of a CSV file over its first column.

    Args:
        path: The CSV file.
        columns: Which columns, a panel for each.
        log: Whether the vertical axes are logarithmic.
    """
    import pandas as pd
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    values = pd.read_csv(path)
    over = values.columns[0]
    figure = Figure(figsize=(3.4 * len(columns), 2.4), layout="constrained")  # no pyplot: steps may be threads
    for axes, column in zip(figure.subplots(1, len(columns), squeeze=False)[0], columns, strict=True):
        known = values[[over, column]].dropna()
        axes.plot(known[over], known[column], linewidth=1.2)
        axes.set_xlabel(over)
        axes.set_title(column, fontsize=9)
        axes.grid(alpha=0.3)
        if log and (known[column] > 0).all():
            axes.set_yscale("log")
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return MetadataValue.md(_embed(buffer.getvalue(), path.stem))


def file(path: Path) -> PathMetadataValue:
    """A file or folder, as an absolute path to copy."""
    return MetadataValue.path(str(path.resolve()))


def size(amount: int) -> str:
    """Bytes as people say them."""
    value = float(amount)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _embed(png: bytes, name: str) -> str:
    return f"![{name}](data:image/png;base64,{base64.b64encode(png).decode()})"
