"""`world4rl challenge`: the refined policy of a task against its champion, and the signed record of what came of it.

Everything that a challenge leaves behind on its way can be left: trials that were made are kept and used again, the
champion's bytes mean nothing without the record, and the record is written last, whole, once.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from world4rl import machine, progress
from world4rl.config import Params
from world4rl.envs.tasks import is_simulated
from world4rl.errors import ConfigError, DataError
from world4rl.evaluation.gates import GATES, judge
from world4rl.files import locked, write_json
from world4rl.paths import Paths
from world4rl.promotion.champions import champion_folder, keep, subjects_of
from world4rl.promotion.history import (
    DIGITS,
    Clock,
    History,
    deciding,
    evidence_line,
    read_history,
    stamp,
    utc_now,
)
from world4rl.promotion.verdicts import Judged, Outcome, Verdict
from world4rl.provenance.decisions import Decision, Decisions, Promotion, Rejection
from world4rl.provenance.digests import digest_folder, digest_json
from world4rl.provenance.records import Record

STAGE = "challenge"
GATE = "gate"  # who answers for a decision by the rule
VETO_STEPS = ("success_classifier", "fidelity")  # whose checks may keep a challenger back


def challenge(params: Params, paths: Paths, task: str, private: Path, *, clock: Clock = utc_now) -> Outcome:
    """Has the refined policy of a task challenge its champion; decides once about each pair under each rule.

    Without a champion the challenger has to beat the policy that it was refined from.

    Args:
        params: Rule, bounds of the checks, simulator.
        paths: The repository.
        task: One of the parameters' tasks.
        private: The key to sign with; its public half is trusted here.
        clock: Tells the time.

    Raises:
        DataError: a policy or the metrics behind a check are missing or damaged, or the decisions were tampered with.
    """
    state = paths.run_state(STAGE, task)
    with locked(state.with_suffix(".lock")):
        outcome = _Challenge(params, paths, task, private, clock).outcome()
        shutil.rmtree(state, ignore_errors=True)
        write_json(paths.challenge_report(task), asdict(outcome))
    progress.log(f"{task}: {outcome.verdict}: {outcome.why}")
    if "effect_points" in outcome.evidence:
        progress.log(evidence_line(outcome.evidence))
    return outcome


class _Challenge:
    """One challenge: who, against whom, under which rule."""

    def __init__(self, params: Params, paths: Paths, task: str, private: Path, clock: Clock) -> None:
        self._params = params
        self._paths = paths
        self._task = task
        self._private = private
        self._clock = clock
        self._challenger = digest_folder(paths.refined(task))
        self._on_robot = task in params.promotion.robot_tasks or not is_simulated(task)

    def outcome(self) -> Outcome:
        history = read_history(self._paths)
        champion = history.champion(self._task)
        if champion is not None and champion.policy == self._challenger:
            return self._nothing(history, f"the challenger {self._challenger[:DIGITS]} is the champion")
        deposed = history.deposed(self._task, self._challenger)
        if deposed is not None:
            return self._nothing(
                history,
                f"{deposed.by} rolled back from this policy at {deposed.at} ({deposed.because}); only "
                f"`world4rl rollback --to {self._challenger[:DIGITS]}` makes it champion again",
            )
        opponent, folder, what = self._opponent(history)
        if opponent == self._challenger:
            return self._nothing(history, f"the challenger is the same as {what}")
        checks = self._checks(history)
        rule = self._rule(checks)
        for record in reversed(history.judged(self._task, self._challenger, opponent)):
            if record.predicate.evidence["rule"] == rule:
                return self._told_again(history, record)
        vetoes = [check for check in checks if not check["passed"]]
        judged = Judged(False, "; ".join(check["reason"] for check in vetoes), {}) if vetoes else None
        if judged is None:
            found = self._judge(opponent, folder)
            if isinstance(found, str):
                return self._outcome(history, "waiting", found)
            judged = found
        evidence = {
            **judged.evidence,
            "opponent": {**judged.evidence.get("opponent", {}), "policy": opponent, "is": what},
            "checks": checks,
            "rule": rule,
            "earlier_decisions": len(history.judged(self._task, self._challenger, opponent)),
        }
        return self._decide(opponent, champion.policy if champion else None, judged, evidence)

    def _opponent(self, history: History) -> tuple[str, Path, str]:
        """Whom to beat: digest, folder, and who that is. A champion made from withdrawn episodes is no measure."""
        champion = history.champion(self._task)
        parent = self._paths.bc(self._task)
        if champion is None:
            return digest_folder(parent), parent, "the policy that it was refined from: there is no champion"
        if history.withdrawal(champion.policy) is not None:
            return digest_folder(parent), parent, "the policy that it was refined from: the champion is withdrawn"
        folder = champion_folder(self._paths, history, self._task, champion.policy)
        return champion.policy, folder, "the champion"

    def _checks(self, history: History) -> list[dict[str, Any]]:
        """What may veto: the checks of world model and classifier, and consent."""
        verdicts = {
            gate.name: judge(gate, self._paths, self._params.gates, self._task)
            for gate in GATES
            if gate.step in VETO_STEPS
        }
        checks = [{"check": name, "passed": each.passed, "reason": each.reason} for name, each in verdicts.items()]
        withdrawal = history.withdrawal(self._challenger)
        reason = "no episode that it was made from is withdrawn"
        if withdrawal is not None:
            reason = f"it was made from episodes that were withdrawn at {withdrawal.at} by {withdrawal.by}"
        return [*checks, {"check": "consent", "passed": withdrawal is None, "reason": reason}]

    def _rule(self, checks: list[dict[str, Any]]) -> dict[str, Any]:
        """All that the decision hangs on beside the two policies; another rule is another question."""
        rule = self._params.promotion
        common: dict[str, Any] = {
            "alpha": rule.alpha,
            "minimum_effect_points": rule.minimum_effect,
            "vetoed_by": [check["check"] for check in checks if not check["passed"]],
        }
        if self._on_robot:
            return common | {"trials_on": "robot", "trials_each": rule.robot_trials}
        simulation = self._params.simulation.model_dump(mode="json", exclude={"workers"})
        return common | {
            "trials_on": "simulator",
            "beta": rule.beta,
            "largest_trials": rule.trials,
            "seed": self._params.seed,
            "simulation": digest_json(simulation),
        }

    def _judge(self, opponent: str, folder: Path) -> Judged | str:
        """The trials. What they need takes seconds to import, and mostly nothing is left to try."""
        digests = {"opponent": opponent, "challenger": self._challenger}
        if self._on_robot:
            from world4rl.promotion.landed import judge_on_robot

            return judge_on_robot(self._params.promotion, self._paths, self._task, digests)
        machine.use_rendering_backend()  # before anything imports MuJoCo
        from world4rl.promotion.simulated import judge_in_simulator

        folders = {"opponent": folder, "challenger": self._paths.refined(self._task)}
        return judge_in_simulator(self._params, self._task, digests, folders, self._paths.run_state(STAGE, self._task))

    def _decide(self, opponent: str, champion: str | None, judged: Judged, evidence: Mapping[str, Any]) -> Outcome:
        self._require_unchanged(opponent, champion)
        with deciding(self._paths) as history:
            now = history.champion(self._task)
            if (now.policy if now else None) != champion:
                raise ConfigError(
                    "the champion was changed while the trials ran",
                    where=self._task,
                    remedy="run the same command again: it challenges the one that is champion now",
                )
            common: dict[str, Any] = {
                "at": stamp(self._clock()),
                "by": GATE,
                "because": judged.why,
                "task": self._task,
                "policy": self._challenger,
                "evidence": dict(evidence),
            }
            folder = self._paths.refined(self._task)
            said: Decision
            if judged.better:
                folder = keep(folder, self._challenger, self._paths, self._task)
                said = Promotion(**common, replaces=champion)
            else:
                said = Rejection(**common, champion=opponent if "verdict" in evidence else champion)
            record = Decisions(self._paths).add(subjects_of(self._paths, folder), said, self._private)
            verdict: Verdict = "promoted" if judged.better else "kept"
            return self._outcome(History([*history.records, record]), verdict, judged.why, decided=True, record=record)

    def _require_unchanged(self, opponent: str, champion: str | None) -> None:
        """A stage that ran beside the trials may have made either policy anew: then they were not about these two."""
        tried = {self._paths.refined(self._task): self._challenger}
        if opponent != champion:
            tried[self._paths.bc(self._task)] = opponent
        for folder, digest in tried.items():
            if digest_folder(folder) != digest:
                raise DataError(
                    "the policy was made anew while the trials ran",
                    where=folder,
                    remedy="run the same command again: it tries the policy that is there now",
                )

    def _told_again(self, history: History, record: Record[Any]) -> Outcome:
        said: Promotion | Rejection = record.predicate
        if isinstance(said, Promotion):  # it is not the champion, or nobody would have asked
            why = f"it was promoted at {said.at}, and somebody has gone back behind it since"
            return self._outcome(history, "nothing to do", why, record=record)
        return self._outcome(history, "kept", f"{said.because} (decided at {said.at})", record=record)

    def _nothing(self, history: History, why: str) -> Outcome:
        record = history.promotion(self._task, self._challenger)
        return self._outcome(history, "nothing to do", why, record=record)

    def _outcome(
        self,
        history: History,
        verdict: Verdict,
        why: str,
        *,
        decided: bool = False,
        record: Record[Any] | None = None,
    ) -> Outcome:
        champion = history.champion(self._task)
        path = None
        evidence: Mapping[str, Any] = {}
        if record is not None:
            number = next(n for n, one in enumerate(history.records, start=1) if one is record)
            path = self._paths.decisions / f"{number:08}-{record.digest[:DIGITS]}.json"
            evidence = getattr(record.predicate, "evidence", {})
        return Outcome(
            task=self._task,
            verdict=verdict,
            why=why,
            challenger=self._challenger,
            champion=champion.policy if champion else None,
            decided=decided,
            evidence=evidence,
            record=None if path is None else path.relative_to(self._paths.root).as_posix(),
        )
