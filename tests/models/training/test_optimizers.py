"""Optimizers are torch's to the bit, without what torch imports for its compiler."""

import copy
import subprocess
import sys

import pytest
import torch

from models.training.optimizers import adam, sgd

MADE = {
    "adam": (lambda p: adam(p, 0.1, "cpu", betas=(0.5, 0.9)), lambda p: torch.optim.Adam(p, 0.1, betas=(0.5, 0.9))),
    "sgd": (
        lambda p: sgd(p, 0.1, "cpu", momentum=0.9, weight_decay=1e-2),
        lambda p: torch.optim.SGD(p, 0.1, 0.9, weight_decay=1e-2),
    ),
}


@pytest.mark.parametrize("name", MADE)
def test_steps_and_saved_states_are_torchs(name):
    ours, theirs = (torch.nn.Parameter(torch.linspace(-1, 1, 6)) for _ in range(2))
    optimizers = [make([p]) for make, p in zip(MADE[name], (ours, theirs), strict=True)]
    for step in range(6):
        for p, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            (p.square() * torch.arange(6.0)).sum().backward()
            optimizer.step()
        assert torch.equal(ours, theirs)
        if step == 2:
            optimizers = [optimizers[0], MADE[name][1]([theirs])]
            optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))


FIRST_STEPS = """
import sys
from models.base import Run
from models.errors import Cancelled
from tests.models.battery import CASES, images, make

def stop(state):
    if state.phase != "graph" and state.step:
        raise Cancelled("enough")

x, _ = images()
for method, profile in CASES:
    if profile == "fast":
        try:
            make(method, x, profile).fit(x, Run(on_step=stop))
        except Cancelled:
            print(method)
large = {"torch._dynamo", "sympy", "sklearn", "scipy", "numba", "umap", "pynndescent"}
print(sorted(large & sys.modules.keys()))
"""


def test_no_training_waits_for_a_large_import():
    """They take seconds, and a training of a few hundred images not much longer."""
    done = subprocess.run([sys.executable, "-c", FIRST_STEPS], capture_output=True, text=True, check=True)

    *methods, imported = done.stdout.splitlines()
    assert len(methods) == 6, "came to their first step"
    assert imported == "[]"
