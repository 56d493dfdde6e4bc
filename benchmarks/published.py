"""Rows and files as ingest and training leave them, made directly: what the speed benchmarks work on."""

import io
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from app.store import Database, now
from app.store.blobs import Blobs
from app.store.dataset_files import IMAGE_SCHEMA, DatasetWriter, vector_schema, write_rejects
from app.store.model_files import CALIBRATION_NAME
from app.store.tables import DEFAULT_TENANT, AssignmentSetRow, ClusterRow, DatasetRow, ModelRow
from models.pixels import InputSpec
from models.worth.calibration import N_KNOTS, Calibration

BLOCK = 16_384


def model(database: Database, blobs: Blobs, graph: bytes, spec: InputSpec, k: int, name: str = "bench") -> str:
    """A model with these K clusters; its id."""
    prefix = f"t/{DEFAULT_TENANT}/train/job_{name}/f1"
    model_id, set_id = f"mdl_{name}", f"aset_{name}"
    knots = np.sort(np.random.default_rng(0).random((k, N_KNOTS), np.float32) * 100, axis=1)
    blobs.put(f"{prefix}/model.onnx", graph)
    blobs.put(f"{prefix}/{CALIBRATION_NAME}", Calibration(knots, 0.9, 0.1).to_bytes())
    with database.write() as session:
        shared = {"tenant_id": DEFAULT_TENANT, "job_id": f"job_{name}", "dataset_id": "ds_bench", "prefix": prefix}
        kept: dict[str, Any] = {"created_at": now(session), "scores": {}}
        session.add(AssignmentSetRow(id=set_id, model_id=model_id, n_images=k, **shared, **kept))
        facts: dict[str, Any] = {"config": {}, "artifacts": {CALIBRATION_NAME: {}}, "input_spec": asdict(spec)}
        session.add(
            ModelRow(
                id=model_id, name=name, assignment_set_id=set_id, method="depict", profile="fast", seed=0,
                n_clusters=k, n_images=k, updated_at=kept["created_at"], **facts, **shared, **kept,
            )
        )  # fmt: skip
        session.flush()
        for cluster in range(k):
            row = {"cluster": cluster, "size": 1, "first_row": cluster, "n_outliers": 0, "tenant_id": DEFAULT_TENANT}
            session.add(ClusterRow(assignment_set_id=set_id, exemplars=[], least_certain=[], **row))
    return model_id


def images(database: Database, blobs: Blobs, pictures: list[bytes], n: int, side: int) -> str:
    """A dataset of `n` images, these files over and over; its id."""
    prefix = f"t/{DEFAULT_TENANT}/ingest/job_images_{n}/f1"
    with DatasetWriter(blobs, prefix, IMAGE_SCHEMA, "images") as writer:
        for index in range(n):
            data, name = pictures[index % len(pictures)], f"{index:08d}.png"
            row = {"image": {"bytes": data, "path": name}, "label": None, "name": name, "sha256": bytes(32)}
            writer.append({**row, "width": side, "height": side}, len(data) + 128)
    facts = {"kind": "images", "width": side, "height": side, "channels": 1}
    return _dataset(database, blobs, prefix, n, {**facts, "shards": writer.shards, "n_bytes": writer.n_bytes})


def vectors(database: Database, blobs: Blobs, blocks: Iterable[np.ndarray], n: int, n_features: int) -> str:
    """A dataset of `n` vectors that come in blocks (m, D); its id."""
    prefix, schema = f"t/{DEFAULT_TENANT}/ingest/job_vectors_{n}/f1", vector_schema(n_features)
    done = 0
    with DatasetWriter(blobs, prefix, schema, "vectors") as writer:
        for block in blocks:
            names = [f"{done + row:08d}" for row in range(len(block))]
            flat = pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), n_features)
            writer.append_table(pa.table([flat, pa.nulls(len(block), pa.int64()), names], schema=schema))
            done += len(block)
    facts = {"kind": "vectors", "n_features": n_features, "shards": writer.shards, "n_bytes": writer.n_bytes}
    return _dataset(database, blobs, prefix, n, facts)


def draw_pictures(n: int, side: int) -> list[bytes]:
    """PNGs with the contrast of digits: bright patches on black."""
    rng = np.random.default_rng(0)
    files = []
    for _ in range(n):
        image = np.zeros((side, side), np.uint8)
        for x, y in rng.integers(4, side - 8, (6, 2)):
            image[y : y + 5, x : x + 4] = rng.integers(80, 255, (5, 4))
        out = io.BytesIO()
        Image.fromarray(image).save(out, "PNG")
        files.append(out.getvalue())
    return files


def _dataset(database: Database, blobs: Blobs, prefix: str, n: int, facts: dict[str, Any]) -> str:
    write_rejects(blobs, prefix, [])
    dataset_id = f"ds_{facts['kind']}_{n}"
    with database.write() as session:
        moment = now(session)
        session.add(
            DatasetRow(
                id=dataset_id, tenant_id=DEFAULT_TENANT, name="bench", state="ready", job_id=prefix.split("/")[3],
                prefix=prefix, n_images=n, target_names=[], created_at=moment, updated_at=moment, **facts,
            )
        )  # fmt: skip
    return dataset_id
