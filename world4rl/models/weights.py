"""Strict reading of weights: exactly the expected tensors, or an error that names what differs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from world4rl.errors import DataError

REMEDY = "restore the folder (`dvc pull` or `dvc checkout`), or train the model again"


def read_weights(file: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on CPU, if they are exactly the expected ones.

    Args:
        file: The file.
        expected: A tensor of the right shape and type for each name.

    Raises:
        DataError: the file is missing or damaged, or a name, a shape or a type differs; all differences are named.
    """
    file = Path(file)
    if not file.is_file():
        raise DataError("the model's folder lacks a file", where=file, remedy=REMEDY)
    try:
        weights = load_file(file)
    except (SafetensorError, OSError) as error:
        raise DataError(f"the file is damaged: {error}", where=file, remedy=REMEDY) from None
    wrong = [f"{name} is missing" for name in sorted(expected.keys() - weights.keys())]
    wrong += [f"{name} does not belong" for name in sorted(weights.keys() - expected.keys())]
    for name in sorted(expected.keys() & weights.keys()):
        have, want = weights[name], expected[name]
        if have.shape != want.shape or have.dtype != want.dtype:
            wrong.append(f"{name} is {have.dtype} {tuple(have.shape)} instead of {want.dtype} {tuple(want.shape)}")
    if wrong:
        raise DataError(f"the weights are not this model's: {'; '.join(wrong)}", where=file, remedy=REMEDY)
    return weights
