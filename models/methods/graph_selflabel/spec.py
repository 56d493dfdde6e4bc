"""`graph-selflabel`: its config. Our own method, so it has no profile `paper`."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Le

from models.configs import BatchSize, CorrectingConfig, Degrees, NSteps, PartialShare, Rate, Share, described
from models.registry import MethodSpec


@dataclass(frozen=True, kw_only=True)
class GraphSelfLabelConfig(CorrectingConfig):
    """What the neighbour-graph start takes, and how the network learns from it and then from itself."""

    n_hold_steps: NSteps = described(
        300, "Batches in which the start's partition is learned, at most, but one pass over the images at least."
    )
    hold_agreement: Annotated[float, Gt(0), Le(1)] = described(
        0.995,
        "Share of the images that the start is sure of, 0 to 1. Learning its partition ends early once the network "
        "agrees with it on so many.",
    )
    n_rounds: Annotated[int, Ge(0), Le(1_000)] = described(
        4, "Rounds at most, 0 to 1,000. The network's answers become the labels before the first and after each."
    )
    n_round_steps: NSteps = described(150, "Batches in a round, but one pass over the images at least.")
    settling: PartialShare = described(
        0.9,
        "Rounds end once one changes more labels than this share of what the round before changed, from 0, below 1.",
    )
    n_distil_steps: NSteps = described(
        200, "Batches in which the last labels are learned, from every image, but one pass at least."
    )
    batch_size: BatchSize = described(128, "Images in a batch, 1 to 65,536.")
    learning_rate: Rate = described(
        2e-3,
        "Size of Adam's steps, above 0, at most 10. While the last labels are learned it falls from pass to pass.",
    )
    label_smoothing: PartialShare = described(
        0.1, "Share of a target that is spread over all clusters, from 0, below 1."
    )
    teacher_decay: PartialShare = described(
        0.99, "The network that answers is a running mean of the one that is trained. This share of it stays at a step."
    )
    shift: Share = described(0.1, "Largest shift of a training image as a share of its side, 0 to 1.")
    rotation_degrees: Degrees = described(10.0, "Largest turn of a training image, 0 to 180 degrees.")


SPEC = MethodSpec(
    name="graph-selflabel",
    title="Self-labelling from the neighbour graph",
    paper="Ours; see docs/methods.md",
    config=GraphSelfLabelConfig,
    implementation="models.methods.graph_selflabel.method:GraphSelfLabel",
    uses_gpu=True,
    profiles={"fast": {}},
    data=("images",),
    takes_known=True,
)
