"""The page of the quarantine: what is kept out of training, why, by which checker, and how it looks. Self-contained."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Any

from world4rl.demos.checks import OVERRULABLE
from world4rl.files import write_text
from world4rl.landing.ledger import Ledger, Quarantined
from world4rl.landing.pictures import drop_pictures, pictured
from world4rl.landing.quarantine import when
from world4rl.pages import render
from world4rl.paths import Paths
from world4rl.provenance.manifests import ID_DIGITS
from world4rl.provenance.tombstones import read_tombstones

MOST = 2000  # entries on the page; `world4rl quarantine list` has all
MOST_PICTURES = 200  # of the latest entries: the page is one file


def write_page(root: Path, out: Path | None = None) -> Path:
    """Writes the page: what is kept out and what was released, the latest first; datasets held for their task.

    An episode has a picture while its dataset lies in the landing folder, unless an episode of that was withdrawn.

    Args:
        root: Folder that holds `.landing`.
        out: Where to; None: `reports/quarantine.html`.

    Returns:
        Where it was written.

    Raises:
        DataError: the ledger cannot be used, or the decisions were changed by somebody.
    """
    paths = Paths(root)
    ledger = Ledger(paths.ledger)
    arrivals = ledger.entries().values()
    withdrawn = read_tombstones(paths).datasets
    there = {entry.digest for entry in arrivals if entry.digest and entry.state != "gone"}
    found = ledger.quarantined()[::-1]
    kept = {digest for digest in there if digest[:ID_DIGITS] not in withdrawn}
    if any(entry.state == "taking" for entry in arrivals):  # a run draws its pictures before it writes its entries
        kept |= pictured(paths) - {entry.digest for entry in found}
    drop_pictures(kept, paths)
    told = [entry for entry in found if entry.kept_out or entry.released is not None]
    entries = [_view(entry, paths, number < MOST_PICTURES) for number, entry in enumerate(told[:MOST])]
    held = [ledger.events(entry.name)[-1] for entry in arrivals if entry.state == "held"]
    page = render(
        "quarantine.html",
        "world4rl.landing",
        held=[{"name": event.name, "detail": event.detail} for event in held],
        left_out=len(told) - len(entries),
        kept_out=[entry for entry in entries if entry["released"] is None],
        released=[entry for entry in entries if entry["released"] is not None],
        written=when(time.time()),
    )
    out = out or paths.quarantine
    write_text(out, page)
    return out


def _view(entry: Quarantined, paths: Paths, shown: bool) -> dict[str, Any]:
    whole = entry.episode is None
    picture = None if entry.episode is None or not shown else _picture(paths.picture(entry.digest, entry.episode))
    return {
        "number": entry.number,
        "name": entry.name,
        "digest": entry.digest[:16],
        "what": "the whole dataset" if whole else f"episode {entry.episode}",
        "checks": entry.checks.split(", "),
        "reason": entry.reason,
        "evidence": entry.evidence,
        "checker": entry.checker,
        "found": when(entry.time),
        "picture": picture,
        "overrulable": not whole and set(entry.checks.split(", ")) <= OVERRULABLE,
        "released": None if entry.released is None else when(entry.released),
        "released_by": entry.released_by,
        "released_because": entry.released_because,
    }


def _picture(path: Path) -> str | None:
    try:
        return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
    except FileNotFoundError:
        return None
