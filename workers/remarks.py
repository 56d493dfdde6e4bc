"""What to say of a training that succeeded, and may not be what its caller hopes for."""

from collections.abc import Sequence
from warnings import WarningMessage

from app.intake.notes import Note, note
from app.store.results import ClusterSummary
from app.store.tables import DatasetRow
from models.base import Clusterer

MOSTLY = 0.9  # share of a dataset's images


def of(
    dataset: DatasetRow, model: Clusterer, clusters: Sequence[ClusterSummary], caught: Sequence[WarningMessage]
) -> list[Note]:
    """Warnings of one training; `caught` are those of Python while it was fitted."""
    found = [note(code, text) for code, text in model.warnings]
    empty = [cluster.cluster for cluster in clusters if not cluster.size]
    if empty:
        text = f"{len(empty)} of {len(clusters)} clusters hold no image."
        found.append(note("empty_clusters", text, len(empty), map(str, empty)))
    n_flat = dataset.facts.get("n_one_colour", 0)
    if n_flat >= MOSTLY * dataset.n_images:
        text = f"{n_flat} of {dataset.n_images} images show one colour: there is hardly anything to tell them apart by."
        found.append(note("one_colour", text, n_flat))
    told = {str(one.message) for one in caught if one.category.__name__ == "ConvergenceWarning"}
    return found + [note("convergence", text.split(". ")[0][:300] + ".") for text in sorted(told)]
