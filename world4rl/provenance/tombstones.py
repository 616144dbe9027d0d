"""What was withdrawn: the tombstones that stand among the decisions, in the form in which others ask for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from world4rl.paths import Paths
from world4rl.provenance.decisions import Decisions, Withdrawal


@dataclass(frozen=True)
class Tombstones:
    """All that was ever withdrawn.

    Attributes:
        episodes: When each was withdrawn (ISO 8601, UTC), by digest.
        datasets: Ids of the accepted datasets that held one of them: they are nowhere any more. What else they held
            lives on in datasets that were derived from them.
    """

    episodes: Mapping[str, str]
    datasets: frozenset[str]


def read_tombstones(paths: Paths) -> Tombstones:
    """The tombstones of a repository.

    Raises:
        DataError: the decisions were changed by somebody.
    """
    withdrawals = [record.predicate for record in Decisions(paths).read() if isinstance(record.predicate, Withdrawal)]
    return Tombstones(
        {digest: one.at for one in reversed(withdrawals) for digest in one.episodes},
        frozenset(id_ for one in withdrawals for id_ in one.datasets),
    )
