"""Decisions of people and gates: what was promoted, kept back, rolled back, deployed and withdrawn; signed, for good.

They form one chain (`provenance.records`). Beside each record lies its signature, `NUMBER-DIGEST.sig`, by a key of
`provenance.keys`: it is written first, so that no decision ever stands there without one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from world4rl.errors import DataError
from world4rl.files import locked, write_text
from world4rl.paths import Paths
from world4rl.provenance import keys
from world4rl.provenance.document import Digest
from world4rl.provenance.records import Chain, Predicate, Record, Subject


class Decision(Predicate):
    """What all decisions say.

    Attributes:
        at: ISO 8601, UTC.
        by: Who answers for it; `gate` where the platform decided by its rules.
        because: Why, in a sentence.
    """

    at: str
    by: str
    because: str


class Promotion(Decision):
    """A policy becomes the champion of its task.

    Attributes:
        task: The task.
        policy: `digest_folder` of the policy.
        replaces: The champion before it; None where there was none.
        evidence: The figures of the comparison.
    """

    predicate_type: ClassVar[str] = "https://world4rl.org/promotion/v1"
    task: str
    policy: Digest
    replaces: Digest | None
    evidence: dict[str, Any]


class Rejection(Decision):
    """A challenger was not promoted.

    Attributes:
        task: The task.
        policy: The challenger.
        champion: Whom it did not beat; None where a check kept it back before there was any.
        evidence: The figures of the comparison, or the checks that vetoed.
    """

    predicate_type: ClassVar[str] = "https://world4rl.org/rejection/v1"
    task: str
    policy: Digest
    champion: Digest | None
    evidence: dict[str, Any]


class Rollback(Decision):
    """An earlier champion is the champion again.

    Attributes:
        task: The task.
        policy: Who is champion now.
        replaces: Who was.
    """

    predicate_type: ClassVar[str] = "https://world4rl.org/rollback/v1"
    task: str
    policy: Digest
    replaces: Digest


class Deployment(Decision):
    """A robot runs a policy from now on.

    Attributes:
        robot: Its name.
        task: The task.
        policy: What it runs; None: it no longer runs any for this task.
    """

    predicate_type: ClassVar[str] = "https://world4rl.org/deployment/v1"
    robot: str
    task: str
    policy: Digest | None


class Withdrawal(Decision):
    """Episodes are withdrawn: nothing may be made from them any more.

    Attributes:
        episodes: Their digests; what stays of them here is this tombstone.
        datasets: Ids of the accepted datasets that held them.
        affected: Artefacts that were made from them, as (path, digest).
        deployments: Robots that ran such a policy then, as {robot, task, policy}.
    """

    predicate_type: ClassVar[str] = "https://world4rl.org/withdrawal/v1"
    episodes: tuple[Digest, ...]
    datasets: tuple[str, ...]
    affected: tuple[Subject, ...]
    deployments: tuple[dict[str, str], ...]


KINDS: tuple[type[Decision], ...] = (Promotion, Rejection, Rollback, Deployment, Withdrawal)


class Decisions:
    """The decisions of a repository, oldest first.

    Args:
        paths: Where they lie, and the keys that are trusted.
    """

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._chain: Chain[Decision] = Chain(paths.decisions, KINDS)

    def read(self) -> list[Record[Decision]]:
        """Every decision; checks the chain and all signatures.

        Raises:
            DataError: the chain is broken, or a trusted key did not sign a record; names the file.
        """
        records, faults = self.examine()
        if faults:
            raise faults[0]
        return records

    def examine(self) -> tuple[list[Record[Decision]], list[DataError]]:
        """What holds of the decisions, and what does not, as `Chain.examine` has it; nor does one without signature."""
        records, faults = self._chain.examine()
        unsigned: dict[int, DataError] = {}
        for number, (path, record) in enumerate(zip(self._chain.files(), records, strict=False)):
            try:
                self._check_signature(path, record)
            except DataError as fault:
                unsigned[number] = fault
        return records[: min(unsigned, default=len(records))], [*unsigned.values(), *faults]

    def _check_signature(self, path: Path, record: Record[Decision]) -> None:
        file = path.with_suffix(".sig")
        if not file.exists():
            raise DataError(f"the signature of {path.name} is missing", where=file, remedy="restore the file")
        try:
            text = file.read_bytes().decode("ascii")
            signature = bytes.fromhex(text)
        except ValueError:
            signature = b""
        if not signature or text != _signature_text(signature):
            raise DataError("this is no signature", where=file, remedy="restore the file")
        try:
            keys.verify(record.text().encode(), signature, self._paths.trusted_keys)
        except DataError as error:
            where = error.where if error.where and error.where.endswith(".pem") else file
            raise DataError(error.problem, where=where, remedy=error.remedy) from error

    def add(self, subjects: Sequence[Subject], decision: Decision, private: Path) -> Record[Decision]:
        """Signs a decision and adds it at the end.

        Raises:
            ConfigError: there is no key to sign with.
        """
        with locked(self._paths.decisions.with_name("decisions.signing.lock")):
            record = self._chain.next(subjects, decision)
            signature = keys.sign(record.text().encode(), private)
            write_text(self._chain.path_of(record).with_suffix(".sig"), _signature_text(signature))
            return self._chain.append(subjects, decision)


def _signature_text(signature: bytes) -> str:
    return signature.hex() + "\n"
