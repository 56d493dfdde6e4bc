"""The runner as a process: `python -m workers.runner` on a real job."""

import json
import os

import pytest

from tests.factories import npz

# Python loads this file first. It writes what the runner has loaded when the runner ends.
WITNESS = """
import atexit, json, sys
from pathlib import Path

def tell():
    main = sys.modules["__main__"]
    if getattr(main.__spec__, "name", None) == "workers.runner":
        is_same = main.Work is sys.modules["workers.ingest"].Work
        facts = {"has_twin": "workers.runner" in sys.modules, "is_same": is_same}
        Path(__file__).with_name("facts.json").write_text(json.dumps(facts))

atexit.register(tell)
"""


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_a_runner_loads_its_module_once_and_shares_its_classes_with_the_job(client, work, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(WITNESS)
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    monkeypatch.setenv("PYTHONPATH", path)
    created = client.post("/v1/datasets", content=npz(3)).json()

    work()

    assert client.get(f"/v1/datasets/{created['id']}").json()["state"] == "ready"
    assert json.loads((tmp_path / "facts.json").read_text()) == {"has_twin": False, "is_same": True}
