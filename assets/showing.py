"""Pieces of the metadata that a person sees on an asset's page: learning curves, pictures, tables, files and links.

Frames of episodes are linked, never embedded: Dagster keeps metadata in its event log, and consent may be withdrawn.
"""

from __future__ import annotations

import base64
import csv
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dagster import MarkdownMetadataValue, MetadataValue, PathMetadataValue, UrlMetadataValue

from world4rl.files import read_json

WIDTH, HEIGHT = 340, 220  # pixels of a panel

FILES = "/files"  # where pipelines/webserver.py shows files of the project
SHOWN = ("reports", "data/records", "data/decisions", "data/manifests", ".runs/logs", ".landing/pictures")  # and which


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


def curves(path: Path, columns: Sequence[str]) -> MarkdownMetadataValue:
    """A chart of some columns of a CSV file over its first column, as a small SVG: a panel for each.

    Missing values are left out. A column that has none at all gets an empty panel.
    """
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    over = next(iter(rows[0])) if rows else ""
    panels = []
    for number, column in enumerate(columns):
        points = [(float(row[over]), float(row[column])) for row in rows if row.get(column)]
        panels.append(_panel(number * WIDTH, column, over, [p for p in points if math.isfinite(p[1])]))
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH * len(columns)}" height="{HEIGHT}" '
        'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>'
        f"{''.join(panels)}</svg>"
    )
    image = base64.b64encode(svg.encode()).decode()
    return MetadataValue.md(f"![{path.stem}](data:image/svg+xml;base64,{image})")


def file(path: Path) -> PathMetadataValue:
    """A file or folder, as an absolute path to copy."""
    return MetadataValue.path(str(path.resolve()))


def link(root: Path, path: Path) -> UrlMetadataValue:
    """A file in one of the folders `SHOWN` of a project, to open in the browser.

    Raises:
        ValueError: it lies elsewhere, so that nothing would open.
    """
    inside = path.resolve().relative_to(root.resolve())
    if not any(inside.is_relative_to(folder) for folder in SHOWN):
        raise ValueError(f"{inside} is not among what the web server shows: {', '.join(SHOWN)}")
    return MetadataValue.url(f"{FILES}/{quote(inside.as_posix(), safe='/@')}")


def picture(root: Path, path: Path) -> MarkdownMetadataValue:
    """A picture, by a link that the browser follows.

    Raises:
        ValueError: as `link`.
    """
    return MetadataValue.md(f"![{path.stem}]({link(root, path).url})")


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


def _panel(left: int, title: str, over: str, points: Sequence[tuple[float, float]]) -> str:
    """One curve in a frame, with the ends of both axes written out."""
    x0, x1, y0, y1 = left + 60, left + WIDTH - 15, HEIGHT - 35, 25
    parts = [
        f'<text x="{(x0 + x1) / 2}" y="16" text-anchor="middle" font-weight="bold">{escape(title)}</text>',
        f'<rect x="{x0}" y="{y1}" width="{x1 - x0}" height="{y0 - y1}" fill="none" stroke="#999"/>',
    ]
    if points:
        xs, ys = [point[0] for point in points], [point[1] for point in points]
        width, height = (max(xs) - min(xs)) or 1.0, (max(ys) - min(ys)) or 1.0
        line = " ".join(
            f"{x0 + (x - min(xs)) / width * (x1 - x0):.1f},{y0 - (y - min(ys)) / height * (y0 - y1):.1f}"
            for x, y in points
        )
        parts += [
            f'<polyline points="{line}" fill="none" stroke="#1f6fb2" stroke-width="1.5"/>',
            f'<text x="{x0 - 4}" y="{y1 + 9}" text-anchor="end">{max(ys):.3g}</text>',
            f'<text x="{x0 - 4}" y="{y0}" text-anchor="end">{min(ys):.3g}</text>',
            f'<text x="{x0}" y="{y0 + 14}" text-anchor="middle">{min(xs):.6g}</text>',
            f'<text x="{x1}" y="{y0 + 14}" text-anchor="end">{max(xs):.6g}</text>',
            f'<text x="{(x0 + x1) / 2}" y="{y0 + 28}" text-anchor="middle">{escape(over)}</text>',
        ]
    return "".join(parts)
