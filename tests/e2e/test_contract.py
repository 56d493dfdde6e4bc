"""The running service against its own document: Schemathesis with every check, chains of calls included."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import production, service

ROOT = Path(__file__).parents[2]
# Examples of each operation beside those that cover its schema: `make fuzz` asks for more.
N_EXAMPLES = os.environ.get("FUZZ_EXAMPLES", "3")
NO_LIMITS = {
    "CLUSTERSERVE_REQUIRE_KEYS": "true",
    "CLUSTERSERVE_MAX_QUEUED_JOBS": "1000000",
    **production.NO_RATES,
    "CLUSTERSERVE_WEBHOOK_ALLOW_PRIVATE": "true",
}


@pytest.fixture(params=["embedded", pytest.param("production", marks=pytest.mark.thorough)])
def running(request, tmp_path):
    """A service that asks for keys, and one that allows everything."""
    if request.param == "production":
        with production.backends() as backends, production.running(tmp_path / "data", backends, **NO_LIMITS) as found:
            yield str(found.client._http.base_url), found.client._http.headers["Authorization"]
    else:
        with service.running(tmp_path / "data", **NO_LIMITS) as found:
            command = [sys.executable, "-m", "clusterserve", "keys", "create", "--scopes", "admin"]
            environment = os.environ | NO_LIMITS | {"CLUSTERSERVE_DATA_DIR": str(tmp_path / "data")}
            made = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
            yield str(found.client._http.base_url), f"Bearer {made.split()[-1]}"


def test_every_answer_is_one_the_document_describes(running):
    url, authorization = running
    command = [Path(sys.executable).with_name("st"), "--config-file", "tests/schemathesis.toml", "run"]
    command += [f"{url}/openapi.json", "--url", url, "-H", f"Authorization: {authorization}", "--checks", "all"]
    command += ["--max-examples", N_EXAMPLES, "--continue-on-failure", "--no-color"]
    hooks = {"SCHEMATHESIS_HOOKS": "tests.contract", "PYTHONPATH": str(ROOT)}

    done = subprocess.run(command, cwd=ROOT, env=os.environ | hooks, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout[-20_000:]
    n_cases = int(re.search(r"(\d+) generated", done.stdout).group(1))
    assert n_cases > 1_000
