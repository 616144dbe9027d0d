"""Pages that answer an auditor's questions about what a stage made, written after each materialisation."""

from __future__ import annotations

from typing import Any

from assets import showing
from assets.dvc_project import Stage
from world4rl.errors import World4RLError
from world4rl.paths import Paths

STAGE = "audit: who, with what, from which episodes, what it reached, is it the same, stale, reproducible"
SHARED = {"index": "audit: the lineage, what is stale", "reach": "audit: what each operator and dataset reached"}


def pages(paths: Paths, stage: Stage | None = None) -> dict[str, Any]:
    """Writes a stage's page and those about everything; returns the links to them.

    They rest on the records alone and read none of the artefacts. What is wrong with the records stands on the pages
    and is no reason for a stage to fail.

    Args:
        paths: The repository.
        stage: What was materialised; None: something that is no stage, such as a champion.
    """
    from world4rl.audit.book import no_collection, read_book
    from world4rl.audit.site import write_shared, write_stage
    from world4rl.audit.stale import find_stale
    from world4rl.audit.versions import history_of

    links: dict[str, Any] = {}
    with no_collection():
        book = read_book(paths)
        history = history_of(book)
        try:
            stale = find_stale(book, history)
            if stage is not None and write_stage(book, history, stage.name, stage.outputs + stage.metrics, stale):
                links[STAGE] = showing.link(paths.root, paths.audit(stage.name))
            write_shared(book, history, stale)
        except World4RLError as error:
            return {**links, "audit": str(error)}
    return links | {label: showing.link(paths.root, paths.audit(name)) for name, label in SHARED.items()}
