"""Layouts in processes: same results, ended at once when nobody wants them, gone with their parent."""

import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from models.errors import Cancelled
from models.start import umap_layout
from models.start.neighbours import search
from models.start.processes import run_in_process
from tests.models.start.makers import BLOBS
from tests.servers import wait_until


def nothing() -> None:
    pass


def layout_task(seed: int) -> tuple:
    near = search(BLOBS, 10, torch.Generator(), lambda: None)
    return BLOBS.numpy(), near.index.numpy(), near.distance.numpy(), 3, seed


def test_a_process_gives_the_same_layout_as_this_one_and_another_seed_another():
    first, other = (run_in_process(umap_layout.embed, *layout_task(seed), on_beat=nothing) for seed in (0, 1))

    assert first.shape == (len(BLOBS), 3)
    np.testing.assert_array_equal(first, umap_layout.embed(*layout_task(0)))
    assert not np.array_equal(first, other)


def test_what_a_step_raises_is_raised_here_and_a_process_that_dies_is_an_error():
    with pytest.raises(ZeroDivisionError):
        run_in_process(divmod, 1, 0, on_beat=nothing)
    with pytest.raises(RuntimeError, match="died"):
        run_in_process(os._exit, 3, on_beat=nothing)


COMPILED = """
import sys, numpy as np
from models.start import umap_layout
from numba.core.dispatcher import Dispatcher
task = np.load(sys.argv[1])
umap_layout.embed(task["x"], task["index"], task["distance"], 3, 1)
import umap.layouts, umap.umap_
steps = [one for part in (umap.layouts, umap.umap_) for one in vars(part).values() if isinstance(one, Dispatcher)]
missed = {one.__name__ for one in steps if one.stats.cache_misses}
print(len(missed - {"tau_rand_int"}))  # compiled by the library's import
"""


def test_another_process_compiles_nothing(tmp_path):
    x, index, distance, _, _ = layout_task(0)
    umap_layout.embed(x, index, distance, 3, 1)
    np.savez(tmp_path / "task.npz", x=x, index=index, distance=distance)

    command = [sys.executable, "-c", COMPILED, str(tmp_path / "task.npz")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)

    assert done.stdout.strip() == "0"


def test_a_cancelled_step_ends_its_process_at_once():
    before = set(psutil.Process().children())
    calls = itertools.count()

    def stop() -> None:
        if next(calls) == 2:
            raise Cancelled("enough")

    started = time.monotonic()
    with pytest.raises(Cancelled):
        run_in_process(time.sleep, 60, on_beat=stop)

    assert time.monotonic() - started < 30
    assert not [child for child in set(psutil.Process().children()) - before if "spawn_main" in str(child.cmdline())]


def test_a_process_ends_with_a_parent_that_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        "import time\nfrom models.start.processes import run_in_process\n"
        "if __name__ == '__main__':\n    run_in_process(time.sleep, 60, on_beat=lambda: print('beat', flush=True))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, env=environment)
    parent.stdout.readline()
    (child,) = [one for one in psutil.Process(parent.pid).children() if "spawn_main" in str(one.cmdline())]

    parent.kill()
    parent.wait()
    parent.stdout.close()

    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 10, "the child's end")
