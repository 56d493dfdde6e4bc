"""The old place of `models.classical.voting`, for plug-ins; goes with the next release."""

import warnings

from models.classical.voting import VotedClusterer

__all__ = ["VotedClusterer"]

warnings.warn("import VotedClusterer from models.classical.voting", DeprecationWarning, stacklevel=2)
