"""Episode sets: which episodes a store holds, who recorded them and for which use, by the digest of the set.

A set is written once for each dataset that became a store and is never changed, so that run records can name it by its
digest and stay small while stores grow. Only when its operator withdraws does another one take its place, without the
names; the decision, which is signed, vouches for that one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import ValidationError

from world4rl.errors import DataError
from world4rl.files import write_text
from world4rl.paths import Paths
from world4rl.provenance.decisions import Decisions
from world4rl.provenance.digests import digest_bytes, digest_file
from world4rl.provenance.document import Digest, Frozen
from world4rl.provenance.statement import Statement


class MemberEpisode(Frozen):
    """An episode of a set.

    Attributes:
        episode: Its index in the dataset.
        digest: SHA-256 of what training sees of it.
        task: One of the parameters' tasks.
        length: Its rows.
        success: Whether it is a success; None where nothing says so.
        split: `train`, `validation` or `test`.
    """

    episode: int
    digest: Digest
    task: str
    length: int
    success: bool | None
    split: str


class EpisodeSet(Frozen):
    """The episodes of one dataset in one store.

    Attributes:
        dataset: `collected` for what the simulator recorded here, else the id of the accepted dataset.
        statement: Who recorded them, with which robot, for which use.
        episodes: By their index.
    """

    format: Literal[1] = 1
    dataset: str
    statement: Statement
    episodes: tuple[MemberEpisode, ...]

    def text(self) -> str:
        """The set as it is written and digested."""
        return self.model_dump_json() + "\n"

    @property
    def digest(self) -> str:
        """SHA-256 of `text`."""
        return digest_bytes(self.text().encode())


def write_episode_set(episodes: EpisodeSet, paths: Paths) -> str:
    """Writes a set under its digest, unless it is there; returns the digest."""
    digest = episodes.digest
    path = paths.episode_set(digest)
    if not path.exists():
        write_text(path, episodes.text())
    return digest


def read_episode_sets(digests: Iterable[str], paths: Paths) -> dict[str, EpisodeSet]:
    """Sets by their digests.

    Raises:
        DataError: one is missing, or is not what its name says.
    """
    return {digest: _read(digest, paths) for digest in digests}


def all_episode_sets(paths: Paths) -> dict[str, EpisodeSet]:
    """Every set by its digest, redacted ones under that of the original.

    Raises:
        DataError: as for `read_episode_sets`.
    """
    names = {path.name.partition(".")[0] for path in paths.episode_set("").parent.glob("*.json")}
    return read_episode_sets(sorted(names), paths)


def redacted(episodes: EpisodeSet) -> EpisodeSet:
    """The set without what was said about people, robots and sittings."""
    said = episodes.statement
    return episodes.model_copy(
        update={"statement": Statement(source=said.source, task=said.task, licence=said.licence, policy=said.policy)}
    )


def _read(digest: str, paths: Paths) -> EpisodeSet:
    path = paths.episode_set(digest)
    if not path.exists() and paths.redacted_episode_set(digest).exists():
        path = paths.redacted_episode_set(digest)
        vouched = {one.sha256 for record in Decisions(paths).read() for one in record.subject}
        fits = digest_file(path) in vouched
    else:
        fits = digest_file(path) == digest
    remedy = "restore it from the lineage branch: git restore --source refs/world4rl/lineage -- data/episodes"
    if not fits:
        raise DataError("the list of episodes is not what its name says", where=path, remedy=remedy)
    try:
        return EpisodeSet.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise DataError(f"the list of episodes cannot be used: {error}", where=path, remedy=remedy) from None
