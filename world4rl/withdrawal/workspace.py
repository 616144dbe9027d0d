"""Carries a withdrawal out in the workspace: datasets cut or removed, records and manifests made anew, names gone.

Everything follows from the tombstones, so that what a killed process did not come to is done by the next one, and
doing it twice does nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from world4rl import progress
from world4rl.config import Params
from world4rl.files import write_text
from world4rl.landing.cutting import cut_accepted
from world4rl.landing.inbox import Inbox
from world4rl.landing.ledger import Ledger
from world4rl.landing.take import door_options, place_copies
from world4rl.paths import Paths
from world4rl.provenance.episodes import EpisodeSet, all_episode_sets, redacted
from world4rl.provenance.manifests import (
    Acceptance,
    read_acceptances,
    remove_acceptance,
    write_acceptance,
    write_manifests,
)
from world4rl.provenance.records import Subject, subject
from world4rl.provenance.tombstones import Tombstones
from world4rl.withdrawal.selecting import Cut, cuts, folder_of, folders


def nameless(sets: dict[str, EpisodeSet], ids: set[str], remaining: Sequence[Acceptance]) -> dict[str, EpisodeSet]:
    """Sets of withdrawn datasets whose operator has nothing accepted any more, by digest, without the names."""
    known = {one.statement.operator for one in remaining}
    return {
        digest: redacted(one)
        for digest, one in sets.items()
        if one.dataset in ids and one.statement.operator not in known and one != redacted(one)
    }


def redactions(sets: dict[str, EpisodeSet], paths: Paths) -> list[Subject]:
    """The sets without names, as the decision vouches for them."""
    return [
        subject(paths.redacted_episode_set(digest).relative_to(paths.root).as_posix(), one.digest)
        for digest, one in sets.items()
    ]


def apply(stones: Tombstones, params: Params, paths: Paths) -> None:
    """Makes the workspace what it is without the withdrawn episodes.

    The caller holds `paths.landing_lock`.

    Raises:
        DataError: a dataset of which something stays is missing or cannot be cut.
    """
    for cut in cuts(read_acceptances(paths), stones.episodes, stones.datasets):
        _replace(cut, params, paths)
    sets = nameless(all_episode_sets(paths), set(stones.datasets), read_acceptances(paths))
    for digest, one in sets.items():
        write_text(paths.redacted_episode_set(digest), one.text())
        paths.episode_set(digest).unlink(missing_ok=True)
    write_manifests(params.tasks, paths)
    for folder in folders(stones.datasets, params.tasks, paths):
        progress.log(f"removed {folder.relative_to(paths.root)}")
        shutil.rmtree(folder)
    shutil.rmtree(paths.ledger.parent / "cutting", ignore_errors=True)
    _remove_abandoned(paths)


def _remove_abandoned(paths: Paths) -> None:
    """Removes copies that dead runs left. A living one notices the tombstones before it accepts anything."""
    folder = paths.ledger.parent / "taking"
    if folder.is_dir():
        entries = Ledger(paths.ledger).entries()
        for path in folder.iterdir():
            entry = entries.get(path.name)
            if entry is None or entry.state != "taking":
                shutil.rmtree(path, ignore_errors=True)


def _replace(cut: Cut, params: Params, paths: Paths) -> None:
    """The new record comes before the old one goes: killed in between, the same is done again."""
    if cut.keep:
        place = paths.ledger.parent / "cutting" / cut.acceptance.id
        options = door_options(params, cut.acceptance.statement)
        acceptance = cut_accepted(cut.acceptance, folder_of(cut.acceptance, paths), place, cut.keep, options)
        place_copies(acceptance, place, paths)
        write_acceptance(acceptance, paths)
        progress.log(f"{cut.acceptance.id} lives on as {acceptance.id} with {len(cut.keep)} episodes")
    remove_acceptance(cut.acceptance.id, paths)


def landing_copies(ids: set[str], paths: Paths) -> list[str]:
    """Names of the datasets in the landing folder that hold withdrawn episodes, as far as the ledger knows."""
    if not paths.ledger.exists():
        return []
    entries = Ledger(paths.ledger).entries().values()
    return [one.name for one in entries if one.state != "gone" and one.digest and any(map(one.digest.startswith, ids))]


def remove_landing_copies(names: Sequence[str], inbox: Inbox) -> None:
    """Removes datasets from the landing folder, whole."""
    for name in names:
        inbox.remove(name)
        progress.log(f"removed {name} from the landing folder")
