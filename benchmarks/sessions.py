"""Which options of an ONNX Runtime session are fastest for a model of ours: chunk, threads, optimisation, number type.

Every variant runs the same images in turn, in rounds, in one process; the first is what the service has. Lower
precision only counts where it assigns alike.
"""

import itertools
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
import onnxruntime as ort
import typer
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quantize_dynamic

LEVELS = {
    "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


@dataclass(frozen=True)
class Variant:
    """A session and how many images it is given at a time."""

    name: str
    session: ort.InferenceSession
    chunk: int

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Clusters of images (N, C, S, S)."""
        found = [
            self.session.run(["probabilities"], {self.session.get_inputs()[0].name: images[at : at + self.chunk]})[0]
            for at in range(0, len(images), self.chunk)
        ]
        clusters: NDArray[np.int64] = np.concatenate(found).argmax(axis=1)
        return clusters


def main(
    graph: Annotated[Path, typer.Argument(help="a `model.onnx` of images")],
    images: Annotated[Path, typer.Argument(help="an `.npz` with `x`, uint8 (N, H, W) of the model's own side")],
    n: Annotated[int, typer.Option(min=64)] = 4096,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
) -> None:
    """Print images a second of every variant, and its agreement with the service's session."""
    x = np.load(images)["x"][:n]
    x = x[:, None] if x.ndim == 3 else np.moveaxis(x, -1, 1)
    with tempfile.TemporaryDirectory() as folder:
        variants = list(_variants(graph, Path(folder)))
        for name, figures in measure(variants, x, rounds).items():
            print(f"{name:>44}  {figures}", flush=True)


def measure(variants: list[Variant], x: NDArray[np.uint8], rounds: int) -> dict[str, dict[str, Any]]:
    """Images a second (median) and the share of images assigned as by the first variant."""
    first = variants[0].run(x)
    agreement = {variant.name: float((variant.run(x) == first).mean()) for variant in variants}
    times: dict[str, list[float]] = {variant.name: [] for variant in variants}
    for _, variant in itertools.product(range(rounds), variants):
        begun = time.perf_counter()
        variant.run(x)
        times[variant.name].append(time.perf_counter() - begun)
    return {
        name: {"images/s": round(len(x) / statistics.median(of)), "agreement": round(agreement[name], 4)}
        for name, of in times.items()
    }


def _variants(graph: Path, folder: Path) -> "list[Variant]":
    chunks = [Variant(f"chunks of {chunk}", _session(graph), chunk) for chunk in (64, 1, 8, 16, 32, 128, 256, 1024)]
    levels = [Variant(f"optimisation {name}", _session(graph, level=level), 64) for name, level in LEVELS.items()]
    threads = [Variant(f"{count} threads", _session(graph, threads=count), 64) for count in (2,)]
    plain = [
        Variant("no memory arena", _session(graph, enable_cpu_mem_arena=False), 64),
        Variant("no memory pattern", _session(graph, enable_mem_pattern=False), 64),
        Variant("spinning", _session(graph, threads=2, spins=True), 64),
    ]
    int8 = folder / "int8.onnx"
    model = onnx.load(graph)
    del model.serving_graph.value_info[
        :
    ]  # shapes of results in between, which the quantiser infers anew, and differently
    quantize_dynamic(model, int8, weight_type=QuantType.QUInt8)
    return [*chunks, *levels, *threads, *plain, Variant("int8 weights, dynamic", _session(int8), 64)]


def _session(
    graph: Path, level: Any = LEVELS["all"], threads: int = 1, *, spins: bool = False, **more: bool
) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spins else "0")
    for name, value in more.items():
        setattr(options, name, value)
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
