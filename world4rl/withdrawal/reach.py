"""What was made from episodes, by the run records."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from world4rl.audit.versions import History, is_landed
from world4rl.provenance.episodes import EpisodeSet
from world4rl.withdrawal.selecting import Cut


def sets_reached(sets: Mapping[str, EpisodeSet], cuts: Iterable[Cut]) -> set[str]:
    """Digests of the episode sets that hold an episode which goes.

    An episode has one digest at the door and another in a store, where it may be smaller: it is found by its number in
    its dataset, and then by its digest in every set, since a dataset that was cut has been another one before.

    Args:
        sets: All sets by digest.
        cuts: What becomes of the accepted datasets.
    """
    numbers = {(cut.acceptance.id, one.episode) for cut in cuts for one in cut.gone}
    digests = {one.digest for each in sets.values() for one in each.episodes if (each.dataset, one.episode) in numbers}
    known = {each.dataset for each in sets.values()}
    # What it was cut from was stored and it itself never: nobody can tell any more which of its episodes stayed.
    before = {
        cut.acceptance.derived_from[: len(cut.acceptance.id)]
        for cut in cuts
        if cut.acceptance.derived_from is not None and cut.gone and cut.acceptance.id not in known
    }
    return {
        name
        for name, each in sets.items()
        if each.dataset in before or any(one.digest in digests for one in each.episodes)
    }


def made_from(history: History, sets: Collection[str]) -> set[tuple[str, str]]:
    """Every version that a run made from one of the episode sets, the stores that hold them included.

    The history is that of the audit, so that both name the same. Datasets that landed are left out, also rollouts of a
    policy that was made from such episodes: they are withdrawn by their own names. What was trained on them is not.

    Args:
        history: What was made from what.
        sets: Digests of episode sets.

    Returns:
        Paths and the digests that they had.
    """
    stores = {version for version, held in history.holds.items() if not held.isdisjoint(sets)}
    found = {one.version for one in history.beyond(stores) if one.run is not None}
    return {(one.path, one.digest) for one in found if not is_landed(one.path)}
