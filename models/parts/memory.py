"""What the memory of a device allows."""

import os
from pathlib import Path

import torch

from models.errors import BadImages

USABLE_SHARE = 0.5  # of a machine's or container's memory: it holds other things, too
LIMIT = Path("/sys/fs/cgroup/memory.max")  # of this container (cgroup v2): bytes, or "max"
BYTES_A_RESPONSIBILITY = 24  # probabilities, targets and what a step of theirs makes: six numbers of four bytes


def count_bytes(device: str) -> int:
    """Bytes that a fit may take on a device: what is free on a GPU, half of a machine's or container's memory."""
    if torch.device(device).type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = LIMIT.read_text().strip() if LIMIT.exists() else "max"
    return int(USABLE_SHARE * (installed if limit == "max" else min(installed, int(limit))))


def refuse_too_many(n: int, n_clusters: int, device: str) -> None:
    """Refuse so many inputs and clusters that probabilities of all (N, K) would not fit on the device.

    Raises:
        BadImages: with how many clusters there may be.
    """
    most = count_bytes(device) // (BYTES_A_RESPONSIBILITY * n)
    if n_clusters > most:
        raise BadImages(f"of {n} images at most {most} clusters can be formed by this method in the memory there is")
