"""Who becomes champion: decided once, by the rule, and never in half."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.promotion.conftest import TASK, Site
from world4rl.config import load_profile, parse_params
from world4rl.demos.seeds import episode_seeds
from world4rl.errors import ConfigError, DataError
from world4rl.files import read_json, write_json
from world4rl.promotion import champions, simulated
from world4rl.promotion.simulated import pair_seeds
from world4rl.provenance.decisions import Decisions, Promotion, Rejection
from world4rl.provenance.digests import digest_file, digest_folder


def test_without_a_champion_the_clone_is_to_beat_and_who_beats_it_is_promoted(site: Site) -> None:
    digest = site.refine("good", 0.9)
    outcome = site.challenge()
    assert (outcome.verdict, outcome.champion, outcome.decided) == ("promoted", digest, True)
    (promotion,) = site.decisions
    assert isinstance(promotion, Promotion)
    assert (promotion.policy, promotion.replaces, promotion.by) == (digest, None, "gate")
    evidence = promotion.evidence
    assert evidence["opponent"]["policy"] == digest_folder(site.paths.bc(TASK))
    assert evidence["challenger"]["trials"] == evidence["opponent"]["trials"] < site.params.promotion.trials
    assert evidence["effect_points"] >= 5
    assert evidence["interval_points"][0] > 0
    assert evidence["p_value"] <= 0.05
    folder = champions.folder_of(site.paths, TASK, digest)
    assert digest_folder(folder) == digest
    (record,) = site.history.records
    assert {one.name: one.sha256 for one in record.subject} == {
        f"models/champions/{TASK}/{digest[:16]}/{name}": digest_file(folder / name)
        for name in ("config.json", "model.txt")
    }
    assert (site.paths.root / str(outcome.record)).is_file()
    assert read_json(site.paths.challenge_report(TASK))["champion"] == digest


def test_the_champions_bytes_are_not_copied_where_links_do_and_stay_when_the_policy_is_made_anew(site: Site) -> None:
    digest = site.promote("good", 0.9)
    kept = champions.folder_of(site.paths, TASK, digest) / "model.txt"
    assert kept.stat().st_ino == (site.paths.refined(TASK) / "model.txt").stat().st_ino
    site.refine("new", 0.1)
    assert kept.read_text() == "good"


def test_where_links_do_not_work_the_bytes_are_copied(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise OSError(18, "another disk")

    monkeypatch.setattr(champions.os, "link", refuse)
    digest = site.promote("good", 0.9)
    assert digest_folder(champions.folder_of(site.paths, TASK, digest)) == digest


@pytest.mark.parametrize("rate", [0.5, 0.4])
def test_who_does_not_beat_the_clone_is_kept_back_with_the_reason_and_there_is_no_champion(
    site: Site, rate: float
) -> None:
    digest = site.refine("poor", rate)
    outcome = site.challenge()
    assert (outcome.verdict, outcome.champion) == ("kept", None)
    (rejection,) = site.decisions
    assert isinstance(rejection, Rejection)
    assert (rejection.policy, rejection.champion) == (digest, digest_folder(site.paths.bc(TASK)))
    assert "points" in rejection.because
    assert not site.paths.champions(TASK).exists()


def test_the_champion_is_to_beat_and_not_the_clone(site: Site) -> None:
    champion = site.promote("good", 0.8)
    digest = site.refine("other", 0.7)  # better than the clone
    outcome = site.challenge()
    assert (outcome.verdict, outcome.champion, outcome.challenger) == ("kept", champion, digest)
    better = site.refine("better", 1.0)
    outcome = site.challenge()
    assert (outcome.verdict, outcome.champion) == ("promoted", better)
    newest = site.decisions[-1]
    assert isinstance(newest, Promotion)
    assert newest.replaces == champion


def test_the_trials_stop_when_the_answer_is_clear_either_way_or_at_the_largest_number(site: Site) -> None:
    site.refine("far better", 1.0)
    site.challenge()
    assert len(site.tried) < 60
    assert len(site.tried) % site.params.promotion.batch == 0
    site.tried.clear()
    site.refine("far worse", 0.2)
    site.challenge()
    assert len(site.tried) < 60
    site.tried.clear()
    site.refine("hardly worse", 0.99)
    site.rule(trials=25)
    assert "within the 25 seeds" in site.challenge().why
    assert len(site.tried) == 25


def test_both_get_seeds_that_nothing_else_has_and_every_pair_its_own(site: Site) -> None:
    site.promote("good", 0.9)
    first = list(site.tried)
    assert len(set(first)) == len(first)
    taken = {
        seed
        for source, split in (("expert", "train"), ("policy", "test"), ("evaluation", "test"))
        for seed in episode_seeds(site.params.seed, TASK, source, split, 1 << 14)
    }
    assert not taken & set(first)
    site.tried.clear()
    site.refine("better", 1.0)
    site.challenge()
    assert not set(site.tried) <= set(first)


def test_a_certain_gain_that_is_too_small_is_called_that(site: Site) -> None:
    site.refine("better", 0.75)
    site.rule(minimum_effect=60.0, beta=1e-30, trials=100)
    outcome = site.challenge()
    assert outcome.verdict == "kept"
    assert outcome.why.startswith("it is better, but by less than 60 points: +")
    assert outcome.evidence["interval_points"][0] > 0


def test_the_interval_has_the_errors_of_the_verdict(site: Site) -> None:
    site.refine("no better", 0.5)
    outcome = site.challenge()
    assert "it does not gain 5 points" in outcome.why
    assert outcome.evidence["interval_points"][1] <= 5
    assert outcome.evidence["confidence"] == pytest.approx(1 - 0.05 - 0.1)


@given(count=st.integers(0, 300), more=st.integers(0, 300), run=st.integers(0, 5))
def test_more_trials_begin_with_the_fewer(count: int, more: int, run: int) -> None:
    long = pair_seeds(run, TASK, "a" * 64, "b" * 64, count + more)
    assert pair_seeds(run, TASK, "a" * 64, "b" * 64, count) == long[:count]
    assert len(set(long)) == count + more


def test_a_pair_is_decided_once_under_a_rule(site: Site) -> None:
    site.refine("poor", 0.5)
    first = site.challenge()
    tried = len(site.tried)
    again = site.challenge()
    assert (again.verdict, again.decided, again.record) == ("kept", False, first.record)
    assert again.evidence == first.evidence
    assert len(site.decisions) == 1
    assert len(site.tried) == tried
    site.rule(minimum_effect=1.0)
    other = site.challenge()
    assert other.decided
    assert other.evidence["earlier_decisions"] == 1
    site.params = site.params.model_copy(update={"device": "cpu", "threads": 1})
    site.rule(batch=3)
    assert not site.challenge().decided, "how often one looks is no other rule"


def test_two_at_once_decide_once(site: Site) -> None:
    site.refine("good", 0.9)
    with ThreadPoolExecutor(4) as pool:
        outcomes = [future.result() for future in [pool.submit(site.challenge) for _ in range(4)]]
    assert {outcome.champion for outcome in outcomes} == {outcomes[0].challenger}
    assert sum(outcome.decided for outcome in outcomes) == len(site.decisions) == 1


def test_the_champion_itself_and_a_refinement_that_changed_nothing_are_no_challengers(site: Site) -> None:
    site.refine("clone", 0.5)
    outcome = site.challenge()
    assert (outcome.verdict, outcome.decided, site.decisions) == ("nothing to do", False, [])
    assert "the same as" in outcome.why
    digest = site.promote("good", 0.9)
    outcome = site.challenge()
    assert (outcome.verdict, outcome.champion, outcome.decided) == ("nothing to do", digest, False)
    assert "is the champion" in outcome.why
    assert len(site.decisions) == 1


def test_a_check_vetoes_before_any_trial_and_a_mended_check_opens_the_way(site: Site) -> None:
    digest = site.refine("good", 0.9)
    site.bound(classifier_precision=0.99)
    outcome = site.challenge()
    assert (outcome.verdict, outcome.champion, site.tried) == ("kept", None, [])
    (rejection,) = site.decisions
    assert isinstance(rejection, Rejection)
    assert rejection.champion is None
    assert "precision 0.950" in rejection.because
    assert [check["check"] for check in rejection.evidence["checks"] if not check["passed"]] == ["classifier_precision"]
    assert not site.challenge().decided
    site.bound(classifier_precision=0.9)
    assert site.challenge().champion == digest


def test_without_the_metrics_behind_a_check_nothing_is_decided(site: Site) -> None:
    site.refine("good", 0.9)
    site.paths.fidelity_metrics.unlink()
    with pytest.raises(DataError, match="cannot be judged") as caught:
        site.challenge()
    assert caught.value.where == str(site.paths.fidelity_metrics)
    assert site.decisions == []


def test_a_policy_made_from_withdrawn_episodes_is_not_promoted(site: Site) -> None:
    digest = site.refine("good", 0.9)
    site.withdraw(digest)
    outcome = site.challenge()
    assert outcome.verdict == "kept"
    assert "withdrawn" in outcome.why
    assert site.tried == []


def test_a_withdrawn_champion_is_no_measure(site: Site) -> None:
    old = site.promote("with her data", 1.0)
    site.withdraw(old)
    digest = site.refine("without her data", 0.8)
    outcome = site.challenge()
    assert (outcome.verdict, outcome.champion) == ("promoted", digest)
    assert outcome.evidence["opponent"]["policy"] == digest_folder(site.paths.bc(TASK))
    newest = site.decisions[-1]
    assert isinstance(newest, Promotion)
    assert newest.replaces == old


def test_who_was_rolled_back_does_not_come_back_by_the_gate(site: Site) -> None:
    first = site.promote("good", 0.8)
    second = site.promote("better", 1.0)
    champions.rollback(site.paths, site.private, TASK, to=None, by="ada", because="it hits the table")
    outcome = site.challenge()
    assert (outcome.verdict, outcome.champion, outcome.decided) == ("nothing to do", first, False)
    assert "it hits the table" in outcome.why
    champions.rollback(site.paths, site.private, TASK, to=second[:6], by="ada", because="it was the table")
    assert site.challenge().champion == second


def test_who_was_passed_over_by_a_rollback_does_not_come_back_either(site: Site) -> None:
    first = site.promote("good", 0.6)
    site.promote("better", 0.8)
    site.promote("best", 1.0)
    champions.rollback(site.paths, site.private, TASK, to=first, by="ada", because="both hit the table")
    site.refine("better", 0.8)
    outcome = site.challenge()
    assert (outcome.verdict, outcome.champion, outcome.decided) == ("nothing to do", first, False)


class Killed(BaseException):
    """As a signal would end the process."""


def kill_after(site: Site, monkeypatch: pytest.MonkeyPatch, trials: int) -> None:
    real = simulated.try_in_turn

    def until(*arguments: Any) -> Any:
        for number, pair in enumerate(real(*arguments)):
            if number == trials:
                raise Killed
            yield pair

    monkeypatch.setattr(simulated, "try_in_turn", until)


@pytest.mark.parametrize("trials", [0, 7, 23, 40])
def test_killed_in_its_trials_it_goes_on_with_those_that_were_kept(
    site: Site, monkeypatch: pytest.MonkeyPatch, trials: int
) -> None:
    site.refine("poor", 0.5)
    with monkeypatch.context() as patch:
        kill_after(site, patch, trials)
        with pytest.raises(Killed):
            site.challenge()
    assert site.decisions == []
    before = list(site.tried)
    site.tried.clear()
    outcome = site.challenge()
    batch = site.params.promotion.batch
    kept = trials // batch * batch
    assert before[:kept] + site.tried == pair_seeds(
        site.params.seed, TASK, outcome.evidence["opponent"]["policy"], outcome.challenger, kept + len(site.tried)
    )
    assert not site.paths.run_state("challenge", TASK).exists()
    unharmed = Site(site.paths, site.private, site.params, site.rates)
    site.paths.decisions.rename(site.paths.decisions.with_name("other"))
    assert unharmed.challenge().evidence == outcome.evidence


def test_trials_of_another_pair_are_not_used(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.refine("poor", 0.5)
    with monkeypatch.context() as patch:
        kill_after(site, patch, 40)
        with pytest.raises(Killed):
            site.challenge()
    site.tried.clear()
    digest = site.refine("far better", 1.0)
    outcome = site.challenge()
    assert (outcome.champion, outcome.evidence["challenger"]["successes"]) == (
        digest,
        outcome.evidence["challenger"]["trials"],
    )
    assert len(site.tried) >= outcome.evidence["challenger"]["trials"]


def test_damaged_kept_trials_are_made_again(site: Site) -> None:
    site.refine("good", 0.9)
    state = site.paths.run_state("challenge", TASK)
    state.mkdir(parents=True)
    (state / "trials.json").write_text("{")
    assert site.challenge().verdict == "promoted"


def test_killed_before_its_record_the_champion_is_the_old_one_and_the_next_challenge_finishes(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = site.refine("good", 0.9)

    def die(*arguments: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Decisions, "add", die)
        with pytest.raises(Killed):
            site.challenge()
    assert site.history.champion(TASK) is None
    assert champions.folder_of(site.paths, TASK, digest).is_dir(), "the bytes come before the record"
    assert site.challenge().champion == digest
    assert len(site.decisions) == 1


def test_a_policy_that_is_made_anew_while_it_is_tried_is_not_decided_about(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.refine("good", 0.9)
    real = simulated.try_in_turn

    def meanwhile(*arguments: Any) -> Any:
        site.refine("another", 0.1)
        yield from real(*arguments)

    monkeypatch.setattr(simulated, "try_in_turn", meanwhile)
    with pytest.raises(DataError, match="made anew"):
        site.challenge()
    assert site.decisions == []


def test_a_champion_that_is_changed_while_the_trials_run_is_not_overruled(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = site.promote("good", 0.6)
    site.promote("better", 0.8)
    site.refine("best", 1.0)
    real = simulated.try_in_turn

    def meanwhile(*arguments: Any) -> Any:
        champions.rollback(site.paths, site.private, TASK, to=first, by="ada", because="it hits the table")
        yield from real(*arguments)

    monkeypatch.setattr(simulated, "try_in_turn", meanwhile)
    with pytest.raises(ConfigError, match="while the trials ran"):
        site.challenge()
    now = site.history.champion(TASK)
    assert now is not None
    assert now.policy == first


def test_a_damaged_champion_is_named_before_any_trial(site: Site, spoil: Callable[[Path], None]) -> None:
    digest = site.promote("good", 0.8)
    file = champions.folder_of(site.paths, TASK, digest) / "model.txt"
    spoil(file)
    site.refine("better", 1.0)
    site.tried.clear()
    with pytest.raises(DataError, match="the file is another one") as caught:
        site.challenge()
    assert caught.value.where == str(file)
    assert "dvc pull" in str(caught.value.remedy)
    assert site.tried == []


def test_an_edited_decision_stops_the_next_one(site: Site) -> None:
    site.promote("good", 0.8)
    (file,) = site.paths.decisions.glob("*.json")
    file.write_text(file.read_text().replace('"gate"', '"eve"'))
    site.refine("better", 1.0)
    with pytest.raises(DataError, match="not what its name says"):
        site.challenge()


def test_the_rule_can_only_name_tasks_that_there_are() -> None:
    values = load_profile("demo").model_dump(mode="json")
    values["promotion"]["robot_tasks"] = ["soccer-v3"]
    with pytest.raises(ConfigError, match="robot_tasks names soccer-v3"):
        parse_params(values, where="test")


def test_state_is_below_run_state_and_is_whole_at_any_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.refine("poor", 0.5)
    kill_after(site, monkeypatch, 20)
    with pytest.raises(Killed):
        site.challenge()
    kept = read_json(site.paths.run_state("challenge", TASK) / "trials.json")
    assert len(kept["opponent"]) == len(kept["challenger"]) == 20
    write_json(site.paths.run_state("challenge", TASK) / "trials.json", {**kept, "opponent": []})
    assert simulated.Tried.read(kept["pair"], site.paths.run_state("challenge", TASK)).challenger == []
