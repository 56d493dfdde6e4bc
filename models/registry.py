"""Which methods there are, by name. Torch-free: an implementation is loaded only when a runner needs it.

Other packages add methods through the entry point group `clusterserve.methods`, each naming a `MethodSpec`.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Literal

from models.configs import (
    AdaptiveGMMConfig,
    AgglomerativeConfig,
    ClusteringConfig,
    DCAEConfig,
    DEPICTConfig,
    DualAutoencoderConfig,
    GMMConfig,
    HDBSCANConfig,
    KMeansConfig,
    NMFConfig,
    PreciseFeatureConfig,
    SpectralConfig,
)

DEFAULT_METHOD = "depict"
ENTRY_POINT_GROUP = "clusterserve.methods"

DataKind = Literal["images", "vectors"]
# Of images, what `docs/results.md` favours; of vectors, what everybody knows.
DEFAULT_OF: Mapping[str, str] = {"images": DEFAULT_METHOD, "vectors": "kmeans"}


@dataclass(frozen=True)
class MethodSpec:
    """One method: what it is called, where it is from, what it takes, where its code is.

    `implementation` is `module:Class` and is imported only on `load`. `profiles` maps a profile's name to
    the config fields it changes. `max_images` is where a method stops being affordable (None: no limit);
    `takes_known`: it can be told targets of some images; `uses_gpu`: one makes it faster.
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

    @property
    def default_profile(self) -> str:
        """`fast` where the method has it."""
        return "fast" if "fast" in self.profiles else "paper"

    def make_config(self, profile: str, values: Mapping[str, Any]) -> ClusteringConfig:
        """The config of a profile with the caller's values over it (bounds are checked at the API's edge)."""
        return self.config(**{**self.profiles[profile], **values})

    def load(self) -> Any:
        """The method's class; imports torch."""
        module, _, name = self.implementation.partition(":")
        return getattr(importlib.import_module(module), name)


BUILT_IN = (
    MethodSpec(
        name="dcae",
        title="Deep convolutional auto-encoder with embedded clustering",
        paper="Alqahtani, Xie, Deng & Jones, A deep convolutional auto-encoder with embedded clustering, ICIP 2018",
        config=DCAEConfig,
        implementation="models.methods.dcae:DCAE",
        uses_gpu=True,
        profiles={
            "paper": {},
            "fast": {
                "start": "graph",
                "optimizer": "adam",
                "learning_rate": 2e-3,
                "cluster_learning_rate": 5e-5,
                "batch_size": 128,
                "cluster_weight": 5.0,
                "anchor_weight": 5.0,
                "hold_agreement": 0.99,
                "n_epochs": 3,
                "stop_change": 0.001,
                "shift": 0.05,
                "rotation_degrees": 5.0,
            },
        },
        data=("images",),
    ),
    MethodSpec(
        name="depict",
        title="Deep embedded regularised clustering",
        paper="Ghasedi Dizaji, Herandi, Deng, Cai & Huang, Deep clustering via joint convolutional autoencoder "
        "embedding and relative entropy minimization, ICCV 2017",
        config=DEPICTConfig,
        implementation="models.methods.depict:DEPICT",
        uses_gpu=True,
        profiles={
            "paper": {},
            "fast": {
                "start": "graph",
                "learning_rate": 2e-3,
                "batch_size": 256,
                "n_hold_steps": 1_900,
                "n_epochs": 1,
                "cluster_learning_rate": 1e-5,
                "stop_change": 0.001,
                "max_move": 0.02,
                "shift": 0.1,
                "rotation_degrees": 10.0,
                "use_bfloat16": True,
            },
        },
        data=("images",),
        takes_known=True,
    ),
    MethodSpec(
        name="adaptive-gmm",
        title="Deep clustering by an adaptive Gaussian mixture",
        paper="Wang & Jiang, Unsupervised deep clustering via adaptive GMM modeling and optimization, "
        "Neurocomputing 433, 2021",
        config=AdaptiveGMMConfig,
        implementation="models.methods.adaptive_gmm:AdaptiveGMM",
        uses_gpu=True,
        profiles={
            "paper": {},
            "fast": {
                "start": "graph",
                "batch_size": 256,
                "learning_rate": 1e-5,
                "decay_steps": 0,
                "n_steps": 820,
                "n_hold_steps": 8_000,
                "hold_learning_rate": 2e-3,
                "hold_likelihood_weight": 1.0,
                "variance_floor": 1.0,
                "stop_change": 0.001,
                "max_move": 0.02,
                "shift": 0.05,
                "rotation_degrees": 5.0,
                "use_bfloat16": True,
            },
        },
    ),
    MethodSpec(
        name="dual-autoencoder",
        title="Deep spectral clustering with a dual auto-encoder",
        paper="Yang, Deng, Zheng, Yan & Liu, Deep spectral clustering using dual autoencoder network, CVPR 2019",
        config=DualAutoencoderConfig,
        implementation="models.methods.dual_autoencoder:DualAutoencoder",
        uses_gpu=True,
        profiles={
            "paper": {},
            "fast": {
                "start": "graph",
                "n_epochs": 2,
                "cluster_learning_rate": 1e-4,
                "stop_change": 0.001,
                "shift": 0.1,
                "rotation_degrees": 10.0,
            },
        },
        data=("images",),
    ),
    MethodSpec(
        name="precise-feature",
        title="Learning the precise feature for cluster assignment",
        paper="Gan, Dong, Zhou, Gao & Dong, Learning the precise feature for cluster assignment, "
        "IEEE Trans. Cybernetics 2021",
        config=PreciseFeatureConfig,
        implementation="models.methods.precise_feature:PreciseFeature",
        uses_gpu=True,
        profiles={
            "paper": {},
            "fast": {"start": "graph", "n_steps": 150, "n_imitation_steps": 3_000, "max_move": 0.02},
        },
    ),
    MethodSpec(
        name="kmeans",
        title="k-means",
        paper="Lloyd, Least squares quantization in PCM, IEEE Trans. Inf. Theory 1982; k-means++ start",
        config=KMeansConfig,
        implementation="models.methods.kmeans:KMeans",
    ),
    MethodSpec(
        name="gmm",
        title="Gaussian mixture",
        paper="Dempster, Laird & Rubin, Maximum likelihood from incomplete data via the EM algorithm, JRSS B 1977",
        config=GMMConfig,
        implementation="models.methods.gmm:GMM",
    ),
    MethodSpec(
        name="spectral",
        title="Spectral clustering",
        paper="Ng, Jordan & Weiss, On spectral clustering: analysis and an algorithm, NIPS 2001; cluster_qr: Damle, "
        "Minden & Ying, Information and Inference 2019",
        config=SpectralConfig,
        implementation="models.methods.spectral:Spectral",
        max_images=100_000,
    ),
    MethodSpec(
        name="nmf",
        title="Non-negative matrix factorisation",
        paper="Lee & Seung, Learning the parts of objects by non-negative matrix factorization, Nature 401, 1999",
        config=NMFConfig,
        implementation="models.methods.nmf:NMF",
    ),
    MethodSpec(
        name="agglomerative",
        title="Agglomerative clustering",
        paper="Ward, Hierarchical grouping to optimize an objective function, JASA 58, 1963",
        config=AgglomerativeConfig,
        implementation="models.methods.agglomerative:Agglomerative",
        max_images=20_000,
    ),
    MethodSpec(
        name="hdbscan",
        title="HDBSCAN",
        paper="Campello, Moulavi & Sander, Density-based clustering based on hierarchical density estimates, "
        "PAKDD 2013",
        config=HDBSCANConfig,
        implementation="models.methods.hdbscan:HDBSCAN",
        max_images=20_000,
    ),
)


@cache
def methods() -> dict[str, MethodSpec]:
    """Every method by name, our own first, then those of installed packages."""
    found = {spec.name: spec for spec in BUILT_IN}
    for entry in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name):
        spec: MethodSpec = entry.load()
        found.setdefault(spec.name, spec)
    return found


def get(name: str) -> MethodSpec:
    """The method of that name.

    Raises:
        KeyError: there is none.
    """
    return methods()[name]
