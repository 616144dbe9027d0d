"""A trainer as ours are built, small enough to be killed dozens of times. Run as a program by test_checkpoint.py.

It draws from every kind of generator (numpy, torch's own and torch's global one through dropout), so that a random
state which is not restored exactly changes the final bytes.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from world4rl.files import replacing
from world4rl.training import checkpoint
from world4rl.training.checkpoint import capture_optimizer, clear_state, load_state, restore_optimizer, save_state

STEPS = 60
SAVE_EVERY = 7


def train(folder: Path, out: Path) -> None:
    """Trains, going on from a saved state; writes the final weights and generators' next draws to `out`."""
    torch.manual_seed(0)
    numpy_generator = np.random.default_rng(1)
    torch_generator = torch.Generator().manual_seed(2)
    generators = {"batches": numpy_generator, "noise": torch_generator}
    model = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.5), nn.Linear(16, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    begin, losses = 0, []
    state = load_state(folder, fingerprint={"lr": 1e-2})
    if state is not None:
        begin, losses = state.step, state.meta["losses"]
        model.load_state_dict(state.tensors["model"])
        restore_optimizer(optimizer, state.tensors["optimizer"], state.meta["groups"])
        state.restore_random(generators)
    for step in range(begin, STEPS):
        batch = torch.from_numpy(numpy_generator.normal(size=(8, 4)).astype(np.float32))
        target = batch.sum(1, keepdim=True) + torch.randn(8, 1, generator=torch_generator)
        loss = ((model(batch) - target) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % SAVE_EVERY == 0:
            moments, groups = capture_optimizer(optimizer)
            save_state(
                folder,
                step + 1,
                {"model": model.state_dict(), "optimizer": moments},
                {"losses": losses, "groups": groups},
                generators=generators,
                fingerprint={"lr": 1e-2},
            )
    with replacing(out) as fresh:
        weights = b"".join(p.detach().numpy().tobytes() for p in model.parameters())
        draws = np.array([numpy_generator.random(), torch.rand(1).item(), *losses]).tobytes()
        fresh.write_bytes(weights + draws)
    clear_state(folder)


def _fork(work) -> int:
    """Runs `work` in a forked process: torch is imported once for dozens of trainers."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return pid


def kill_at_random(folder: Path, out: Path, kills: int) -> None:
    """Kills trainers at random moments, then lets one finish. Prints how many really died at work."""
    delays = random.Random(0)
    died = 0
    began = time.monotonic()
    whole = _fork(lambda: train(folder.with_name("uninterrupted"), out.with_name("uninterrupted")))
    assert os.waitpid(whole, 0)[1] == 0
    longest = time.monotonic() - began
    for _ in range(kills):
        pid = _fork(lambda: train(folder, out))
        time.sleep(delays.uniform(0, longest / 2))
        os.kill(pid, signal.SIGKILL)
        died += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
        if out.exists():
            break
    assert os.waitpid(_fork(lambda: train(folder, out)), 0)[1] == 0
    print(died)


def kill_inside_a_save(folder: Path, out: Path, point: str) -> int:
    """Kills a trainer at its third save, at a named moment of it; returns the step of the state it left."""
    saves = 0
    moment, _, name = point.partition(" ")

    def doomed():
        module = {"save_file": checkpoint, "fsync": os, "replace": Path}[name]
        original = getattr(module, name)

        def deadly(*arguments, **keywords):
            nonlocal saves
            saves += name == "fsync" or any(checkpoint.STATE_FILE in str(a) for a in arguments)
            if saves == 3 and moment == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(*arguments, **keywords)
            if saves == 3 and moment == "after":
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(module, name, deadly)
        train(folder, out)

    status = os.waitpid(_fork(doomed), 0)[1]
    assert os.WIFSIGNALED(status)
    assert not out.exists()
    state = load_state(folder, fingerprint={"lr": 1e-2})
    assert state is not None
    return state.step


if __name__ == "__main__":
    torch.set_num_threads(1)
    mode, work = sys.argv[1], Path(sys.argv[2])
    if mode == "random":
        kill_at_random(work / "state", work / "killed", int(sys.argv[3]))
    else:
        steps = {}
        for number, point in enumerate(sys.argv[3:]):
            folder, out = work / f"state{number}", work / f"out{number}"
            steps[point] = kill_inside_a_save(folder, out, point)
            assert os.waitpid(_fork(lambda f=folder, o=out: train(f, o)), 0)[1] == 0
        train(work / "state", work / "uninterrupted")
        print(json.dumps(steps))
