"""What the configs of several methods share: frozen dataclasses with bounds and descriptions, readable without torch.

The same classes are JSON at the API: unknown keys and other types are refused, and bounds and descriptions become
JSON Schema. A method's own config stands in its `spec.py`. Fields keep the name that the method's paper or
scikit-learn gives them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Lt

AS_ITS_SCHEMA_SAYS: dict[str, Any] = {"extra": "forbid", "strict": True}

NClusters = Annotated[int, Ge(2), Le(65_536)]
ImageSide = Annotated[int, Ge(8), Le(512)]
LayerSize = Annotated[int, Ge(1), Le(65_536)]
BatchSize = Annotated[int, Ge(1), Le(65_536)]
NEpochs = Annotated[int, Ge(1), Le(100_000)]
NSteps = Annotated[int, Ge(1), Le(100_000_000)]
Rate = Annotated[float, Gt(0), Le(10)]
Share = Annotated[float, Ge(0), Le(1)]
PartialShare = Annotated[float, Ge(0), Lt(1)]
Degrees = Annotated[float, Ge(0), Le(180)]
Weight = Annotated[float, Ge(0), Le(1e6)]
ClusterPrior = tuple[Annotated[float, Gt(0), Le(1e12)], ...]


def said(description: str) -> Mapping[str, str]:
    """The metadata of a field that is described; subclasses inherit it, and it reaches JSON Schema and `docs/`."""
    return {"description": description}


def described(default: Any, description: str) -> Any:
    """A field with a default and a description."""
    return field(default=default, metadata=said(description))


def check_prior(prior: ClusterPrior | None, n_clusters: int) -> None:
    """Refuse a list of sizes with another length than the number of clusters.

    Raises:
        ValueError: there are more or fewer.
    """
    if prior is not None and len(prior) != n_clusters:
        raise ValueError(f"cluster_prior has {len(prior)} sizes for {n_clusters} clusters")


@dataclass(frozen=True, kw_only=True)
class ClusteringConfig:
    """What every method has."""

    __pydantic_config__: ClassVar[dict[str, Any]] = AS_ITS_SCHEMA_SAYS

    n_clusters: NClusters = field(metadata=said("How many clusters to form, 2 to 65,536."))
    image_side: ImageSide | None = described(
        None,
        "Pixels per side that every image is brought to, 8 to 512. null keeps images that all share one square size "
        "of 8 to 128, and brings all others to 32.",
    )

    def __post_init__(self) -> None:
        """Make tuples of lists, which is what JSON gives."""
        for each in fields(self):
            if isinstance(value := getattr(self, each.name), list):
                object.__setattr__(self, each.name, tuple(value))


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig(ClusteringConfig):
    """What classical methods have: the features that they cluster."""

    features: Literal["raw", "autoencoder"] = described(
        "raw",
        "What is clustered: `raw` takes pixels or vectors as they are, `autoencoder` the ten codes of a fully "
        "connected auto-encoder that is trained first.",
    )
    standardize: Literal["auto", "on", "off"] = described(
        "auto",
        "Whether each column of raw vectors is brought to mean 0 and deviation 1. `auto` does so if one column's "
        "deviation is more than ten times the median column's.",
    )
    n_feature_epochs: NEpochs = described(
        50, "Epochs of the auto-encoder, 1 to 100,000. Only used with `features: autoencoder`."
    )


@dataclass(frozen=True, kw_only=True)
class GraphConfig(ClusteringConfig):
    """What the neighbour-graph start takes (see `models.start.graph`)."""

    view: Literal["auto", "raw", "contrast", "hog"] = described(
        "auto",
        "How images are looked at before neighbours are sought: pixels (`raw`), local contrast, or histograms of "
        "oriented gradients (`hog`). `auto` judges all three without targets, and a second view refines the result. "
        "Used by the neighbour-graph start.",
    )
    n_neighbors: Annotated[int, Ge(2), Le(1_000)] | None = described(
        None,
        "Neighbours of each image in the neighbour graph, itself included, 2 to 1,000. null tries 3, 4, 5, 6, 8, 10, "
        "12, 15 and 20; of 30,000 images and more it takes about the square root of a mean cluster's size, 5 to 20. "
        "Used by the neighbour-graph start.",
    )
    n_starts: Annotated[int, Ge(1), Le(64)] | None = described(
        None,
        "Layouts of the neighbour graph for each number of neighbours, each from its own seed, 1 to 64; 64 in all at "
        "most. The partition that all of them find likely wins. null: 2, or 1 where many numbers are tried on more "
        "than 3,000 images. Used by the neighbour-graph start.",
    )
    n_init: Annotated[int, Ge(1), Le(1_000)] | None = described(
        None,
        "Mixtures tried on each layout, 1 to 1,000. null: 10, or 5 where many numbers of neighbours are tried. "
        "Used by the neighbour-graph start.",
    )


@dataclass(frozen=True, kw_only=True)
class GraphStartConfig(GraphConfig):
    """Of methods that can learn the start's partition."""

    hold_agreement: Annotated[float, Gt(0), Le(1)] = described(
        0.998,
        "Share of the images, 0 to 1. Learning the start's partition ends early once the network agrees with it on "
        "so many. Only used with `start: graph`.",
    )


@dataclass(frozen=True, kw_only=True)
class CorrectingConfig(GraphConfig):
    """Of methods whose network corrects the start's partition (see `models.training.corrections`)."""

    min_confidence: Share = described(
        0.7,
        "Images that the start is less sure of, 0 to 1, do not teach while its partition is learned, unless they are "
        "of the surer half of their cluster. Where the network is less sure, the start's label stays. Used by the "
        "neighbour-graph start.",
    )
    max_flow: Share = described(
        0.05,
        "Images that go from one cluster to another keep the start's label if they are more than this share of the "
        "smaller of the two, 0 to 1. A single image may always go; 1 lets all go. Used by the neighbour-graph start.",
    )


@dataclass(frozen=True, kw_only=True)
class UndoableConfig(GraphStartConfig):
    """Of methods that can go back to the network as it was before their own clustering."""

    max_move: Share = described(
        0.0,
        "Share of the images, 0 to 1. If the method's own clustering moves more than this out of their clusters, or "
        "all into one, it is undone. 0 never undoes it.",
    )
