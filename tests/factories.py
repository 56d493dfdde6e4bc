"""Small files, rows and job runs that many tests need."""

import io
import struct
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from threading import Event
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
from fastapi.testclient import TestClient
from onnx import TensorProto, helper
from PIL import Image

from app.main import create_app
from app.settings import Settings
from app.store import Database, claims, jobs, now
from app.store.blobs import Blobs
from app.store.claims import Outcome
from app.store.tables import DEFAULT_TENANT, AssignmentSetRow, ClusterRow, JobRow, ModelRow
from models.pixels import InputSpec
from tests import runners
from workers.supervisor import Supervisor, record

HERE = ("127.0.0.1", 50_000)
LIMITS = claims.ClaimLimits(lease_s=60, max_running_per_tenant=1000)


def client_of(settings: Settings, **more: Any) -> TestClient:
    """The API over a set-up, asked from this machine; to be entered."""
    app = create_app(settings)
    return TestClient(app, "http://127.0.0.1", raise_server_exceptions=False, client=HERE, **more)


def blobs_of_pixels(n: int, seed: int = 0, side: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Gray images of three well-separated kinds (dark, left half bright, all bright) and their kinds."""
    random = np.random.default_rng(seed)
    kinds = np.arange(n) % 3
    x = random.integers(0, 40, (n, side, side))
    x[kinds == 1, :, : side // 2] += 200
    x[kinds == 2] += 200
    return x.astype(np.uint8), kinds


def npz(n: int = 12, seed: int = 0, **arrays: np.ndarray) -> bytes:
    """An .npz of `blobs_of_pixels`, or of the given arrays."""
    if not arrays:
        x, y = blobs_of_pixels(n, seed)
        arrays = {"x": x, "y": y}
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def picture(array: np.ndarray | None = None, form: str = "PNG", **options: Any) -> bytes:
    """An image file; by default a small gray ramp."""
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8) if array is None else array
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, form, **options)
    return out.getvalue()


def cut_picture() -> bytes:
    """A PNG that ends in the middle of its pixels."""
    whole = picture(np.random.default_rng(0).integers(0, 255, (32, 32), np.uint8))
    return whole[: len(whole) // 2]


def zipped(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def tarred(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def idx(array: np.ndarray) -> bytes:
    """MNIST's format: magic, sides, bytes."""
    return (
        bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()
    )


def image_parquet(images: list[bytes], labels: list[int]) -> bytes:
    """The ecosystem's image convention."""
    rows = [{"image": {"bytes": data, "path": f"p{n}.png"}, "label": labels[n]} for n, data in enumerate(images)]
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


def add_job(database: Database, **values: Any) -> str:
    """Queue a bare job row; its id."""
    row = JobRow(**{"tenant_id": DEFAULT_TENANT, "kind": "ingest", "queue": "io", "dataset_id": "ds_x", **values})
    with database.write() as session:
        return jobs.add(session, row).id


def claim(database: Database, queue: str = "io", owner: str = "test") -> claims.Claim | None:
    with database.write() as session:
        return claims.claim_next(session, queue, owner, LIMITS)


def attempt(
    settings: Settings, database: Database, held: claims.Claim, command: Sequence[str] | None = None
) -> Outcome | None:
    """Supervise a runner that attempts a job: a forked one, or one that `command` starts."""
    return Supervisor(settings, database, held, Event(), command=command or runners.command()).run()


def run_jobs(settings: Settings, database: Database, command: Sequence[str] | None = None) -> int:
    """What a worker does, without Celery: claim, supervise a runner, record, until nothing is left."""
    n_run = 0
    while found := claim(database, "io") or claim(database, "train"):
        record(database, found, attempt(settings, database, found, command), settings)
        n_run += 1
    return n_run


def tiny_graph(*, has_distance: bool = True) -> bytes:
    """A model of two numbers and two clusters: probabilities are the numbers over their sum (a sum of 0 gives NaN),
    the distance is the larger number, the embedding both.
    """
    nodes = [
        helper.make_node("ReduceSum", ["inputs", "axes"], ["sum"], keepdims=1),
        helper.make_node("Div", ["inputs", "sum"], ["probabilities"]),
        helper.make_node("ReduceMax", ["inputs", "axes"], ["distance"], keepdims=0),
        helper.make_node("Identity", ["inputs"], ["embedding"]),
        helper.make_node("Greater", ["distance", "limit"], ["is_outlier"]),
    ]
    outputs = {"probabilities": (TensorProto.FLOAT, ["n", 2]), "is_outlier": (TensorProto.BOOL, ["n"])}
    if has_distance:
        outputs |= {"distance": (TensorProto.FLOAT, ["n"]), "embedding": (TensorProto.FLOAT, ["n", 2])}
    body = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("inputs", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in outputs.items()],
        [helper.make_tensor("axes", TensorProto.INT64, [1], [1]), helper.make_tensor("limit", 1, [], [2.5])],
    )
    opset = [helper.make_opsetid("", 18)]
    data: bytes = helper.make_model(body, opset_imports=opset, ir_version=10).SerializeToString()
    onnx.checker.check_model(data)
    return data


def add_model(database: Database, blobs: Blobs) -> str:
    """Publish `tiny_graph` as if a training had; its id."""
    prefix = "t/default/train/job_x/f1"
    blobs.put(f"{prefix}/model.onnx", tiny_graph())
    with database.write() as session:
        moment = now(session)
        shared = {"tenant_id": DEFAULT_TENANT, "job_id": "job_x", "dataset_id": "ds_x", "prefix": prefix}
        kept = {"created_at": moment, "scores": {}}
        session.add(AssignmentSetRow(id="aset_x", model_id="mdl_x", n_images=2, **shared, **kept))
        session.add(
            ModelRow(
                id="mdl_x", name="tiny", assignment_set_id="aset_x", method="kmeans", profile="paper", config={},
                seed=0, n_clusters=2, n_images=2, input_spec=asdict(InputSpec("vectors", n_features=2)), artifacts={},
                updated_at=moment, **shared, **kept,
            )
        )  # fmt: skip
        session.flush()
        for cluster in range(2):
            row = {"cluster": cluster, "size": 1, "first_row": cluster, "n_outliers": 0, "tenant_id": DEFAULT_TENANT}
            session.add(ClusterRow(assignment_set_id="aset_x", exemplars=[], least_certain=[], **row))
    return "mdl_x"
