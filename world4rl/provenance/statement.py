"""Who recorded a dataset, with which robot, for which use: what an auditor asks about and no file format keeps.

It lies in the dataset's side file `meta/world4rl.json`, beside the list of episodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from world4rl.errors import DataError
from world4rl.paths import Role


class Statement(BaseModel):
    """What is said about all episodes of a dataset; None where nothing is said.

    Attributes:
        source: The dataset's role in the lineage: demonstrations of an expert, rollouts of a policy, random motion,
            or trials that evaluate a policy and that nothing trains on.
        task: The task of every episode, whatever the dataset calls it.
        operator: Who recorded it: a name or a pseudonym, the same in every dataset of that person.
        robot_id: Which robot moved.
        session: What the recordings of one sitting have in common.
        licence: An SPDX identifier, or where the terms stand.
        consent: To which use the operator agreed, or the reference of the form.
        policy: Digest of the policy that acted, for rollouts and trials.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, str_strip_whitespace=True)
    source: Role = "expert"
    task: str | None = Field(default=None, min_length=1, max_length=200)
    operator: str | None = Field(default=None, min_length=1, max_length=200)
    robot_id: str | None = Field(default=None, min_length=1, max_length=200)
    session: str | None = Field(default=None, min_length=1, max_length=200)
    licence: str | None = Field(default=None, min_length=1, max_length=200)
    consent: str | None = Field(default=None, min_length=1, max_length=2000)
    policy: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")


def read_statement(side: Mapping[str, Any], where: str) -> Statement:
    """The statement in a dataset's side file; the defaults where there is none.

    Raises:
        DataError: a value cannot be used.
    """
    try:
        return Statement.model_validate(side)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise DataError(f"the statement cannot be used: {wrong}", where=where, remedy="correct the file") from None
