"""The lines between runner and supervisor: their JSON, and what the decoder refuses."""

import json

import pytest

from app.store.results import (
    Artifact,
    AssignmentSetFacts,
    AssignResult,
    ClusterSummary,
    IngestResult,
    ModelFacts,
    PartResult,
    TrainResult,
)
from workers.messages import (
    BadMessage,
    CheckpointMessage,
    ErrorMessage,
    PhaseMessage,
    ResultMessage,
    StartMessage,
    StepMessage,
    StoppedMessage,
    TimesMessage,
    decode,
    encode,
    event_data,
)

WHOLE = AssignmentSetFacts(n_images=3, n_outliers=1, scores={"acc": 0.5, "silhouette": None})
WHOLE_JSON = {"n_images": 3, "n_outliers": 1, "scores": {"acc": 0.5, "silhouette": None}}
EMPTY_CLUSTER = {
    **{"cluster": 0, "size": 0, "first_row": 0, "confidence": None},
    **{"n_outliers": 0, "exemplars": [], "least_certain": []},
}
MODEL = {
    **{"config": {"n_clusters": 2, "sides": [8, 8]}, "known": {"0": 1}, "n_clusters": 2, "n_images": 3},
    **{"input_spec": {"kind": "vectors"}, "scores": {}},
}
FILE = {"bytes": 5, "sha256": "ab", "media_type": "image/png"}

LINES = [
    (PhaseMessage(phase="decode", progress=0.05), {"type": "phase", "phase": "decode", "progress": 0.05}),
    (
        StepMessage(progress=0.5, n_images=64, n_rejects=0),
        {"type": "step", "progress": 0.5, "n_images": 64, "n_rejects": 0},
    ),
    (
        StepMessage(progress=0.5, phase="cluster", step=3, losses={"kl": 0.1}, cluster_sizes=[2, 1], scores={}),
        {
            **{"type": "step", "progress": 0.5, "phase": "cluster", "step": 3},
            **{"losses": {"kl": 0.1}, "cluster_sizes": [2, 1], "scores": {}},
        },
    ),
    (
        StepMessage(progress=0.5, phase="fit", step=0, event="checkpoint_skipped"),
        {"type": "step", "progress": 0.5, "phase": "fit", "step": 0, "event": "checkpoint_skipped"},
    ),
    (CheckpointMessage(prefix="t/x", phase="fit"), {"type": "checkpoint", "prefix": "t/x", "phase": "fit"}),
    (StartMessage(key="k", prefix="t/x"), {"type": "start", "key": "k", "prefix": "t/x"}),
    (TimesMessage(times=[("sql", "select", 0.25)]), {"type": "times", "times": [["sql", "select", 0.25]]}),
    (StoppedMessage(), {"type": "stopped"}),
    (
        ErrorMessage(code="disk_full", message="full", is_retryable=True),
        {"type": "error", "code": "disk_full", "message": "full", "is_retryable": True},
    ),
    (
        ResultMessage(
            result=IngestResult(kind="vectors", n_images=3, n_bytes=9, shards=[3], n_features=2, has_targets=False)
        ),
        {
            "type": "result",
            "result": {
                **{"kind": "vectors", "n_images": 3, "n_rejects": 0, "n_bytes": 9, "shards": [3], "n_features": 2},
                **{"has_targets": False, "target_names": [], "notes": [], "facts": {}},
            },
        },
    ),
    (
        ResultMessage(
            result=TrainResult(
                model=ModelFacts(**MODEL, artifacts={"nearest.png": Artifact(**FILE)}),
                assignment_set=WHOLE,
                clusters=[],
            )
        ),
        {
            "type": "result",
            "result": {
                "model": {**MODEL, "artifacts": {"nearest.png": FILE}},
                "assignment_set": WHOLE_JSON,
                "clusters": [],
                "warnings": [],
            },
        },
    ),
    (
        ResultMessage(result=AssignResult(assignment_set=WHOLE, clusters=[ClusterSummary(**EMPTY_CLUSTER)])),
        {"type": "result", "result": {"assignment_set": WHOLE_JSON, "clusters": [EMPTY_CLUSTER]}},
    ),
    (ResultMessage(result=PartResult()), {"type": "result", "result": {}}),
]


@pytest.mark.parametrize(("message", "line"), LINES, ids=lambda value: type(value).__name__)
def test_a_message_is_one_line_of_json_and_comes_back_as_it_was(message, line):
    encoded = encode(message)

    assert encoded.endswith("\n")
    assert encoded.count("\n") == 1
    assert json.loads(encoded) == line
    assert decode(encoded.encode()) == message


def test_what_is_not_a_number_is_null():
    losses = {"kl": float("nan"), "rec": float("inf")}

    line = encode(StepMessage(progress=0.5, losses=losses))

    assert json.loads(line)["losses"] == {"kl": None, "rec": None}
    assert decode(line.encode()) == StepMessage(progress=0.5, losses={"kl": None, "rec": None})


def test_the_data_of_an_event_is_the_message_without_its_type():
    assert event_data(StepMessage(progress=0.5, n_images=3)) == {"progress": 0.5, "n_images": 3}


@pytest.mark.parametrize("line", [b'{"type": "result", "resu', b"", b"\n", b'{"type": "news", "of": 1}', b"\xff\xfe"])
def test_a_line_cut_short_and_an_unknown_type_are_no_message(line):
    assert decode(line) is None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"type": "phase", "phase": "x"}, "phase.progress: Field required"),
        ({"type": "phase", "phase": "x", "progress": 0, "name": "x"}, "phase.name: Unexpected keyword argument"),
        ({"type": "phase", "phase": "x", "progress": "0"}, "phase.progress: Input should be a valid number"),
        ({"type": "result", "result": {"kind": "images"}}, "IngestResult.n_images: Field required"),
        ({"phase": "x"}, "discriminator 'type'"),
        ([], "Input should be an object"),
    ],
)
def test_wrong_fields_are_refused_by_name(line, said):
    with pytest.raises(BadMessage, match=said):
        decode(json.dumps(line).encode())
