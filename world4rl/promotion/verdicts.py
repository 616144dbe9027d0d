"""What a judgement of two policies gives, and what a challenge comes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Verdict = Literal["promoted", "kept", "nothing to do", "waiting"]


@dataclass(frozen=True)
class Judged:
    """Whether a challenger is better, why, and the figures.

    Attributes:
        better: Whether to promote it.
        why: In a sentence.
        evidence: JSON values; holds `opponent` and `challenger`, each {successes, trials}.
    """

    better: bool
    why: str
    evidence: Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What a challenge came to.

    Attributes:
        task: The task.
        verdict: `promoted` or `kept` where there is a decision about the challenger; `nothing to do` where there is
            nothing to decide; `waiting` where trials are missing.
        why: In a sentence.
        challenger: Its digest.
        champion: Digest of who is champion now; None where nobody is.
        decided: Whether the decision is new; an old one is told again.
        evidence: Of the decision; empty where there is none.
        record: The decision's record, relative to the root; None where there is none.
    """

    task: str
    verdict: Verdict
    why: str
    challenger: str
    champion: str | None
    decided: bool
    evidence: Mapping[str, Any]
    record: str | None
