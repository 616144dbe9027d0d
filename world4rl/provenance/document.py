"""What the JSON documents of the provenance are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Frozen(BaseModel):
    """A part of a document: read only, and nothing in it that is not declared."""

    model_config = ConfigDict(extra="forbid", frozen=True)
