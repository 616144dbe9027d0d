"""What the web server shows beside Dagster's own pages, and what it does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from assets import showing
from pipelines.webserver import Webserver, file_routes

PAGE = "<!doctype html><title>who made it</title>"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in showing.SHOWN:
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config.local").write_text("secret")
    return tmp_path


@pytest.fixture
def client(root: Path) -> TestClient:
    return TestClient(Starlette(routes=file_routes(root)))


@pytest.mark.parametrize("folder", showing.SHOWN)
def test_what_the_metadata_links_to_opens(root: Path, client: TestClient, folder: str) -> None:
    file = root / folder / "bc@räum den tisch auf #1?.html"
    file.write_text(PAGE)
    answer = client.get(showing.link(root, file).url or "")
    assert (answer.status_code, answer.text) == (200, PAGE)
    assert answer.headers["content-type"].startswith("text/html")


def test_a_page_may_run_no_script_and_is_no_part_of_dagsters_site(root: Path, client: TestClient) -> None:
    (root / "reports" / "report.html").write_text(PAGE)
    policy = client.get("/files/reports/report.html").headers["content-security-policy"]
    directives = [directive.split() for directive in policy.split(";")]
    assert ["sandbox"] in directives  # without allow-same-origin, without allow-scripts
    assert ["default-src", "'none'"] in directives


@pytest.mark.parametrize(
    "path",
    [
        "/files/.dvc/config.local",
        "/files/reports/../.dvc/config.local",
        "/files/reports/..%2f.dvc/config.local",
        "/files/reports/%2e%2e/.dvc/config.local",
        "/files/reports//etc/passwd",
        "/files/reports/link",
        "/files/reports/",
        "/files/reports",
        "/files/",
    ],
)
def test_nothing_else_is_shown(root: Path, client: TestClient, path: str) -> None:
    (root / "reports" / "link").symlink_to(root / ".dvc" / "config.local")
    assert client.get(path).status_code == 404


def test_a_folder_that_does_not_exist_yet_is_not_found(tmp_path: Path) -> None:
    client = TestClient(Starlette(routes=file_routes(tmp_path)))
    assert client.get("/files/reports/report.html").status_code == 404
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "report.html").write_text(PAGE)
    assert client.get("/files/reports/report.html").status_code == 200


def test_a_link_to_what_is_not_shown_is_refused(root: Path) -> None:
    with pytest.raises(ValueError, match=r"\.dvc/config\.local"):
        showing.link(root, root / ".dvc" / "config.local")
    with pytest.raises(ValueError, match="subpath"):
        showing.link(root, root.parent / "reports" / "report.html")


def test_the_files_come_before_dagsters_own_routes(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """Its last route answers everything that is left."""
    monkeypatch.chdir(root)
    paths = [getattr(route, "path", "") for route in Webserver(None).build_routes()]
    assert paths[: len(showing.SHOWN)] == [f"/files/{folder}" for folder in showing.SHOWN]
    assert "/graphql" in paths
