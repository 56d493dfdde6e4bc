"""The device of a benchmark: which one is taken, what it is called, and how to wait until it is idle."""

import os
from typing import Any

import torch


def choose_device(wanted: str | None) -> str:
    """The wanted device, or `cuda` where there is one, else `cpu`."""
    return wanted or ("cuda" if torch.cuda.is_available() else "cpu")


def describe(device: str) -> dict[str, Any]:
    """Name of the card, version of torch, and CPU cores that this process may use."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"device": device, "name": name, "torch": torch.__version__, "cpu_cores": n_cores}


def wait_for(device: str) -> None:
    """Block until a GPU has done all that it was given; a CPU is never behind."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
