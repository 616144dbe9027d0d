"""Champions and robots: pointers move, bytes are verified, and what the ledger says is what was decided."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.promotion.conftest import TASK, Site
from world4rl.errors import ConfigError, DataError
from world4rl.promotion import champions
from world4rl.promotion.champions import rollback
from world4rl.promotion.fleet import Running, deploy, fleet, undeploy
from world4rl.promotion.history import History, Reign, evidence_line
from world4rl.provenance.decisions import Decision, Deployment, Promotion, Rollback
from world4rl.provenance.digests import digest_folder
from world4rl.provenance.records import Record
from world4rl.provenance.signatures import beside, sign_model, verify_model

WORD = {"by": "ada", "because": "the gripper is new"}


def back(site: Site, to: str | None = None) -> Reign:
    return rollback(site.paths, site.private, TASK, to=to, clock=site.clock, **WORD)


def send(site: Site, robot: str = "arm-1", **options: Any) -> tuple[Running, bool]:
    return deploy(site.paths, site.private, robot=robot, task=TASK, clock=site.clock, **WORD, **options)


def test_a_rollback_moves_the_pointer_to_the_one_before_and_touches_no_bytes(site: Site) -> None:
    first, second = site.promote("good", 0.7), site.promote("better", 1.0)
    bytes_before = digest_folder(site.paths.root / "models")
    reign = back(site)
    assert (reign.policy, reign.replaces, reign.how, reign.because) == (
        first,
        second,
        "rolled back to",
        WORD["because"],
    )
    assert reign.evidence["verdict"] == "better", "that of its promotion"
    now = site.history.champion(TASK)
    assert now is not None
    assert now.policy == first
    assert digest_folder(site.paths.root / "models") == bytes_before
    assert [one.how for one in site.history.reigns(TASK)] == ["promoted", "promoted", "rolled back to"]
    with pytest.raises(ConfigError, match="no champion before"):
        back(site)
    assert back(site, second[:5]).policy == second


def test_a_rollback_goes_only_to_who_was_champion(site: Site) -> None:
    with pytest.raises(ConfigError, match="never had a champion"):
        back(site)
    first = site.promote("good", 0.7)
    refused = site.refine("poor", 0.1)
    site.challenge()
    for digits in (refused, "", "zz"):
        with pytest.raises(ConfigError, match="no policy begins") as caught:
            back(site, digits)
        assert first[:16] in str(caught.value.remedy)
    with pytest.raises(ConfigError, match="is the champion"):
        back(site, first)
    assert len(site.history.reigns(TASK)) == 1


def test_a_rollback_to_missing_or_differing_bytes_is_refused_and_names_the_file(
    site: Site, spoil: Callable[[Path], None]
) -> None:
    first = site.promote("good", 0.7)
    site.promote("better", 1.0)
    folder = champions.folder_of(site.paths, TASK, first)
    model, extra = folder / "model.txt", folder / "extra.txt"
    extra.write_text("not promoted")
    damages = [(lambda: None, extra, "does not belong")]
    damages += [(lambda: spoil(model), model, "another one"), (model.unlink, model, "missing")]
    for damage, file, problem in damages:
        damage()
        with pytest.raises(DataError, match=problem) as caught:
            back(site)
        assert caught.value.where == str(file)
        assert f"dvc pull models/{TASK}/refined" in str(caught.value.remedy)
        extra.unlink(missing_ok=True)
    site.refine("good", 0.7)  # as that state of the lineage has it
    assert back(site).policy == first
    assert digest_folder(folder) == first


def test_withdrawn_policies_do_not_come_back_and_go_nowhere(site: Site) -> None:
    first = site.promote("good", 0.7)
    site.promote("better", 1.0)
    site.withdraw(first)
    for act in (lambda: back(site), lambda: send(site, policy=first)):
        with pytest.raises(DataError, match="withdrawn at 2026-06-01T00:00:00Z by ada"):
            act()
    assert fleet(site.paths) == []


def test_the_ledger_says_who_runs_what_since_when_and_how_that_stands(site: Site) -> None:
    first = site.promote("good", 0.7)
    one, new = send(site, "arm-1")
    assert new
    assert (one.robot, one.task, one.policy, one.standing, one.by) == ("arm-1", TASK, first, "champion", "ada")
    second = site.promote("better", 1.0)
    send(site, "arm-2")
    clone, _ = send(site, "arm-3", policy=digest_folder(site.paths.bc(TASK))[:9], unpromoted=True)
    assert [(r.robot, r.policy, r.standing) for r in fleet(site.paths)] == [
        ("arm-1", first, "earlier champion"),
        ("arm-2", second, "champion"),
        ("arm-3", clone.policy, "never promoted"),
    ]
    assert fleet(site.paths)[0] == Running(**{**vars(one), "standing": "earlier champion"})
    back(site)
    assert [r.standing for r in fleet(site.paths)] == ["champion", "earlier champion", "never promoted"]
    site.withdraw(second)
    assert [r.withdrawn for r in fleet(site.paths)] == [None, "2026-06-01T00:00:00Z", None]
    undeploy(site.paths, site.private, robot="arm-2", task=TASK, clock=site.clock, **WORD)
    assert [r.robot for r in fleet(site.paths)] == ["arm-1", "arm-3"]
    with pytest.raises(ConfigError, match="arm-2 runs no policy"):
        undeploy(site.paths, site.private, robot="arm-2", task=TASK, **WORD)


def test_the_same_again_is_no_news(site: Site) -> None:
    site.promote("good", 0.7)
    before, _ = send(site)
    decisions = len(site.decisions)
    assert send(site) == (before, False)
    assert len(site.decisions) == decisions


def test_what_was_never_promoted_is_deployed_only_on_purpose(site: Site) -> None:
    with pytest.raises(ConfigError, match="has no champion"):
        send(site)
    poor = site.refine("poor", 0.1)
    with pytest.raises(ConfigError, match="among those that were promoted") as caught:
        send(site, policy=poor)
    assert "--unpromoted" in str(caught.value.remedy)
    running, _ = send(site, policy=poor, unpromoted=True)
    assert (running.policy, running.standing) == (poor, "never promoted")
    with pytest.raises(ConfigError, match="no policy begins"):
        send(site, policy="0" * 64, unpromoted=True)


def test_damaged_bytes_are_not_deployed(site: Site, spoil: Callable[[Path], None]) -> None:
    digest = site.promote("good", 0.7)
    site.refine("another", 0.1)
    spoil(champions.folder_of(site.paths, TASK, digest) / "config.json")
    with pytest.raises(DataError, match="another one") as caught:
        send(site)
    assert str(caught.value.where).endswith("config.json")
    assert fleet(site.paths) == []


def test_the_policy_is_handed_over_whole_and_into_no_other_folder(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = site.promote("good", 0.7)
    out = tmp_path / "robot" / "policy"
    send(site, out=out)
    assert digest_folder(out) == digest
    assert out.joinpath("model.txt").stat().st_nlink == 1, "a robot's copy shares nothing with ours"
    assert not beside(out).exists(), "nobody has signed it"
    sign_model(site.paths.refined(TASK), digest, site.private, site.paths)
    send(site, "arm-2", out=out)  # there already, but for its signature
    monkeypatch.setenv("WORLD4RL_TRUSTED_KEYS", str(site.paths.trusted_keys))
    assert verify_model(out) is not None
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="something else lies there"):
        send(site, "arm-3", out=taken)
    assert [r.robot for r in fleet(site.paths)] == ["arm-1", "arm-2"]
    assert (taken / "thesis.txt").exists()


def test_where_nothing_can_be_written_nothing_is_handed_over_and_nothing_recorded(site: Site) -> None:
    site.promote("good", 0.7)
    with pytest.raises(ConfigError, match="cannot be copied there") as caught:
        send(site, out=Path("/proc/robot"))
    assert caught.value.where == "/proc/robot"
    assert fleet(site.paths) == []


@pytest.mark.parametrize("nothing", ["", "  ", "two\nlines", "\x1b[31mred"])
def test_what_is_kept_for_good_says_something_on_one_line(site: Site, nothing: str, tmp_path: Path) -> None:
    site.promote("good", 0.7)
    site.promote("better", 1.0)
    send(site)
    before = len(site.decisions)
    with pytest.raises(ConfigError, match="cannot be kept for good") as caught:
        send(site, nothing, out=tmp_path / "robot")
    assert caught.value.where == "--robot"
    assert not (tmp_path / "robot").exists()
    for words in ({"by": nothing, "because": "so"}, {"by": "ada", "because": nothing}):
        with pytest.raises(ConfigError, match="cannot be kept for good"):
            rollback(site.paths, site.private, TASK, to=None, **words)
        with pytest.raises(ConfigError, match="cannot be kept for good"):
            undeploy(site.paths, site.private, robot="arm-1", task=TASK, **words)
    assert len(site.decisions) == before


def test_the_line_of_figures() -> None:
    evidence = {
        "effect_points": 26.25,
        "interval_points": [10.0, 41.5],
        "confidence": 0.9,
        "p_value": 0.0123,
        "challenger": {"successes": 62, "trials": 80},
        "opponent": {"successes": 41, "trials": 80},
    }
    assert evidence_line(evidence) == (
        "62 of 80 against 41 of 80 trials succeeded: +26.2 points (90 % interval +10.0 to +41.5), p = 0.012"
    )
    assert evidence_line({"checks": [{"check": "a", "passed": False, "reason": "too low"}]}) == "too low"


POLICIES = st.sampled_from(["a" * 64, "b" * 64, "c" * 64])
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("promote"), st.sampled_from(["t1", "t2"]), POLICIES),
        st.tuples(st.just("back"), st.sampled_from(["t1", "t2"]), POLICIES),
        st.tuples(st.just("deploy"), st.sampled_from(["t1", "t2"]), st.one_of(st.none(), POLICIES)),
    ),
    max_size=25,
)


@given(events=EVENTS)
def test_history_agrees_with_keeping_books(events: list[tuple[str, str, str | None]]) -> None:
    champion: dict[str, str] = {}
    deposed: set[tuple[str, str]] = set()
    running: dict[tuple[str, str], str] = {}
    said: list[Decision] = []
    for number, (what, task, policy) in enumerate(events):
        common = {"at": f"2026-01-01T00:00:{number:02}Z", "by": "ada", "because": "so", "task": task}
        if what == "deploy":
            said.append(Deployment(**common, robot="arm", policy=policy))
            running.pop(("arm", task), None)
            if policy is not None:
                running["arm", task] = policy
            continue
        assert policy is not None
        before = champion.get(task)
        if what == "back" and before in (None, policy):
            continue  # refused
        if what == "promote":
            said.append(Promotion(**common, policy=policy, replaces=before, evidence={}))
        else:
            said.append(Rollback(**common, policy=policy, replaces=before))
            deposed.add((task, str(before)))
        champion[task] = policy
        deposed.discard((task, policy))
    history = History([Record(subject=(), predicateType=one.predicate_type, predicate=one) for one in said])
    assert {task: reign.policy for task in history.tasks if (reign := history.champion(task))} == champion
    assert {key: one.policy for key, one in history.deployments().items()} == running
    every = {(task, policy) for _, task, policy in events if policy is not None}
    assert {pair for pair in every if history.deposed(*pair) is not None} == deposed & every
