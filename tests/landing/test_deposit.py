"""Where a dataset cannot be landed, one error says why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from world4rl.errors import ConfigError, MachineError
from world4rl.landing.deposit import land
from world4rl.landing.inbox import Inbox


def test_at_an_address_of_an_unknown_protocol() -> None:
    with pytest.raises(ConfigError, match="Protocol not known: nowhere") as caught:
        Inbox("nowhere://lab/landing")
    assert caught.value.where == "nowhere://lab/landing"


def test_where_nothing_can_be_written(record: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "landing").write_text("a file")
    with pytest.raises(MachineError, match="cannot be written") as caught:
        land(record(tmp_path / "mine"), Inbox(str(tmp_path / "landing")), name=None, said={})
    assert caught.value.where == f"{tmp_path}/landing/mine"
