"""What a trainer needs to continue after it was killed: one file, without pickle, never half-written.

A state is a single safetensors file whose header carries the step, the caller's JSON and the random generators'
states. It takes its place by one rename, so at every moment either the previous state or the new one is there, whole.
After `load_state` and `State.restore_random` a trainer on CPU computes the same bytes as if it had never stopped.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from world4rl.errors import DataError
from world4rl.files import replacing

STATE_FILE = "state.safetensors"
FORMAT = 1
Generators = Mapping[str, np.random.Generator | torch.Generator]


@dataclass(frozen=True)
class State:
    """A trainer's state as it was saved.

    Attributes:
        step: Steps (or iterations) completed.
        tensors: Groups of named tensors on CPU, e.g. `{"model": ..., "ema": ..., "optimizer": ...}`.
        meta: The caller's JSON value.
    """

    step: int
    tensors: dict[str, dict[str, torch.Tensor]]
    meta: Any
    _random: dict[str, Any] = field(repr=False)
    _random_tensors: dict[str, torch.Tensor] = field(repr=False)

    def restore_random(self, generators: Generators | None = None) -> None:
        """Sets torch's global generators, and the given ones, to what they were when the state was saved.

        Args:
            generators: The generators that were given to `save_state`, by the same names.

        Raises:
            DataError: the state holds other generators than the given ones.
        """
        generators = generators or {}
        saved = self._random["generators"]
        if {name: _kind(generator) for name, generator in generators.items()} != saved:
            raise DataError(
                f"the saved random generators are {saved}, the trainer has "
                f"{ {name: _kind(generator) for name, generator in generators.items()} }",
                remedy="delete the saved state and start again: it was written by another version of the trainer",
            )
        for name, generator in generators.items():
            if isinstance(generator, np.random.Generator):
                generator.bit_generator.state = _from_json(self._random["numpy"][name])
            else:
                generator.set_state(self._random_tensors[f"generator/{name}"])
        torch.set_rng_state(self._random_tensors["torch"])
        if torch.cuda.is_available():
            devices = sorted(name for name in self._random_tensors if name.startswith("cuda/"))
            if len(devices) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all([self._random_tensors[name] for name in devices])


def save_state(
    folder: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, torch.Tensor]],
    meta: Any = None,
    *,
    generators: Generators | None = None,
    fingerprint: Any = None,
) -> None:
    """Saves a trainer's state; the previous one stays until this one is whole on the disk.

    Args:
        folder: The trainer's own folder (`Paths.run_state`); nothing else may write there.
        step: Steps completed.
        tensors: Groups of named tensors. Group names must not contain `/`.
        meta: Any JSON value.
        generators: numpy and torch generators that the trainer draws from, beside torch's global one, which is
            always saved.
        fingerprint: A JSON value that says what is being trained (parameters, digests of the inputs): see `load_state`.

    Raises:
        MachineError: the disk is full; the previous state is still there.
    """
    folder = Path(folder)
    flat: dict[str, torch.Tensor] = {}
    for group, members in tensors.items():
        if "/" in group:
            raise ValueError(f"group name {group!r} contains a slash")
        for name, tensor in members.items():
            flat[f"state/{group}/{name}"] = tensor
    random, random_tensors = _capture_random(generators or {})
    flat |= {f"random/{name}": tensor for name, tensor in random_tensors.items()}
    header = {
        "format": FORMAT,
        "step": step,
        "groups": list(tensors),
        "meta": meta,
        "random": random,
        "fingerprint": fingerprint,
    }
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(f".{STATE_FILE}.*.partial"):  # of a process that was killed while it saved
        shutil.rmtree(leftover, ignore_errors=True)
    with replacing(folder / STATE_FILE) as fresh:
        save_file(_separate(flat), fresh, metadata={"world4rl": json.dumps(header, allow_nan=False)})
        with open(fresh, "rb") as stream:
            os.fsync(stream.fileno())  # the rename must not reach the disk before the content


def load_state(folder: Path, *, fingerprint: Any = None) -> State | None:
    """The saved state, or None when there is none that fits.

    Args:
        folder: What was given to `save_state`.
        fingerprint: What is being trained now. A state saved with another fingerprint belongs to other parameters or
            other data: it is left alone and None is returned, so the trainer starts from the beginning.

    Raises:
        DataError: the file is damaged.
    """
    path = Path(folder) / STATE_FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt", device="cpu") as stream:
            header = json.loads(stream.metadata()["world4rl"])
            if header["format"] != FORMAT or header["fingerprint"] != json.loads(json.dumps(fingerprint)):
                return None
            names = stream.keys()
            flat = {name: stream.get_tensor(name) for name in names}
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"the saved training state cannot be read: {error}",
            where=path,
            remedy="delete this file; the same command then trains from the beginning",
        ) from error
    tensors: dict[str, dict[str, torch.Tensor]] = {group: {} for group in header["groups"]}
    random_tensors: dict[str, torch.Tensor] = {}
    for key, tensor in flat.items():
        kind, _, name = key.partition("/")
        if kind == "random":
            random_tensors[name] = tensor
        else:
            group, _, member = name.partition("/")
            tensors[group][member] = tensor
    return State(header["step"], tensors, header["meta"], header["random"], random_tensors)


def clear_state(folder: Path) -> None:
    """Removes a trainer's saved state: what it was for is finished."""
    shutil.rmtree(folder, ignore_errors=True)


def capture_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], Any]:
    """An optimiser's state as named tensors for `save_state(tensors=...)` and a JSON value for its `meta`.

    Raises:
        TypeError: the optimiser keeps something other than tensors for a parameter.
    """
    state = optimizer.state_dict()
    tensors: dict[str, torch.Tensor] = {}
    for index, values in state["state"].items():
        for name, value in values.items():
            if not isinstance(value, torch.Tensor):
                raise TypeError(f"{type(optimizer).__name__} keeps {name} as {type(value).__name__}, not as a tensor")
            tensors[f"{index}/{name}"] = value
    return tensors, state["param_groups"]


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor], groups: Any) -> None:
    """Puts back what `capture_optimizer` took."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition("/")
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _kind(generator: np.random.Generator | torch.Generator) -> str:
    return type(generator.bit_generator).__name__ if isinstance(generator, np.random.Generator) else "torch"


def _capture_random(generators: Generators) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    tensors = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors |= {f"cuda/{i:03d}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    numpy_states: dict[str, Any] = {}
    for name, generator in generators.items():
        if isinstance(generator, np.random.Generator):
            numpy_states[name] = _to_json(generator.bit_generator.state)
        else:
            tensors[f"generator/{name}"] = generator.get_state()
    kinds = {name: _kind(generator) for name, generator in generators.items()}
    return {"generators": kinds, "numpy": numpy_states}, tensors


def _to_json(value: Any) -> Any:
    """A bit generator's state: nested dicts of integers, strings and (Philox, MT19937) integer arrays."""
    if isinstance(value, dict):
        return {name: _to_json(member) for name, member in value.items()}
    if isinstance(value, np.ndarray):
        return {"dtype": value.dtype.str, "values": value.tolist()}
    return value.item() if isinstance(value, np.generic) else value


def _from_json(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {"dtype", "values"}:
            return np.array(value["values"], dtype=value["dtype"])
        return {name: _from_json(member) for name, member in value.items()}
    return value


def _separate(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same values, on CPU, contiguous, no two in the same memory (safetensors refuses shared memory)."""
    seen: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().to("cpu").contiguous()
        address = plain.untyped_storage().data_ptr()
        if address in seen or plain.untyped_storage().nbytes() != plain.nbytes:
            plain = plain.clone()
        seen.add(plain.untyped_storage().data_ptr())
        result[name] = plain
    return result
