"""The pages that each materialisation leaves, and the links to them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from typer.testing import CliRunner

from assets.auditing import pages
from assets.dvc_project import Stage
from assets.reproducing import Reproduction, tell
from benchmarks.lineage import MadeUp
from world4rl.audit.book import read_book
from world4rl.audit.site import again, keep
from world4rl.cli import app
from world4rl.paths import Paths
from world4rl.provenance.reproduction import Made, compare


@pytest.fixture
def made(tmp_path: Path) -> MadeUp:
    made = MadeUp(tmp_path / "repository", ["push-v3"])
    made.land(["push-v3"], 2, operator="ada")
    made.repro()
    return made


def answers(made: MadeUp, name: str, output: str) -> dict[str, str]:
    """The questions at the top of a stage's page, and what it says to each."""
    pages(made.paths, stage(name, output))
    found = re.findall(r'<li class="\w+"><a href="#q\d">(.*?)</a> (.*?)</li>', made.paths.audit(name).read_text())
    return dict(found)


def verified(made: MadeUp) -> None:
    CliRunner().invoke(app, ["audit", "verify", "--root", str(made.paths.root)])


def reproduced(made: MadeUp, record: str) -> None:
    comparison = compare(Made({}, {"loss": 0.25}), Made({}, {"loss": 0.25}), 0.05)
    book = read_book(made.paths)
    keep(book, tell(book, "bc", Reproduction("bc@push-v3", record, "5" * 40, (), comparison)), again("bc@push-v3"))


def stage(name: str, output: str) -> Stage:
    return Stage(
        name=name,
        step=name.partition("@")[0],
        task=None,
        command="",
        description="",
        code=(),
        data=(),
        sources=(),
        parameters=(),
        outputs=(output,),
        metrics=(),
        upstream=frozenset(),
    )


def opened(root: Path, links: Mapping[str, Any]) -> list[Path]:
    """The files that links lead to."""
    return [root / unquote(link.url.removeprefix("/files/")) for link in links.values()]


def test_a_stage_links_to_its_page_and_to_those_about_everything(made: MadeUp) -> None:
    links = pages(made.paths, stage("bc@push-v3", "models/push-v3/bc"))
    files = opened(made.paths.root, links)
    assert files == [made.paths.audit(name) for name in ("bc@push-v3", "index", "reach")]
    assert "The lineage" in files[1].read_text()
    assert "What did operator ada reach?" in files[2].read_text()


def test_a_stages_page_answers_every_question(made: MadeUp) -> None:
    """In words, at its top; where only reading or training can tell, it says so and names the command."""
    path = "models/push-v3/bc"
    told = answers(made, "bc@push-v3", path)
    assert list(told) == [
        f"Who made {path}, when and with what?",
        f"Which episodes made {path}?",
        f"What was made from {path}, and which robots run it?",
        "Is what bc@push-v3 made bit-identical to what was made?",
        "Is it stale, because of what, since when?",
        "Does bc@push-v3 come out again?",
    ]
    who, episodes, reached, identical, stale, again = told.values()
    assert who.startswith(f"{path} @ {made.digest(path)[:12]} was made by bc@push-v3, on 2026-")
    assert episodes.endswith("by ada.")
    assert " reached " in reached
    assert "No: it has every change." in stale
    assert identical.startswith("Not known")
    assert again.startswith("Not known")
    html = made.paths.audit("bc@push-v3").read_text()
    assert f"world4rl audit verify {path}" in html
    assert "world4rl reproduce bc@push-v3" in html


def test_the_last_verification_and_reproduction_stand_on_the_page(made: MadeUp) -> None:
    def told() -> tuple[str, str]:
        _, _, _, identical, _, again_ = answers(made, "bc@push-v3", "models/push-v3/bc").values()
        return identical, again_

    verified(made)
    record = next(one.name for one in made.paths.records.glob("*.json") if '"bc@push-v3"' in one.read_text())
    reproduced(made, record)
    assert told()[0].startswith("Yes: bit-identical, as of 20")
    assert told()[1].startswith("Bit-equal, as of 20")
    for page in ("verify", "bc@push-v3-again"):
        assert f'href="{page}.html"' in made.paths.audit("bc@push-v3").read_text().replace("%40", "@")
        assert made.paths.audit(page).is_file()
    (made.paths.bc("push-v3") / "config.json").write_text("{}")
    verified(made)
    assert told()[0].startswith("No: 1 file is not as made, as of 20")
    made.land(["push-v3"], 2, operator="ben")
    made.repro()
    assert told()[0].startswith("Not known: the last verification")
    assert "that was an earlier version" in told()[1]


def test_every_link_between_the_pages_leads_to_one(made: MadeUp) -> None:
    for one in ("bc@push-v3", "world_model"):
        pages(made.paths, stage(one, f"models/{'push-v3/bc' if '@' in one else one}"))
    verified(made)
    pages(made.paths, stage("bc@push-v3", "models/push-v3/bc"))
    folder = made.paths.audit("index").parent
    targets = {file.name: set(re.findall(r'href="([^#"]+\.html)"', file.read_text())) for file in folder.glob("*.html")}
    assert {"bc%40push-v3.html", "world_model.html", "verify.html", "reach.html"} == targets["index.html"]
    for target in set().union(*targets.values()):
        assert (folder / unquote(target)).is_file(), target


def test_what_is_no_stage_links_to_the_pages_about_everything(made: MadeUp) -> None:
    assert [file.name for file in opened(made.paths.root, pages(made.paths))] == ["index.html", "reach.html"]


def test_a_stage_without_a_record_links_to_the_pages_about_everything(tmp_path: Path) -> None:
    files = opened(tmp_path, pages(Paths(tmp_path), stage("bc@push-v3", "models/push-v3/bc")))
    assert [file.name for file in files] == ["index.html", "reach.html"]
    assert all(file.is_file() for file in files)


def test_broken_records_stand_on_the_page_and_stop_nothing(made: MadeUp) -> None:
    file = sorted(made.paths.records.glob("*.json"))[1]
    file.write_text("{}")
    pages(made.paths, stage("bc@push-v3", "models/push-v3/bc"))
    assert file.name in made.paths.audit("index").read_text()
