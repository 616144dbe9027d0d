"""Pages that answer an auditor's questions about what a stage made, written after each materialisation."""

from __future__ import annotations

from typing import Any

from assets import showing
from assets.dvc_project import Stage
from world4rl.errors import World4RLError
from world4rl.paths import Paths


def pages(paths: Paths, stage: Stage) -> dict[str, Any]:
    """Writes a stage's page and the overview; returns the links to them.

    They rest on the records alone and read none of the artefacts. What is wrong with the records stands on the pages
    and is no reason for a stage to fail.
    """
    from world4rl.audit.book import no_collection

    with no_collection():
        return _pages(paths, stage)


def _pages(paths: Paths, stage: Stage) -> dict[str, Any]:
    from world4rl.audit.book import read_book
    from world4rl.audit.episodes import episodes_behind
    from world4rl.audit.find import on_record
    from world4rl.audit.pages import further, overview, write_page
    from world4rl.audit.versions import history_of
    from world4rl.audit.who import who_made

    book = read_book(paths)
    history = history_of(book)
    made = [on_record(history, path) for path in stage.outputs + stage.metrics if path in history.current]
    links: dict[str, Any] = {}
    try:
        if made:
            episodes = episodes_behind(book, history, made[0], listed=False)
            operators = sorted(filter(None, episodes.data["operators"]))
            more = further(book, stage.name, made[0].asked, operators)
            page = paths.audit(stage.name)
            write_page(book, stage.name, [who_made(book, history, made[0]), episodes, more], page)
            links["audit: who, when, with what, from which episodes"] = showing.link(paths.root, page)
        write_page(book, "Overview", overview(book, history), paths.audit("index"))
        links["audit: the lineage, what is stale"] = showing.link(paths.root, paths.audit("index"))
    except World4RLError as error:
        links["audit"] = str(error)
    return links
