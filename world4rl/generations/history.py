"""Which generations of the world model there were, by the run records: every version of it is one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import PurePosixPath

from world4rl.paths import Paths
from world4rl.provenance.episodes import read_episode_sets
from world4rl.provenance.records import Chain, Run

STAGE = "world_model"


@dataclass(frozen=True)
class Generation:
    """A version of the world model.

    Attributes:
        number: From 1.
        digest: `digest_folder` of the model.
        made: When it was trained, ISO 8601, UTC; empty where nobody knows.
        episodes: How many episodes lay in the stores that it was trained from, by source; held-out ones count.
        policies: Digests of the policies whose rollouts are among them.
    """

    number: int
    digest: str
    made: str
    episodes: dict[str, int]
    policies: tuple[str, ...]


def generations(paths: Paths) -> list[Generation]:
    """Every generation, oldest first. A model that was made twice is the generation that it was at first.

    Raises:
        DataError: the run records or an episode set were changed by somebody.
    """
    found: dict[str, Generation] = {}
    stores: dict[str, tuple[str, ...]] = {}  # episode sets by the path of the stores, as they are at a record's time
    model = paths.world_model.relative_to(paths.root).as_posix()
    for record in Chain(paths.records, (Run,)).read():
        run = record.predicate
        digest = next((one.sha256 for one in run.outputs if one.name == model), None)
        if run.stage == STAGE and digest is not None and digest not in found:
            read = [PurePosixPath(one.name) for one in run.inputs]
            sets = [name for path, names in stores.items() if _within(PurePosixPath(path), read) for name in names]
            episodes, policies = _what_for(sets, paths)
            found[digest] = Generation(len(found) + 1, digest, run.ended, episodes, policies)
        stores |= {one.name: run.episodes[one.name] for one in run.outputs if one.name in run.episodes}
    return list(found.values())


def _within(path: PurePosixPath, folders: list[PurePosixPath]) -> bool:
    return any(folder == path or folder in path.parents for folder in folders)


def _what_for(sets: list[str], paths: Paths) -> tuple[dict[str, int], tuple[str, ...]]:
    """How many episodes the sets hold by source, and whose rollouts."""
    counts: Counter[str] = Counter()
    policies = set()
    for one in read_episode_sets(sorted(set(sets)), paths).values():
        counts[one.statement.source] += len(one.episodes)
        if one.statement.policy is not None:
            policies.add(one.statement.policy)
    return dict(sorted(counts.items())), tuple(sorted(policies))
