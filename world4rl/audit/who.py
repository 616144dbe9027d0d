"""Who made this, when, with which code, parameters, packages, hardware and seeds?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from world4rl.audit.answers import Answer, Table, answer, short
from world4rl.audit.book import Book
from world4rl.audit.find import Found, find
from world4rl.audit.versions import History, Version
from world4rl.provenance.decisions import Deployment, Promotion, Rejection, Rollback
from world4rl.provenance.records import Record, Run


def who(book: Book, history: History, asked: str) -> Answer:
    """Answers for a file or folder anywhere, a digest, or a recorded path.

    Raises:
        DataError: there is nothing of that name.
    """
    return who_made(book, history, find(book, history, asked))


def who_made(book: Book, history: History, found: Found) -> Answer:
    """Answers for what was found."""
    asked = found.asked
    question = f"Who made {asked}, when and with what?"
    if not found.versions:
        headline = f"Nothing on record made {asked}: no run made these bytes."
        return answer(book, question, headline, "bad", {"asked": asked, "sha256": found.digest, "runs": []})
    runs = sorted({history.made_by[version][-1] for version in found.versions}, reverse=True)
    first = book.runs[runs[0]].predicate
    return answer(
        book,
        question,
        f"{found.versions[0]} was made by {first.stage}, {_when(first)}, {_code(first)}.",
        "good" if found.exact else "doubt",
        {
            "asked": asked,
            "sha256": found.digest,
            "how": found.how,
            "versions": [{"path": one.path, "sha256": one.digest} for one in found.versions],
            "runs": [_machine_readable(book, run) for run in runs],
            "decisions": [_decision(one) for version in found.versions for one in _decisions(book, version)],
        },
        sentences=(f"How it is known: {found.how}.",),
        blocks=(
            *(table for run in runs for table in _tables(book, history, run)),
            Table(
                "Decisions about it",
                ("when", "what", "by", "because"),
                [
                    (one.at, _what(one), one.by, one.because)
                    for version in found.versions
                    for one in _decisions(book, version)
                ],
            ),
        ),
    )


def _machine_readable(book: Book, run: int) -> dict[str, Any]:
    record = book.runs[run]
    return {"number": run + 1, "record": book.run_files[run].name, "sha256": record.digest, **_predicate(record)}


def _predicate(record: Record[Run]) -> dict[str, Any]:
    return record.predicate.model_dump(mode="json")


def _tables(book: Book, history: History, run: int) -> list[Table]:
    record = book.runs[run]
    one = record.predicate
    machine = dict(one.machine)
    seeds = machine.pop("seeds", None) or {name: value for name, value in one.parameters.items() if "seed" in name}
    facts = {
        "stage": one.stage,
        "command": one.command,
        "began": one.began,
        "ended": one.ended,
        "orchestrator's run": one.orchestrator,
        "code": _code(one),
        "code of the stage": one.code.digest,
        "requirements lock": one.code.lock,
        **{f"seed: {name}": value for name, value in _flat(seeds)},
        "record": book.run_files[run].name,
    }
    title = f"Run {run + 1}: {one.stage}"
    read = [
        (
            link.read.path,
            short(link.read.digest),
            _origin(history, link.versions, link.proven),
            "" if link.proven else "assumed",
        )
        for link in history.links[run]
    ]
    return [
        Table(title, ("", ""), list(facts.items())),
        Table("Machine", ("", ""), _flat(machine)),
        Table("Parameters", ("name", "value"), _flat(one.parameters)),
        Table("Figures", ("name", "value"), _flat(one.metrics)),
        Table("It read", ("path", "version", "made by", ""), read),
        Table("It made", ("path", "SHA-256"), [(out.name, out.sha256) for out in one.outputs]),
    ]


def _origin(history: History, versions: tuple[Version, ...], proven: bool) -> str:
    runs = sorted({history.made_by[one][-1] + 1 for one in versions if one in history.made_by})
    return f"run {', '.join(map(str, runs))}" if runs else "no run"


def _flat(values: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Nested values as lines."""
    lines: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            lines += _flat(value, f"{before}{name}.")
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
            lines.append((f"{before}{name}", shown))
    return lines


def _when(run: Run) -> str:
    return f"on {run.ended}" if run.ended else "at a time that its record leaves open"


def _code(run: Run) -> str:
    if run.code.commit is None:
        return "no commit on record"
    return f"commit {short(run.code.commit)}{' with changes that are in no commit' if run.code.dirty else ''}"


type About = Promotion | Rejection | Rollback | Deployment


def _decisions(book: Book, version: Version) -> list[About]:
    made = [record.predicate for record in book.decisions]
    kinds = (Promotion, Rejection, Rollback, Deployment)
    return [one for one in made if isinstance(one, kinds) and one.policy == version.digest]


def _what(one: About) -> str:
    if isinstance(one, Deployment):
        return f"deployed on {one.robot} for {one.task}"
    kinds = {Promotion: "promoted to champion of", Rejection: "not promoted for", Rollback: "champion again of"}
    return f"{kinds[type(one)]} {one.task}"


def _decision(one: About) -> dict[str, Any]:
    return {"what": _what(one), **one.model_dump(mode="json", exclude={"previous", "policy"})}
