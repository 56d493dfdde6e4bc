"""A dataset as a model's input: decoded once into a memory map in the scratch folder, which may be larger than RAM."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.store.dataset_files import DatasetReader
from app.store.parquet import ParquetFiles
from app.store.tables import DatasetRow
from models import pixels
from models.configs import ClusteringConfig
from models.pixels import InputSpec
from workers.work import Span, Work

BLOCK = 256  # images decoded between two checks whether to stop


def choose_spec(dataset: DatasetRow, config: ClusteringConfig) -> InputSpec:
    """The input of a model trained on this dataset."""
    if dataset.kind == "vectors":
        return InputSpec("vectors", n_features=dataset.n_features or 0)
    side = pixels.choose_side(dataset.width, dataset.height, config.image_side)
    seen = dataset.facts.get("range") or asdict(pixels.PLAIN)
    return InputSpec("images", side=side, channels=dataset.channels or 3, **seen)


def reader(work: Work) -> DatasetReader:
    """The job's dataset."""
    dataset = work.dataset
    assert dataset.prefix is not None
    assert dataset.kind is not None
    return DatasetReader(ParquetFiles(work.blobs), dataset.prefix, dataset.kind, dataset.shards)


def load(work: Work, spec: InputSpec, span: Span) -> NDArray[Any]:
    """Every image as uint8 (N, C, S, S), or vector as float32 (N, D), in a memory map."""
    dtype = np.uint8 if spec.kind == "images" else np.float32
    shape = (work.dataset.n_images, *spec.shape)
    inputs = np.lib.format.open_memmap(work.scratch / "inputs.npy", mode="w+", dtype=dtype, shape=shape)
    done = 0
    for block in blocks(work, spec):
        inputs[done : done + len(block)] = block
        done += len(block)
        work.report.step(span.at(done / len(inputs)))
    return inputs


def blocks(work: Work, spec: InputSpec, start: int = 0, stop: int | None = None) -> Iterator[NDArray[Any]]:
    """Images `start`...`stop` - 1, or all, decoded in small blocks: -> uint8 (n, C, S, S), or float32 (n, D)."""
    for batch in reader(work).batches(["image" if spec.kind == "images" else "vector"], start, stop):
        column = batch.column(0)
        if spec.kind == "vectors":
            yield column.flatten().to_numpy().reshape(len(column), -1)
            continue
        files = column.field("bytes").to_pylist()
        for at in range(0, len(files), BLOCK):
            part = files[at : at + BLOCK]
            yield np.stack([pixels.decode(data, spec, pixels.STORED) for data in part])
