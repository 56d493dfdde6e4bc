"""What can go wrong in the library. Every error has a stable `code`, which a job records and shows."""


class ClusteringError(Exception):
    """Base of all library errors; `code` is stable, the message is for people."""

    code = "clustering_failed"


class BadImages(ClusteringError):
    """The data cannot be clustered as asked: wrong shape, not finite, too few images."""

    code = "bad_images"


class TooFewDistinctImages(ClusteringError):
    """Fewer inputs differ from each other than there are to be clusters."""

    code = "too_few_distinct_images"

    def __init__(self, n_distinct: int, n_clusters: int, kind: str = "images") -> None:
        super().__init__(f"only {n_distinct} distinct {kind} cannot form {n_clusters} clusters")


class UnknownTargets(ClusteringError):
    """Known targets were given to a method that takes none, for images there are not, or more kinds than clusters.

    `reason` is stable and says which: `known_not_supported` or `known_out_of_range`.
    """

    code = "known_not_usable"

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Diverged(ClusteringError):
    """The loss stopped being finite twice, the second time at a lower rate."""

    code = "diverged"


class Collapsed(ClusteringError):
    """Clusters died out and could not be revived; the message carries the sizes."""

    code = "collapsed"


class OutOfMemory(ClusteringError):
    """The device or the process ran out of memory."""

    code = "out_of_memory"


class Cancelled(ClusteringError):
    """`on_step` asked to stop; the last checkpoint is complete."""

    code = "cancelled"


class BadCheckpoint(ClusteringError):
    """A checkpoint or model folder is incomplete, altered, or from another method."""

    code = "bad_checkpoint"


class ExportMismatch(ClusteringError):
    """The exported graph does not agree with the fitted model."""

    code = "export_mismatch"
