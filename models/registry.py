"""Which methods there are, by name. Torch-free: an implementation is loaded only when a runner needs it.

A built-in method is its folder and one line of `BUILT_IN`. Other packages add theirs in the same way, through the entry
point group `clusterserve.methods`: both name a `MethodSpec`.
"""

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal

from models.configs import ClusteringConfig
from models.errors import BadCheckpoint, UnknownTargets

DEFAULT_METHOD = "graph-selflabel"
ENTRY_POINT_GROUP = "clusterserve.methods"
BUILT_IN = (
    "models.methods.graph_selflabel.spec:SPEC",
    "models.methods.dcae.spec:SPEC",
    "models.methods.depict.spec:SPEC",
    "models.methods.adaptive_gmm.spec:SPEC",
    "models.methods.dual_autoencoder.spec:SPEC",
    "models.methods.precise_feature.spec:SPEC",
    "models.classical.kmeans.spec:SPEC",
    "models.classical.gmm.spec:SPEC",
    "models.classical.spectral.spec:SPEC",
    "models.classical.nmf.spec:SPEC",
    "models.classical.agglomerative.spec:SPEC",
    "models.classical.hdbscan.spec:SPEC",
)

DataKind = Literal["images", "vectors"]
# For images, the one whose figures are best (docs/methods.md); for vectors, the one that everybody knows.
DEFAULT_OF: Mapping[str, str] = {"images": DEFAULT_METHOD, "vectors": "kmeans"}


@dataclass(frozen=True)
class MethodSpec:
    """One method: what it is called, where it is from, what it takes, where its code is.

    `implementation` is `module:Class` and is imported only on `load`; `fast` is that of its `fast` recipe (see
    `models.training.fast`), for methods that have one. `profiles` maps a profile's name to the config fields that it
    changes. `max_images` is where a method stops being affordable (None: no limit); `takes_known`: it can be told
    targets of some images; `uses_gpu`: a GPU makes it faster.
    """

    name: str
    title: str
    paper: str
    config: type[ClusteringConfig]
    implementation: str
    profiles: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"paper": {}})
    data: tuple[DataKind, ...] = ("images", "vectors")
    max_images: int | None = None
    takes_known: bool = False
    uses_gpu: bool = False
    fast: str | None = None

    @property
    def default_profile(self) -> str:
        """`fast` where the method has it."""
        return "fast" if "fast" in self.profiles else "paper"

    def merge(self, profile: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """The config fields of a profile, with the caller's values over them."""
        return {**self.profiles[profile], **values}

    def make_config(self, profile: str, values: Mapping[str, Any]) -> ClusteringConfig:
        """The config of a profile with the caller's values over it (bounds are checked at the API's edge)."""
        return self.config(**self.merge(profile, values))

    def check_known(self, known: Mapping[int, int], n_images: int, n_clusters: int) -> None:
        """Refuse `known` targets, image index -> target, that this method cannot use.

        Raises:
            UnknownTargets: with a `reason` that is stable.
        """
        if known and not self.takes_known:
            raise UnknownTargets(f"{self.name} cannot be told targets", "known_not_supported")
        if any(not 0 <= index < n_images for index in known):
            raise UnknownTargets(f"`known` names an image beyond {n_images - 1}", "known_out_of_range")
        if len(set(known.values())) > n_clusters:
            raise UnknownTargets(f"`known` has more targets than the {n_clusters} clusters", "known_out_of_range")

    def load(self) -> Any:
        """The method's class; imports torch."""
        return _load(self.implementation)

    def load_fast(self) -> Any:
        """The class of the method's `fast` recipe; imports torch.

        Raises:
            LookupError: the method has none.
        """
        if self.fast is None:
            raise LookupError(f"{self.name} has no fast recipe")
        return _load(self.fast)


@cache
def methods() -> dict[str, MethodSpec]:
    """Every method by name, the built-in ones first, then those of installed packages."""
    specs: dict[str, MethodSpec] = {}
    for place in BUILT_IN:
        spec: MethodSpec = _load(place)
        specs[spec.name] = spec
    for entry in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name):
        spec = entry.load()
        specs.setdefault(spec.name, spec)
    return specs


def get(name: str) -> MethodSpec:
    """The method of that name.

    Raises:
        KeyError: there is none.
    """
    return methods()[name]


def load_model(folder: Path) -> Any:
    """A fitted model, a `models.base.Clusterer`, from the folder it was saved in; imports torch.

    Raises:
        BadCheckpoint: the folder is incomplete or altered, or its method is not installed.
    """
    try:
        name = json.loads((folder / "model.json").read_text())["method"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BadCheckpoint("the folder holds no model") from error
    try:
        spec = get(name)
    except KeyError as error:
        raise BadCheckpoint(f"there is no method {name!r} here") from error
    return spec.load().load(folder, spec.config)


def _load(place: str) -> Any:
    """What `module:name` names."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
