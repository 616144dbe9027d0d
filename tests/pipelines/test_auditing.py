"""The pages that each materialisation leaves, and the links to them."""

from __future__ import annotations

from pathlib import Path

import pytest

from assets.auditing import pages
from assets.dvc_project import Stage
from benchmarks.lineage import MadeUp
from world4rl.paths import Paths


@pytest.fixture
def made(tmp_path: Path) -> MadeUp:
    made = MadeUp(tmp_path / "repository", ["push-v3"])
    made.repro()
    return made


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


def test_a_stage_links_to_its_page_and_to_the_overview(made: MadeUp) -> None:
    links = pages(made.paths, stage("bc@push-v3", "models/push-v3/bc"))
    urls = [link.url for link in links.values()]
    assert urls == ["/files/reports/audit/bc@push-v3.html", "/files/reports/audit/index.html"]
    files = [made.paths.root / url.removeprefix("/files/") for url in urls]
    assert "Which episodes made models/push-v3/bc?" in files[0].read_text()
    assert "world4rl reproduce bc@push-v3 --html" in files[0].read_text()
    assert "world4rl audit verify models/push-v3/bc" in files[0].read_text()
    assert "The lineage" in files[1].read_text()


def test_a_stage_without_a_record_links_to_the_overview(tmp_path: Path) -> None:
    (link,) = pages(Paths(tmp_path), stage("bc@push-v3", "models/push-v3/bc")).values()
    assert (tmp_path / link.url.removeprefix("/files/")).is_file()


def test_broken_records_stand_on_the_page_and_stop_nothing(made: MadeUp) -> None:
    file = sorted(made.paths.records.glob("*.json"))[1]
    file.write_text("{}")
    pages(made.paths, stage("bc@push-v3", "models/push-v3/bc"))
    assert file.name in made.paths.audit("index").read_text()
