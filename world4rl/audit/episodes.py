"""Which episodes, operators, licences, consents and robots made this file?"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from world4rl.audit.answers import MOST, Answer, Table, answer, count, short
from world4rl.audit.book import Book, Member, episodes_of
from world4rl.audit.find import Found, find
from world4rl.audit.versions import History, Making, Version
from world4rl.provenance.digests import merkle_root
from world4rl.provenance.manifests import Acceptance
from world4rl.provenance.statement import Statement

SAID: dict[str, Callable[[Statement], str | None]] = {
    "operators": lambda said: said.operator,
    "robots": lambda said: said.robot_id,
    "licences": lambda said: said.licence,
    "consents": lambda said: said.consent,
    "sessions": lambda said: said.session,
}


def which_episodes(book: Book, history: History, asked: str) -> Answer:
    """Answers for a file or folder anywhere, a digest, or a recorded path.

    Raises:
        DataError: there is nothing of that name.
    """
    return episodes_behind(book, history, find(book, history, asked))


def episodes_behind(book: Book, history: History, found: Found, *, listed: bool = True) -> Answer:
    """Answers for what was found.

    Args:
        book: The records.
        history: Their history.
        found: What is asked about.
        listed: Whether to list every episode for machines; a page shows the first only.
    """
    asked = found.asked
    question = f"Which episodes made {asked}?"
    data: dict[str, Any] = {"asked": asked, "sha256": found.digest, "how": found.how, "versions": []}
    if not found.versions:
        headline = f"Nothing on record made {asked}: no run made these bytes."
        return answer(book, question, headline, "bad", data)
    makings = history.behind(found.versions)
    made_from = {one.version for one in makings}
    sets = sorted({digest for version in made_from for digest in history.holds.get(version, ())})
    members = episodes_of(book.sets, sets)
    landed = _only_landed(book, history, made_from, sets)
    guesses = assumed(history, makings)
    root = merkle_root(sorted(one.episode.digest for one in members))
    withdrawn = [one for one in members if one.episode.digest in book.withdrawn]
    said = _said(book, sets, landed)
    data |= {
        "versions": [{"path": one.path, "sha256": one.digest} for one in found.versions],
        "exact": found.exact,
        "count": len(members),
        "merkle_root": root,
        "withdrawn": len(withdrawn),
        **{name: dict(values) for name, values in said.items()},
        "datasets": sorted({one.dataset for one in members} | {one.id for one in landed}),
        "assumed": guesses,
        "episodes": [_episode(book, one) for one in members] if listed else [],
    }
    operators = [name for name in said["operators"] if name]
    headline = f"{count(len(members), 'episode')} made {_name(found)}" + (
        f", by {_names(operators)}." if operators else "."
    )
    return answer(
        book,
        question,
        headline,
        "bad" if withdrawn or not found.exact else "doubt" if guesses else "good",
        data,
        sentences=_sentences(found, members, root, withdrawn, guesses, landed),
        blocks=(
            Table("It is", ("path", "SHA-256"), [(one.path, one.digest) for one in found.versions]),
            *_statements(said),
            _datasets(book, sets, landed),
            _list(book, members),
        ),
    )


def assumed(history: History, makings: Iterable[Making]) -> list[str]:
    """Inputs of runs of which no digest says where they came from."""
    runs = {one.run for one in makings if one.run is not None}
    return sorted({str(link.read) for run in runs for link in history.links[run] if not link.proven})


def _only_landed(book: Book, history: History, versions: Iterable[Version], sets: Sequence[str]) -> list[Acceptance]:
    """Accepted datasets among the inputs that are in no store there."""
    stored = {book.sets[digest].dataset for digest in sets if digest in book.sets}
    landed = {dataset for version in versions for dataset in history.datasets.get(version, ())} - stored
    return [one for one in book.acceptances if one.id in landed]


def _said(book: Book, sets: Sequence[str], landed: Sequence[Acceptance]) -> dict[str, Counter[str]]:
    """How many episodes stand behind each value of each field of the statements; nothing said counts as ``."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    stated = [(book.sets[digest].statement, len(book.sets[digest].episodes)) for digest in sets if digest in book.sets]
    stated += [(one.statement, len(one.episodes)) for one in landed]
    for name, get in SAID.items():
        for statement, episodes in stated:
            found[name][get(statement) or ""] += episodes
    return {name: Counter(dict(sorted(found[name].items()))) for name in SAID}


def _sentences(
    found: Found,
    members: Sequence[Member],
    root: str,
    withdrawn: Sequence[Member],
    guesses: Sequence[str],
    landed: Sequence[Acceptance],
) -> list[str]:
    splits = Counter(one.episode.split for one in members)
    parts = ", ".join(f"{number:,} {split}" for split, number in sorted(splits.items()))
    lines = [f"How it is known: {found.how}.", f"Merkle root of the episodes: {root}"]
    if parts:
        lines.append(f"Used as: {parts}. Nothing trains on `test`.")
    if withdrawn:
        lines.append(f"{count(len(withdrawn), 'episode')} of them were withdrawn: it must not be used any more.")
    if landed:
        lines.append(f"It holds {count(len(landed), 'dataset')} as they landed, in no store yet.")
    if guesses:
        lines.append(
            "At most these: no digest says what lay in "
            + _names(guesses[:3])
            + ", so all that may have lain there is counted."
        )
    return lines


def _statements(said: dict[str, Counter[str]]) -> list[Table]:
    rows = [
        (name, value or "(nothing said)", number) for name, values in said.items() for value, number in values.items()
    ]
    return [Table("Who, with what, for which use", ("", "value", "episodes"), rows)]


def _datasets(book: Book, sets: Sequence[str], landed: Sequence[Acceptance]) -> Table:
    names = {one.id: one.name for one in book.acceptances}
    rows: list[tuple[object, ...]] = []
    for digest in sets:
        if digest in book.sets:
            one = book.sets[digest]
            said = one.statement
            tasks = ", ".join(sorted({episode.task for episode in one.episodes}))
            name = names.get(one.dataset, "")
            rows.append(
                (one.dataset, name, tasks, said.source, said.operator, said.robot_id, len(one.episodes), short(digest))
            )
    for accepted in landed:
        said, tasks = accepted.statement, ", ".join(sorted({episode.task for episode in accepted.episodes}))
        rows.append(
            (accepted.id, accepted.name, tasks, said.source, said.operator, said.robot_id, len(accepted.episodes), "")
        )
    return Table(
        "Datasets", ("dataset", "landed as", "task", "role", "operator", "robot", "episodes", "episode set"), rows
    )


def _list(book: Book, members: Sequence[Member]) -> Table:
    rows = []
    for one in members[:MOST]:
        state = "withdrawn" if one.episode.digest in book.withdrawn else one.episode.split
        operator = book.sets[one.set_digest].statement.operator
        rows.append((one.dataset, one.episode.task, one.episode.episode, state, operator, one.episode.digest))
    columns = ("dataset", "task", "episode", "used as", "operator", "SHA-256")
    return Table("Episodes", columns, rows, left_out=len(members) - len(rows))


def _episode(book: Book, one: Member) -> dict[str, Any]:
    return {
        "dataset": one.dataset,
        **vars(one.episode),  # plain values all
        "operator": book.sets[one.set_digest].statement.operator,
        "withdrawn": one.episode.digest in book.withdrawn,
    }


def _name(found: Found) -> str:
    return found.asked if len(found.versions) != 1 else str(found.versions[0])


def _names(values: Sequence[str]) -> str:
    return values[0] if len(values) == 1 else f"{', '.join(values[:-1])} and {values[-1]}"
