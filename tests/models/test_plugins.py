"""A method of another package, as the documentation shows it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
USE = """
import json
from models import registry
from models.worth.metrics import ari
from tests.models.battery import images, spec_of

x, kinds = images()
spec = registry.get("subkmeans")
model = spec.load()(spec.make_config("paper", {"n_clusters": 3, "features": "raw"}), spec_of(x)).fit(x)
print(json.dumps({"ari": ari(kinds, model.predict(x)), "max_images": spec.max_images, "title": spec.title}))
"""


def test_the_documented_example_of_clustpy_is_a_method_like_any_other(tmp_path):
    code, spec = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "methods.md").read_text(), re.DOTALL)
    (tmp_path / "my_subkmeans.py").write_text(code)
    (tmp_path / "my_methods.py").write_text(spec)
    info = tmp_path / "my_methods-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-methods\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[clusterserve.methods]\nsubkmeans = my_methods:SPEC\n")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT), os.environ.get("PYTHONPATH", "")])
    }

    done = subprocess.run([sys.executable, "-c", USE], env=environment, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"ari": 1.0, "max_images": 20_000, "title": "SubKmeans"}


def test_the_place_that_plugins_imported_from_works_with_a_warning():
    code = "import warnings; warnings.simplefilter('error'); import models.voting"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    refused = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    works = subprocess.run([sys.executable, "-c", "from models.voting import VotedClusterer"], env=environment)

    assert "DeprecationWarning: import VotedClusterer from models.classical.voting" in refused.stderr
    assert works.returncode == 0
