"""The benchmark of a device, on a machine that has the library's own needs and no other package."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.stages import CASES
from tests.factories import blobs_of_pixels

ROOT = Path(__file__).parents[2]
NEEDED = {"torch", "numpy", "scipy", "sklearn", "joblib", "threadpoolctl", "PIL", "safetensors", "annotated_types"}
OF_TORCH = {"torchgen", "functorch", "triton", "nvidia", "sympy", "mpmath", "networkx", "jinja2", "markupsafe"}
OF_TORCH |= {"filelock", "fsspec", "typing_extensions", "setuptools", "pkg_resources", "_distutils_hack"}
OF_SKLEARN = {"narwhals", "cloudpickle"}  # cloudpickle is what joblib needs
# Python runs this as it starts, in child processes too.
ONLY_THESE = """
import sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder

ALLOWED = {allowed!r} | sys.stdlib_module_names

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        top = name.partition(".")[0]
        is_allowed = top in ALLOWED or top.startswith("_sysconfigdata")
        return super().find_spec(name, path, target) if is_allowed else None

sys.meta_path[:] = [BuiltinImporter, FrozenImporter, Finder]
"""


def test_it_tells_everything_line_by_line_with_no_package_but_those_the_library_needs(tmp_path):
    x, y = blobs_of_pixels(60, side=28)
    np.savez(tmp_path / "mnist.npz", x=x, y=y)

    out = _run(tmp_path, "--json", str(tmp_path / "lines.jsonl"))

    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["line"] for line in lines] == [
        "device", "a depict fast", "b start", "b start large", *(f"c {case.name}" for case in CASES)
    ]  # fmt: skip
    assert [line for line in lines if "error" in line or "skipped" in line] == []
    assert (tmp_path / "lines.jsonl").read_text() == out
    _, fitted, start, large, *stages = lines
    assert {"graph", "hold", "cluster", "summarise", "assign"} <= set(fitted["seconds"])
    assert (fitted["start_acc"], start["acc"], large["images"]) == (1.0, 1.0, 120)
    assert all(line["ours_per_s"] > 0 and line["hand_per_s"] > 0 for line in stages)


def test_what_no_longer_fits_into_the_time_is_skipped_and_said_to_be(tmp_path):
    x, y = blobs_of_pixels(60, side=28)
    np.savez(tmp_path / "mnist.npz", x=x, y=y)

    lines = [json.loads(line) for line in _run(tmp_path, "--minutes", "0").splitlines()]

    assert len(lines) == 4 + len(CASES)
    assert all("skipped" in line for line in lines[1:])


def _run(folder: Path, *options: str) -> str:
    """The command's output, on a Python that finds only the packages named above and this repository's own."""
    allowed = {"benchmarks", "models"} | NEEDED | OF_TORCH | OF_SKLEARN
    (folder / "sitecustomize.py").write_text(ONLY_THESE.format(allowed=allowed))
    command = [sys.executable, "-m", "benchmarks.device", "--data", str(folder), "--small", "--device", "cpu", *options]
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
