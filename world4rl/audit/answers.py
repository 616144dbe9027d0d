"""The shape of an answer: a headline, what was checked for it, tables for people, and the same for machines.

Every question gives one; the command line prints it, `audit.pages` makes a page of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

from markupsafe import Markup

from world4rl.audit.book import Book, Fault

SHOWN = 20  # rows of a table that the command line prints,
MOST = 500  # and that a page shows
Verdict = Literal["good", "doubt", "bad"]


class Link(NamedTuple):
    """A cell that leads to another page; the command line shows its text."""

    text: str
    page: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Table:
    """Rows under a title.

    Attributes:
        title: What they are.
        columns: Their heads.
        rows: As many cells each; None: nothing to say.
        note: What a reader must know of it.
        left_out: How many more rows there are than those given.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    note: str = ""
    left_out: int = 0


@dataclass(frozen=True)
class Picture:
    """A drawing; the command line leaves it out."""

    title: str
    svg: Markup
    note: str = ""


@dataclass(frozen=True)
class Answer:
    """The answer to a question.

    Attributes:
        question: As a person would ask it.
        headline: The answer in a sentence.
        verdict: Whether it is good news.
        data: The answer for machines.
        sentences: What else a reader should know.
        blocks: Tables and pictures.
        checked: Which records hold.
        faults: Which do not.
    """

    question: str
    headline: str
    verdict: Verdict
    data: Mapping[str, Any]
    sentences: Sequence[str] = ()
    blocks: Sequence[Table | Picture] = ()
    checked: str = ""
    faults: Sequence[Fault] = field(default=())

    @property
    def ok(self) -> bool:
        """Whether the answer is no bad news and rests on records that hold."""
        return self.verdict != "bad" and not self.faults

    def json(self) -> str:
        """The answer for machines."""
        chain = {"holds": self.checked, "faults": [asdict(fault) for fault in self.faults]}
        values = {"question": self.question, "answer": self.headline, "ok": self.ok, "records": chain, **self.data}
        return json.dumps(values, allow_nan=False)

    def text(self) -> str:
        """The answer for a terminal."""
        lines = [self.headline, *self.sentences]
        for block in self.blocks:
            if isinstance(block, Table) and block.rows:
                lines += ["", *_table(block)]
        lines += ["", f"Checked: {self.checked}."]
        for fault in self.faults:
            lines += [f"BROKEN   {fault.file}", f"         {fault.problem}", f"         to do: {fault.remedy}"]
        return "\n".join(lines)


def answer(
    book: Book,
    question: str,
    headline: str,
    verdict: Verdict,
    data: Mapping[str, Any],
    *,
    sentences: Sequence[str] = (),
    blocks: Sequence[Table | Picture] = (),
) -> Answer:
    """An answer from a book, with what of the book holds."""
    return Answer(question, headline, verdict, data, tuple(sentences), tuple(blocks), book.holds, book.faults)


def short(digest: str) -> str:
    """A digest for people: enough of it to find the rest."""
    return digest[:12]


def count(number: int, what: str) -> str:
    """`1 episode`, `2 episodes`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def cell(value: object) -> str:
    """A cell's text."""
    return "–" if value is None or value == "" else str(value)


def _table(table: Table) -> list[str]:
    rows = [[cell(value) for value in row] for row in table.rows[:SHOWN]]
    widths = [max(len(row[index]) for row in [list(table.columns), *rows]) for index in range(len(table.columns))]
    lines = [table.title, *([table.note] if table.note else [])]
    for row in [list(table.columns), *rows] if any(table.columns) else rows:
        lines.append("  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    more = len(table.rows) - len(rows) + table.left_out
    if more:
        lines.append(f"  … and {more:,} more; --json lists them all")
    return lines
