"""Methods by name, ours and other people's."""

import json

import pytest
from pydantic import TypeAdapter, ValidationError

from models import registry
from models.classical.kmeans.spec import KMeansConfig


def test_the_default_method_exists_and_every_implementation_loads():
    for kind, name in registry.DEFAULT_OF.items():
        assert kind in registry.get(name).data
    for spec in registry.methods().values():
        assert spec.load().name == spec.name
        assert spec.default_profile in spec.profiles
        assert ("paper" in spec.profiles) != (spec.name == "graph-selflabel")  # which has no paper


def test_an_unknown_method_is_a_key_error():
    with pytest.raises(KeyError):
        registry.get("magic")


def test_an_installed_package_adds_a_method(tmp_path, monkeypatch):
    (tmp_path / "acme_clusters.py").write_text(
        "from models.classical.kmeans.spec import KMeansConfig\n"
        "from models.registry import MethodSpec\n"
        "spec = MethodSpec('acme', 'Acme', 'none', KMeansConfig, 'models.classical.kmeans.method:KMeans')\n"
    )
    info = tmp_path / "acme-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[clusterserve.methods]\nacme = acme_clusters:spec\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry.methods.cache_clear()
    try:
        assert registry.get("acme").title == "Acme"
        assert list(registry.methods())[len(registry.BUILT_IN) :] == ["acme"]
    finally:
        registry.methods.cache_clear()


@pytest.mark.parametrize("values", [{}, {"n_clusters": 1}, {"n_clusters": 70_000}, {"n_clusters": 3, "typo": 1}])
def test_bounds_and_unknown_keys_are_enforced_from_the_dataclass_alone(values):
    with pytest.raises(ValidationError):
        TypeAdapter(KMeansConfig).validate_json(json.dumps(values))
