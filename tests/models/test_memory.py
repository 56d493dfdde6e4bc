"""Methods that hold a probability for every input and cluster refuse what their device cannot hold."""

import os

import numpy as np
import psutil
import pytest

from models.base import Run
from models.errors import BadImages
from models.parts import memory
from models.parts.memory import count_bytes, refuse_too_many
from tests.models.battery import make


def test_half_of_the_machines_memory_may_be_taken_or_of_the_containers(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "LIMIT", tmp_path / "memory.max")
    assert count_bytes("cpu") == pytest.approx(psutil.virtual_memory().total / 2, rel=0.01)
    for told, expected in (("max\n", psutil.virtual_memory().total / 2), ("1000000\n", 500_000)):
        (tmp_path / "memory.max").write_text(told)
        assert count_bytes("cpu") == pytest.approx(expected, rel=0.01)


def test_more_clusters_than_memory_holds_are_refused_with_how_many_there_may_be():
    n = 100_000
    most = count_bytes("cpu") // (24 * n)

    refuse_too_many(n, most, "cpu")
    with pytest.raises(BadImages, match=f"at most {most} clusters"):
        refuse_too_many(n, most + 1, "cpu")


@pytest.mark.parametrize("method", ["depict", "adaptive-gmm", "dual-autoencoder"])
@pytest.mark.parametrize("profile", ["paper", "fast"])
def test_they_refuse_before_any_work(monkeypatch, method, profile):
    x = np.random.default_rng(0).integers(0, 256, (20, 1, 8, 8), np.uint8)
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 2, "SC_PAGE_SIZE": 24 * 20 * 2}.__getitem__)  # a tiny machine
    states = []

    with pytest.raises(BadImages, match="at most 2 clusters"):
        make(method, x, profile).fit(x, Run(on_step=states.append))

    assert states == []
