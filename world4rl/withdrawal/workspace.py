"""Carries a withdrawal out in the workspace: datasets cut or removed, records and manifests made anew, names gone.

Everything follows from the tombstones, so that what a killed process did not come to is done by the next one, and
doing it twice does nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from world4rl import progress
from world4rl.config import Params
from world4rl.files import write_text
from world4rl.landing.cutting import cut_accepted
from world4rl.landing.door import door_options
from world4rl.landing.inbox import Inbox
from world4rl.landing.ledger import Ledger
from world4rl.landing.page import write_page
from world4rl.landing.staging import discard_abandoned
from world4rl.landing.take import place_copies
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


@dataclass(frozen=True)
class Prepared:
    """A dataset that was cut, before it takes its place.

    Attributes:
        acceptance: Its record.
        folder: Where it lies.
    """

    acceptance: Acceptance
    folder: Path


def prepare(cut: Cut, params: Params, paths: Paths) -> Prepared:
    """Cuts a dataset; nobody sees the result yet.

    Raises:
        DataError: the dataset is missing or cannot be cut.
    """
    folder = paths.ledger.parent / "cutting" / cut.acceptance.id
    options = door_options(params, cut.acceptance.statement)
    source = folder_of(cut.acceptance, paths)
    return Prepared(cut_accepted(cut.acceptance, source, folder, cut.keep, options), folder)


def apply(stones: Tombstones, prepared: Mapping[str, Prepared], params: Params, paths: Paths) -> None:
    """Makes the workspace what it is without the withdrawn episodes.

    The caller holds `paths.landing_lock`.

    Args:
        stones: All tombstones.
        prepared: Cut datasets by the id of what they were cut from; those that are missing are cut now.
        params: How datasets are read.
        paths: Where everything lies.

    Raises:
        DataError: a dataset of which something stays is missing or cannot be cut.
    """
    for cut in cuts(read_acceptances(paths), stones.episodes, stones.datasets):
        if cut.keep:
            _take_place(prepared.get(cut.acceptance.id) or prepare(cut, params, paths), paths)
        remove_acceptance(cut.acceptance.id, paths)  # last: killed before it, the same is done again
    sets = nameless(all_episode_sets(paths), set(stones.datasets), read_acceptances(paths))
    for digest, one in sets.items():
        write_text(paths.redacted_episode_set(digest), one.text())
        paths.episode_set(digest).unlink(missing_ok=True)
    write_manifests(params.tasks, paths)
    for folder in folders(stones.datasets, params.tasks, paths):
        progress.log(f"removed {folder.relative_to(paths.root)}")
        shutil.rmtree(folder)
    shutil.rmtree(paths.ledger.parent / "cutting", ignore_errors=True)
    discard_abandoned(paths)  # a living run notices the tombstones before it accepts anything
    if stones.datasets and paths.quarantine.exists():
        write_page(paths.root)  # without pictures of the datasets' quarantined episodes


def _take_place(prepared: Prepared, paths: Paths) -> None:
    place_copies(prepared.acceptance, prepared.folder, paths)
    write_acceptance(prepared.acceptance, paths)
    progress.log(f"{len(prepared.acceptance.episodes)} episodes live on in {prepared.acceptance.id}")


def landing_copies(ids: set[str], inbox: Inbox, paths: Paths) -> list[str]:
    """Names of the datasets in the landing folder that hold withdrawn episodes, as far as the ledger knows.

    Raises:
        DataError: the landing folder cannot be listed.
    """
    if not paths.ledger.exists():
        return []
    entries = Ledger(paths.ledger).entries()
    there = [entries[name] for name in inbox.names() if name in entries]
    return [one.name for one in there if one.digest and any(map(one.digest.startswith, ids))]


def remove_landing_copies(names: Sequence[str], inbox: Inbox) -> None:
    """Removes datasets from the landing folder, whole."""
    for name in names:
        inbox.remove(name)
        progress.log(f"removed {name} from the landing folder")
