"""A method of another package, as the documentation shows it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
USE = """
import json, sys
from models import registry
from models.worth.metrics import ari
from tests.models.battery import images, spec_of

x, kinds = images()
name, values = sys.argv[1], json.loads(sys.argv[2])
spec = registry.get(name)
model = spec.load()(spec.make_config("paper", {"n_clusters": 3, **values}), spec_of(x)).fit(x)
print(json.dumps({"ari": ari(kinds, model.predict(x)), "max_images": spec.max_images, "title": spec.title}))
"""


def blocks() -> dict[str, str]:
    """The documented files, by the name in their first line."""
    found = re.findall(r"```python\n(# (\S+\.py).*?)```", (ROOT / "docs" / "methods.md").read_text(), re.DOTALL)
    return {name.rstrip(","): code for code, name in found}


def used(folder: Path, entry: str, method: str, values: dict) -> dict:
    """What a fit in another process says of a method, whose files and entry point lie in a folder."""
    info = folder / "my_methods-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-methods\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[clusterserve.methods]\n{entry}\n")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")])
    }

    command = [sys.executable, "-c", USE, method, json.dumps(values)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    told: dict = json.loads(done.stdout)
    return told


def test_the_documented_example_of_clustpy_is_a_method_like_any_other(tmp_path):
    for name in ("my_subkmeans.py", "my_methods.py"):
        (tmp_path / name).write_text(blocks()[name])

    told = used(tmp_path, "subkmeans = my_methods:SPEC", "subkmeans", {"features": "raw"})

    assert told == {"ari": 1.0, "max_images": 20_000, "title": "SubKmeans"}


def test_the_documented_deep_method_of_sixty_lines_is_one_like_any_other(tmp_path):
    files = {name: code for name, code in blocks().items() if name.startswith("my_dec/")}
    (tmp_path / "my_dec").mkdir()
    (tmp_path / "my_dec" / "__init__.py").touch()
    for name, code in files.items():
        (tmp_path / name).write_text(code)

    told = used(tmp_path, "dec = my_dec.spec:SPEC", "dec", {"n_steps": 100, "batch_size": 20})

    assert told == {"ari": 1.0, "max_images": None, "title": "Deep embedded clustering"}
    lines = [line for code in files.values() for line in code.splitlines() if line.strip() and line[0] != "#"]
    assert len(lines) <= 60


def test_the_place_that_plugins_imported_from_works_with_a_warning():
    code = "import warnings; warnings.simplefilter('error'); import models.voting"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    refused = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    works = subprocess.run([sys.executable, "-c", "from models.voting import VotedClusterer"], env=environment)

    assert "DeprecationWarning: import VotedClusterer from models.classical.voting" in refused.stderr
    assert works.returncode == 0
