"""Every method's hyperparameters: frozen dataclasses with bounds, readable without torch.

The same classes are JSON at the API: unknown keys and other types are refused, bounds become JSON Schema.
Fields keep the name the method's paper or scikit-learn gives them.
"""

from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Lt

AS_ITS_SCHEMA_SAYS: dict[str, Any] = {"extra": "forbid", "strict": True}

NClusters = Annotated[int, Ge(2), Le(65_536)]
ImageSide = Annotated[int, Ge(8), Le(512)]
LayerSize = Annotated[int, Ge(1), Le(65_536)]
ClusterPrior = tuple[Annotated[float, Gt(0), Le(1e12)], ...]


def check_prior(prior: ClusterPrior | None, n_clusters: int) -> None:
    """Refuse sizes that are not one for each cluster.

    Raises:
        ValueError: there are more or fewer.
    """
    if prior is not None and len(prior) != n_clusters:
        raise ValueError(f"cluster_prior has {len(prior)} sizes for {n_clusters} clusters")


@dataclass(frozen=True, kw_only=True)
class ClusteringConfig:
    """What every method has.

    `n_clusters`: how many groups to form.
    `image_side`: pixels per side the images are brought to. None keeps images that all share one square
    size of 8 to 128 as they are, and brings any others to 32 (see `models.pixels`).
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = AS_ITS_SCHEMA_SAYS

    n_clusters: NClusters
    image_side: ImageSide | None = None

    def __post_init__(self) -> None:
        """Sequences are tuples, also when they come from JSON."""
        for field in fields(self):
            if isinstance(value := getattr(self, field.name), list):
                object.__setattr__(self, field.name, tuple(value))


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig(ClusteringConfig):
    """What classical methods have: `features` are the inputs as they are (`raw`), or the codes of an auto-encoder.

    The auto-encoder is trained for `n_feature_epochs`.
    """

    features: Literal["raw", "autoencoder"] = "raw"
    n_feature_epochs: Annotated[int, Ge(1), Le(100_000)] = 50


@dataclass(frozen=True, kw_only=True)
class KMeansConfig(FeaturesConfig):
    """`n_init` 1 is scikit-learn's own default for k-means++; 10 is steadier and ten times slower."""

    n_init: Annotated[int, Ge(1), Le(1_000)] = 1
    max_iter: Annotated[int, Ge(1), Le(100_000)] = 300
    tol: Annotated[float, Ge(0), Le(1)] = 1e-4


@dataclass(frozen=True, kw_only=True)
class GMMConfig(FeaturesConfig):
    """`reg_covar` is larger than scikit-learn's 1e-6: border pixels never vary, and pixels run 0...1."""

    covariance_type: Literal["full", "tied", "diag", "spherical"] = "diag"
    n_init: Annotated[int, Ge(1), Le(1_000)] = 1
    max_iter: Annotated[int, Ge(1), Le(100_000)] = 100
    tol: Annotated[float, Gt(0), Le(1)] = 1e-3
    reg_covar: Annotated[float, Gt(0), Le(1e6)] = 1e-3


@dataclass(frozen=True, kw_only=True)
class SpectralConfig(FeaturesConfig):
    """`n_neighbors` of the graph whose eigenvectors are taken, each input itself among them."""

    n_neighbors: Annotated[int, Ge(2), Le(1_000)] = 10


@dataclass(frozen=True, kw_only=True)
class NMFConfig(FeaturesConfig):
    """Scikit-learn's own defaults."""

    max_iter: Annotated[int, Ge(1), Le(100_000)] = 200
    tol: Annotated[float, Ge(0), Le(1)] = 1e-4


@dataclass(frozen=True, kw_only=True)
class AgglomerativeConfig(FeaturesConfig):
    """`linkage`: what makes two groups near, their spread once joined (`ward`) or their members' mean distance."""

    linkage: Literal["ward", "average"] = "ward"


@dataclass(frozen=True, kw_only=True)
class HDBSCANConfig(FeaturesConfig):
    """`n_clusters`: how many of the densest regions to keep, `min_cluster_size`: how many inputs make one."""

    min_cluster_size: Annotated[int, Ge(2), Le(1_000_000)] = 15


@dataclass(frozen=True, kw_only=True)
class GraphStartConfig(ClusteringConfig):
    """What the neighbour-graph start takes (see `models.graph`).

    `view`: how images are looked at; `auto` judges all three, and a second refines what the chosen one finds.
    `n_neighbors`: None is about the square root of a mean cluster's size, 5 to 20. `n_starts`: layouts, of which all
    must agree; `n_init`: mixtures tried on each. A method that holds the partition first learns it until it agrees on
    `hold_agreement` of the inputs.
    """

    view: Literal["auto", "raw", "contrast", "hog"] = "auto"
    n_neighbors: Annotated[int, Ge(2), Le(1_000)] | None = None
    n_starts: Annotated[int, Ge(1), Le(64)] = 2
    n_init: Annotated[int, Ge(1), Le(1_000)] = 10
    hold_agreement: Annotated[float, Gt(0), Le(1)] = 0.998


@dataclass(frozen=True, kw_only=True)
class UndoableConfig(GraphStartConfig):
    """Of methods that can go back to what they held.

    `max_move`: where their own clustering takes more than this share of the inputs out of their clusters, or all into
    one, it strays and is undone (0: never).
    """

    max_move: Annotated[float, Ge(0), Le(1)] = 0.0


@dataclass(frozen=True, kw_only=True)
class DCAEConfig(GraphStartConfig):
    """The paper's recipe by default; `fast` starts at the neighbour graph and trains with Adam.

    `cluster_weight` is lambda of eq. 4, `anchor_weight` its place while the graph's partition is held: for
    `n_hold_steps` batches. Then
    `cluster_learning_rate` takes over from `learning_rate` (None: it stays). `stop_change`: stop once fewer images
    change their cluster in an epoch (0: never).
    """

    start: Literal["random", "graph"] = "random"
    n_epochs: Annotated[int, Ge(1), Le(100_000)] = 500
    batch_size: Annotated[int, Ge(1), Le(65_536)] = 100
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: Annotated[float, Gt(0), Le(10)] = 0.006
    cluster_learning_rate: Annotated[float, Gt(0), Le(10)] | None = None
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.9
    weight_decay: Annotated[float, Ge(0), Le(1)] = 5e-4
    cluster_weight: Annotated[float, Ge(0), Le(1e6)] = 0.2
    pixel_reduction: Literal["mean", "sum"] = "mean"
    stop_change: Annotated[float, Ge(0), Le(1)] = 0.0
    anchor_weight: Annotated[float, Ge(0), Le(1e6)] = 1.0
    n_hold_steps: Annotated[int, Ge(1), Le(100_000_000)] = 7_500
    shift: Annotated[float, Ge(0), Le(1)] = 0.0
    rotation_degrees: Annotated[float, Ge(0), Le(180)] = 0.0


@dataclass(frozen=True, kw_only=True)
class DEPICTConfig(UndoableConfig):
    """The paper's recipe by default; `fast` starts at the neighbour graph and augments what the noisy path sees.

    `learning`: all levels jointly (`mda`), layer by layer then the encoder alone (`sda`), or that with a clean
    retraining in between (`rda`). `n_pretrain_epochs`: of reconstruction alone, for each layer where layers are
    trained alone. `tolerance`: stop once the mean squared change of the targets falls below it; `stop_change`: once
    fewer images change their cluster in an epoch (0: never). `cluster_prior`: the clusters' relative sizes, largest
    matched to largest (None: all equal, or those of the graph's clusters).
    While the graph's partition is held, for `n_hold_steps` batches, images it is less sure of than `min_confidence`
    do not teach, unless they are of the surer half of their cluster, and targets are softened by `label_smoothing`.
    Then `cluster_learning_rate` takes over from `learning_rate` (None: it stays). Where what followed is undone, the
    partition is learned from every image as it is, for at most `n_keep_steps` batches. `use_bfloat16`: compute in half
    the precision where the device has instructions for it.
    """

    start: Literal["kmeans", "graph"] = "kmeans"
    learning: Literal["mda", "rda", "sda"] = "mda"
    n_pretrain_epochs: Annotated[int, Ge(1), Le(100_000)] = 1_000
    n_epochs: Annotated[int, Ge(1), Le(100_000)] = 1_000
    batch_size: Annotated[int, Ge(1), Le(65_536)] = 100
    learning_rate: Annotated[float, Gt(0), Le(10)] = 1e-4
    cluster_learning_rate: Annotated[float, Gt(0), Le(10)] | None = None
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.1
    n_kmeans_init: Annotated[int, Ge(1), Le(1_000)] = 40
    tolerance: Annotated[float, Ge(0), Le(1)] = 1e-7
    cluster_prior: ClusterPrior | None = None
    stop_change: Annotated[float, Ge(0), Le(1)] = 0.0
    n_hold_steps: Annotated[int, Ge(1), Le(100_000_000)] = 1_100
    min_confidence: Annotated[float, Ge(0), Le(1)] = 0.8
    label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.1
    n_keep_steps: Annotated[int, Ge(1), Le(100_000_000)] = 550
    shift: Annotated[float, Ge(0), Le(1)] = 0.0
    rotation_degrees: Annotated[float, Ge(0), Le(180)] = 0.0
    use_bfloat16: bool = False

    def __post_init__(self) -> None:
        """Refuse a prior of another length than K."""
        super().__post_init__()
        check_prior(self.cluster_prior, self.n_clusters)


@dataclass(frozen=True, kw_only=True)
class AdaptiveGMMConfig(UndoableConfig):
    """The paper's recipe by default; `fast` starts at the neighbour graph and trains with Adam.

    `eta` weighs the separation of the means (None: .01 up to K = 20, else .001; 0: the paper's ablation). Steps are
    batches: of each RBM, of the auto-encoder's fine-tuning, of the joint stage; the rate is divided by ten after every
    `decay_steps`. `shift` and `rotation_degrees` augment the fine-tuning, and in `fast` all training, of images.
    `variance_floor` and `max_separation` (of two means, squared) bound an objective that has no bounds of its own;
    `clip` cuts the gradient's norm, which codes of small spread need (0: as in the paper, it does not).
    While the graph's partition is held, for `n_hold_steps` batches at `hold_learning_rate`, the likelihood counts
    `hold_likelihood_weight` times. `stop_change`: stop once fewer images change their cluster in an epoch (0: never).
    `use_bfloat16`: compute in half the precision where the device has instructions for it.
    """

    start: Literal["autoencoder", "graph"] = "autoencoder"
    hidden_units: tuple[LayerSize, LayerSize, LayerSize] = (500, 500, 2_000)
    n_features: Annotated[int, Ge(1), Le(4_096)] = 10
    n_rbm_steps: Annotated[int, Ge(1), Le(100_000_000)] = 50_000
    n_finetune_steps: Annotated[int, Ge(1), Le(100_000_000)] = 40_000
    n_steps: Annotated[int, Ge(1), Le(100_000_000)] = 50_000
    pretrain_batch_size: Annotated[int, Ge(1), Le(65_536)] = 256
    batch_size: Annotated[int, Ge(1), Le(65_536)] = 128
    learning_rate: Annotated[float, Gt(0), Le(10)] = 0.01
    decay_steps: Annotated[int, Ge(0), Le(100_000_000)] = 10_000
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.2
    n_mixture_init: Annotated[int, Ge(1), Le(1_000)] = 10
    eta: Annotated[float, Ge(0), Le(1e6)] | None = None
    variance_floor: Annotated[float, Gt(0), Le(1e6)] = 1e-4
    max_separation: Annotated[float, Gt(0), Le(1e12)] = 1e4
    clip: Annotated[float, Ge(0), Le(1e12)] = 0.0
    n_hold_steps: Annotated[int, Ge(1), Le(100_000_000)] = 8_000
    hold_learning_rate: Annotated[float, Gt(0), Le(10)] = 1e-3
    hold_likelihood_weight: Annotated[float, Ge(0), Le(1e6)] = 0.1
    stop_change: Annotated[float, Ge(0), Le(1)] = 0.0
    shift: Annotated[float, Ge(0), Le(1)] = 0.1
    rotation_degrees: Annotated[float, Ge(0), Le(180)] = 10.0
    use_bfloat16: bool = False


@dataclass(frozen=True, kw_only=True)
class DualAutoencoderConfig(UndoableConfig):
    """The paper's recipe by default; `fast` starts at the neighbour graph and augments what the encoder sees.

    At most 512 clusters, the width of the spectral network. `beta`, `gamma`, `delta` weigh mutual information,
    divergence and plain reconstruction; `noise` is the deviation of the multiplicative noise. `mutual_information`,
    `relative_reconstruction` and `spectral` take parts of the method out. Epochs are of the auto-encoder, of the
    spectral network alone, and of both; the rows of a batch are anchors and a neighbour of each. `stop_change`: stop
    once fewer images change their cluster in an epoch (0: never).
    """

    n_clusters: Annotated[int, Ge(2), Le(512)]
    start: Literal["autoencoder", "graph"] = "autoencoder"
    n_pretrain_epochs: Annotated[int, Ge(1), Le(100_000)] = 100
    n_spectral_epochs: Annotated[int, Ge(1), Le(100_000)] = 50
    n_epochs: Annotated[int, Ge(1), Le(100_000)] = 50
    pretrain_batch_size: Annotated[int, Ge(2), Le(65_536)] = 256
    batch_size: Annotated[int, Ge(4), Le(65_536)] = 1_024
    learning_rate: Annotated[float, Gt(0), Le(10)] = 1e-3
    cluster_learning_rate: Annotated[float, Gt(0), Le(10)] = 1e-3
    beta: Annotated[float, Ge(0), Le(1e6)] = 0.01
    gamma: Annotated[float, Ge(0), Le(1e6)] = 1.0
    delta: Annotated[float, Ge(0), Le(1e6)] = 0.5
    noise: Annotated[float, Ge(0), Le(100)] = 0.5
    mutual_information: bool = True
    relative_reconstruction: bool = True
    spectral: bool = True
    stop_change: Annotated[float, Ge(0), Le(1)] = 0.0
    n_hold_steps: Annotated[int, Ge(1), Le(100_000_000)] = 2_200
    shift: Annotated[float, Ge(0), Le(1)] = 0.0
    rotation_degrees: Annotated[float, Ge(0), Le(180)] = 0.0


@dataclass(frozen=True, kw_only=True)
class PreciseFeatureConfig(UndoableConfig):
    """The paper's recipe by default, which wants a GPU for a day; `fast` starts at the neighbour graph.

    `n_steps` counts turns of the generator; between two of them the critic has `n_critic` and the classifier
    `n_classifier`. `penalty` is lambda (None: the paper's 100 for images, .1 for vectors); eta grows by `eta_growth`
    every `eta_steps`. `n_noise`: variables besides the cluster (None: 10 for images, 24 in `fast`; 2 for vectors).
    `cluster_prior`: the clusters' relative sizes (None: all equal, or those of the graph's clusters). `augment`: real
    images are shifted and turned, the paper's "Ours*".
    `n_hold_steps` and `n_imitation_steps` of `fast`, batches at `imitation_rate`, come before the game.
    """

    start: Literal["random", "graph"] = "random"
    n_steps: Annotated[int, Ge(1), Le(100_000_000)] = 900_000
    n_critic: Annotated[int, Ge(1), Le(1_000)] = 5
    n_classifier: Annotated[int, Ge(1), Le(1_000)] = 4
    batch_size: Annotated[int, Ge(2), Le(65_536)] = 50
    learning_rate: Annotated[float, Gt(0), Le(10)] = 1e-4
    penalty: Annotated[float, Ge(0), Le(1e6)] | None = None
    eta: Annotated[float, Ge(0), Le(1e6)] = 10.0
    eta_growth: Annotated[float, Ge(1), Le(100)] = 1.2
    eta_steps: Annotated[int, Ge(1), Le(100_000_000)] = 30_000
    n_noise: Annotated[int, Ge(0), Le(4_096)] | None = None
    cluster_prior: ClusterPrior | None = None
    augment: bool = False
    n_hold_steps: Annotated[int, Ge(1), Le(100_000_000)] = 4_200
    n_imitation_steps: Annotated[int, Ge(1), Le(100_000_000)] = 3_000
    imitation_rate: Annotated[float, Gt(0), Le(10)] = 1e-3
    shift: Annotated[float, Ge(0), Le(1)] = 0.1
    rotation_degrees: Annotated[float, Ge(0), Le(180)] = 10.0

    def __post_init__(self) -> None:
        """Refuse a prior of another length than K."""
        super().__post_init__()
        check_prior(self.cluster_prior, self.n_clusters)
