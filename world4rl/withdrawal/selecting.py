"""Which episodes a withdrawal is about, and what then becomes of each accepted dataset."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from world4rl.config import Params
from world4rl.demos.ingest import plan_ingest, sound_episodes
from world4rl.demos.reading import Dataset, open_dataset
from world4rl.errors import DataError
from world4rl.landing.door import door_options
from world4rl.paths import ROLES, SOURCES, Paths
from world4rl.provenance.manifests import Acceptance, LandedEpisode

SHORTEST = 8  # digits of a digest that name an episode
NOT_LANDED = (
    "`world4rl quarantine` and data/accepted name what landed; episodes that the simulator records here are nobody's, "
    "and cannot be withdrawn"
)


@dataclass(frozen=True)
class Cut:
    """What becomes of an accepted dataset.

    Attributes:
        acceptance: Its record.
        keep: The accepted episodes that stay; none: the dataset goes.
    """

    acceptance: Acceptance
    keep: tuple[LandedEpisode, ...]

    @property
    def gone(self) -> tuple[LandedEpisode, ...]:
        """The accepted episodes that go."""
        return tuple(one for one in self.acceptance.episodes if one not in self.keep)

    @property
    def tasks(self) -> set[str]:
        """Tasks among whose data the dataset is."""
        return {one.task for one in self.acceptance.episodes}


def select(
    acceptances: Sequence[Acceptance],
    *,
    episodes: Iterable[str] = (),
    operator: str | None = None,
    dataset: str | None = None,
) -> list[LandedEpisode]:
    """The accepted episodes that somebody means, without doubles.

    Args:
        acceptances: The records of all accepted datasets.
        episodes: Digests (or their first digits), or `ID:INDEX` with a dataset's id. (Not its name: a
            dataset that was cut has its old name, and other episodes in the same places.)
        operator: All that this person recorded.
        dataset: All of the dataset with this id.

    Raises:
        DataError: one of them names nothing, or more than one episode.
    """
    found: list[LandedEpisode] = []
    for name in episodes:
        found += _episode(acceptances, name)
    if operator is not None:
        own = [one for one in acceptances if one.statement.operator == operator]
        if not own:
            raise _nothing("no accepted dataset was recorded by this operator", operator)
        found += [episode for one in own for episode in one.episodes]
    if dataset is not None:
        found += _dataset(acceptances, dataset).episodes
    return list({one.digest: one for one in found}.values())


def _episode(acceptances: Sequence[Acceptance], name: str) -> list[LandedEpisode]:
    dataset, colon, index = name.rpartition(":")
    if colon and index.isdecimal():
        found = [e for e in _dataset(acceptances, dataset).episodes if e.episode == int(index)]
    elif re.fullmatch(rf"[0-9a-f]{{{SHORTEST},64}}", name):
        found = [e for one in acceptances for e in one.episodes if e.digest.startswith(name)]
    else:
        raise DataError(
            "this names no episode",
            where=name,
            remedy=f"give {SHORTEST} or more digits of its digest, or ID:INDEX of a dataset",
        )
    if not found:
        raise _nothing("there is no such accepted episode", name)
    if len({one.digest for one in found}) > 1:
        raise DataError(f"{len(found)} episodes go by this name", where=name, remedy="give the whole digest")
    return found


def _dataset(acceptances: Sequence[Acceptance], id_: str) -> Acceptance:
    for one in acceptances:
        if one.id == id_:
            return one
    raise _nothing("there is no accepted dataset with this id", id_)


def _nothing(problem: str, where: str) -> DataError:
    return DataError(problem, where=where, remedy=NOT_LANDED)


def cuts(acceptances: Iterable[Acceptance], gone: Collection[str], holders: Collection[str] = ()) -> list[Cut]:
    """What becomes of the accepted datasets; those that are not concerned are left out.

    Args:
        acceptances: The records.
        gone: Digests of the withdrawn episodes.
        holders: Ids of datasets whose files hold such an episode, accepted there or not.
    """
    return [
        Cut(one, tuple(episode for episode in one.episodes if episode.digest not in gone))
        for one in acceptances
        if one.id in holders or any(episode.digest in gone for episode in one.episodes)
    ]


def holders(acceptances: Iterable[Acceptance], gone: Collection[str], params: Params, paths: Paths) -> set[str]:
    """Ids of accepted datasets whose files hold a withdrawn episode that was not accepted there, being a duplicate.

    Reads and decodes the datasets that hold more than was accepted of them.

    Raises:
        DataError: such a dataset is not in the workspace, or damaged.
    """
    found = set()
    for acceptance in acceptances:
        dataset = open_dataset(folder_of(acceptance, paths))
        if len(dataset.episodes) > len(acceptance.episodes) and any(
            digest in gone for digest in _contents(dataset, acceptance, params)
        ):
            found.add(acceptance.id)
    return found


def _contents(dataset: Dataset, acceptance: Acceptance, params: Params) -> Iterator[str]:
    options = door_options(params, acceptance.statement)
    for episode in sound_episodes(dataset, plan_ingest(dataset, options), options, []):
        yield episode.digest


def folder_of(acceptance: Acceptance, paths: Paths) -> Path:
    """Where an accepted dataset lies in the workspace; it is the same for each of its tasks.

    Raises:
        DataError: it is not there.
    """
    role = acceptance.statement.source
    folders = [paths.landed(task, role) / acceptance.id for task in sorted({one.task for one in acceptance.episodes})]
    for folder in folders:
        if folder.is_dir():
            return folder
    raise DataError("an accepted dataset is missing", where=folders[0], remedy="`dvc pull`, then withdraw again")


def folders(ids: Collection[str], tasks: Iterable[str], paths: Paths) -> list[Path]:
    """Folders of datasets and of the stores made from them that lie in the workspace, by the datasets' ids."""
    parents = [paths.landed(task, role) for task in tasks for role in ROLES]
    parents += [paths.store(task, source) for task in tasks for source in SOURCES]
    return [parent / id_ for parent in parents for id_ in sorted(ids) if (parent / id_).exists()]
