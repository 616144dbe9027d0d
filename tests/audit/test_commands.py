"""`world4rl audit`: text, JSON and pages; status 1 for bad news."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from benchmarks.lineage import MadeUp
from tests.audit.conftest import TASKS
from world4rl.cli import app

QUESTIONS = {
    "episodes": ["episodes", f"models/{TASKS[0]}/refined"],
    "reach": ["reach", "--operator", "ben"],
    "verify": ["verify"],
    "stale": ["stale"],
    "who": ["who", "models/world_model"],
}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that is asked for is looked for here first, and this repository may have run its demo."""
    monkeypatch.chdir(tmp_path)


def ask(root: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["audit", *words, "--root", str(root)])


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_question_has_text_json_and_a_page(made: MadeUp, tmp_path: Path, question: str) -> None:
    page = tmp_path / "page.html"
    text = ask(made.paths.root, *QUESTIONS[question])
    assert text.exit_code == 0, text.output
    assert "run records" in text.stdout
    result = ask(made.paths.root, *QUESTIONS[question], "--json", "--html", str(page))
    values = json.loads(result.stdout)
    assert values["ok"] is True
    assert values["answer"] == text.stdout.splitlines()[0]
    html = page.read_text()
    assert values["question"] in html.replace("&#39;", "'")
    assert not re.search(r"""(src|href)=["'](?!#|data:)|https?://|<script""", html), "it holds all that it shows"


def test_the_overview_shows_the_state_of_everything(made: MadeUp, tmp_path: Path) -> None:
    page = tmp_path / "audit" / "index.html"
    assert ask(made.paths.root, "page", "--out", str(page)).exit_code == 0
    html = page.read_text()
    assert html.count('<svg class="lineage"') == 1
    assert "Nothing is stale" in html
    for word in ("Champions", "On robots", "arm-1", TASKS[0], "The records are whole"):
        assert word in html


def test_broken_records_are_told_everywhere(copy: MadeUp, tmp_path: Path) -> None:
    file = sorted(copy.paths.records.glob("*.json"))[-1]
    file.write_bytes(file.read_bytes().replace(b"report", b"rEport"))
    page = tmp_path / "page.html"
    for words in (*QUESTIONS.values(), ["page", "--out", str(page)]):
        result = ask(copy.paths.root, *words)
        assert result.exit_code == 1, words
        assert file.name in result.output or words[0] == "page"
    assert file.name in page.read_text()
    assert "The records are not whole" in page.read_text()


def test_bad_news_end_with_status_1(made: MadeUp, tmp_path: Path) -> None:
    (tmp_path / "stranger").write_text("?")
    for question in ("episodes", "who", "verify"):
        result = ask(made.paths.root, question, str(tmp_path / "stranger"))
        assert result.exit_code == 1
        assert "stranger" in result.stdout
