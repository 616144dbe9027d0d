"""Which objects of a content-addressed storage hold withdrawn bytes and nothing else that is wanted."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from world4rl.provenance.manifests import ID_DIGITS, ROLE_MANIFEST

Tree = Mapping[str, str]  # object by path in a folder
DATASET = re.compile(rf"[0-9a-f]{{{ID_DIGITS}}}")


def doomed(
    trees: Iterable[Tree], ids: Collection[str], accepted: Collection[str], wanted: Collection[str] = ()
) -> set[str]:
    """Objects that only withdrawn datasets, and stores made from them, use.

    In every version of a folder of datasets or stores, a dataset's files lie below its id. A file of a withdrawn
    dataset goes, in whatever version it lies, and so does the list of datasets beside it, which names people. It stays
    only if it belongs to something else as well: an accepted dataset, or anything that is no dataset's.

    Args:
        trees: Every version of every folder that the storage knows.
        ids: Of the withdrawn datasets.
        accepted: Ids of the datasets that are accepted now.
        wanted: Objects that stay whatever refers to them.
    """
    gone, kept = set[str](), set(wanted)
    for tree in trees:
        touched = any(_dataset(path) in ids for path in tree)
        for path, name in tree.items():
            dataset = _dataset(path)
            if dataset in ids or (touched and path == ROLE_MANIFEST):
                gone.add(name)
            elif dataset is None or dataset in accepted:
                kept.add(name)
    return gone - kept


def _dataset(path: str) -> str | None:
    """The id of the dataset below which a path lies; None where it lies below none."""
    first = path.partition("/")[0]
    return first if DATASET.fullmatch(first) and first != path else None
