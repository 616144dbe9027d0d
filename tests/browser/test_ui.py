"""`make ui` in a real browser: the graph, a click that materialises, checks, figures, automation, a dataset that lands.

The pictures in docs/images come from here: `pytest tests/browser --pictures docs/images`.
"""

from pathlib import Path

import pytest

from tests.browser.site import Visit
from world4rl.config import load_profile
from world4rl.paths import Paths
from world4rl.provenance.decisions import Decisions, Promotion

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(600)]

TASK = load_profile("ci").tasks[0]


@pytest.fixture(scope="module")
def visit(request, tmp_path_factory):
    from tests.pipelines.conftest import build_toy

    toy = build_toy(tmp_path_factory.mktemp("site") / "project", Path(__file__).with_name("drawn_challenge.py"))
    toy.set("retraining/episodes", 2)
    toy.set("promotion/trials", 300)
    pictures = request.config.getoption("pictures") or tmp_path_factory.mktemp("pictures")
    with Visit(toy.root, pictures) as visit:
        visit.toy = toy
        yield visit


def test_the_graph_shows_every_group_and_asset(visit):
    steps = visit.toy.project.steps
    groups = ("landing", "demos", "rollouts", "world_model", "policies", "evaluation", "promotion")
    visit.open_graph(groups, [*groups, *steps, "manifest", "champion"])
    visit.picture("ui-assets")


def test_a_click_materialises(visit):
    visit.go("/assets/random_rollouts", "Never materialized")
    visit.materialise_by_click("random_rollouts")
    visit.go("/assets/random_rollouts", "Latest materialization", "cached", "splits")
    assert sorted(visit.toy.ran()) == sorted(f"random_rollouts@{task}" for task in visit.toy.project.steps["bc"].tasks)


def test_checks_and_figures_are_on_the_pages_of_their_assets(visit):
    visit.run("collect", TASK)
    visit.go("/assets/demo_store?view=checks", "demonstrations_valid", "3 episodes accepted, 0 quarantined", "Passed")
    visit.picture("ui-check")
    shown = visit.go(f"/assets/bc?view=partitions&partition={TASK}", "Materialized", "learning curve")
    assert f"bc@{TASK}" in shown
    visit.picture("ui-asset")


def test_an_assets_links_open_the_answers_to_an_auditors_questions(visit):
    visit.go(f"/assets/bc?view=partitions&partition={TASK}", "Materialized", "audit: ")
    visit.follow(f"/files/reports/audit/bc@{TASK}.html", f"Which episodes made models/{TASK}/bc?")
    visit.go(f"/assets/bc?view=partitions&partition={TASK}", "Materialized", "audit: ")
    visit.follow("/files/reports/audit/index.html", "The lineage")


def test_automation_says_why_nothing_was_done(visit):
    visit.go("/automation", "landing", "Standard sensor")
    visit.picture("ui-automation")
    visit.open_tick("landing", "the landing folder is empty")
    visit.picture("ui-tick")


def test_a_dataset_that_lands_is_accepted_and_shown(visit, record, tmp_path):
    record(tmp_path / "monday", task=TASK)
    visit.land(tmp_path / "monday", operator="anna", consent="research")
    assert visit.state("monday") == "accepted"
    visit.go("/assets/manifest?view=events", TASK, "monday", "Merkle root")
    visit.picture("ui-manifest")
    assert "2 episodes accepted" in "".join(str(event.detail) for event in visit.events("monday"))
    visit.open_tick("landing", "nothing to take: 0 datasets are on their way, 1 are settled")


def test_the_dataset_that_landed_becomes_a_champion_by_itself(visit):
    """Nobody touches anything: the batch is full, so the sensor retrains, and the gate decides."""
    visit.wait_for_champion(TASK)
    assert {f"landed@{TASK}", f"bc@{TASK}", "world_model", f"refined@{TASK}"} <= set(visit.toy.ran())
    (decision,) = Decisions(Paths(visit.toy.root)).read()
    assert isinstance(decision.predicate, Promotion)
    said = visit.go(f"/assets/champion?view=partitions&partition={TASK}", "promoted", "interval", "decision")
    assert decision.predicate.policy in said
    visit.picture("ui-champion")
    visit.open_tick("batch_policy", "done: ")
    visit.picture("ui-retrained")
