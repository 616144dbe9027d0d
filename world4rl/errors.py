"""The one error type that people see: what is wrong, where, and what to do about it."""

from __future__ import annotations

from pathlib import Path


class World4RLError(Exception):
    """An error whose message a user can act on.

    The command line prints it without a traceback and exits with status 1.

    Args:
        problem: What is wrong, in one sentence.
        where: The file, parameter or episode at fault.
        remedy: What the reader should do next.
    """

    def __init__(self, problem: str, *, where: str | Path | None = None, remedy: str | None = None) -> None:
        self.problem = problem
        self.where = None if where is None else str(where)
        self.remedy = remedy
        lines = [problem]
        if self.where is not None:
            lines.append(f"  where: {self.where}")
        if remedy is not None:
            lines.append(f"  to do: {remedy}")
        super().__init__("\n".join(lines))


class ConfigError(World4RLError):
    """The parameters are wrong: raised before anything runs."""


class DataError(World4RLError):
    """A dataset, store or file cannot be used as it is."""


class MachineError(World4RLError):
    """The machine lacks something: a rendering backend, disk space, a package."""
