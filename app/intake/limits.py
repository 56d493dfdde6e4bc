"""How much an uploaded file may hold."""

from dataclasses import dataclass
from typing import Self

from app.errors import BadUpload
from app.settings import Settings
from models.pixels import IN_DATASETS, ImageLimits

RATIO_APPLIES_FROM = 32 << 20  # bytes; an entry below may be packed by any ratio, as blank pictures are
TOTAL_APPLIES_FROM, ARCHIVE_APPLIES_FROM = 256 << 20, 512 << 20  # as above, of a whole file, and of a zip or tar
BYTES_PER_ENTRY = 105  # of a zip's directory, which is read before any entry: 200 MB for two million


def too_many_entries() -> BadUpload:
    """The error for an archive that holds too many files."""
    return BadUpload("the archive has too many entries; split it", code="too_many_entries")


@dataclass(frozen=True)
class IntakeLimits:
    """For archives and arrays: entries, bytes of one, unpacked : packed of one and of all. For images: pixels."""

    max_entries: int = 2_000_000
    max_entry_bytes: int = 32 << 20
    max_entry_ratio: int = 200
    max_total_ratio: int = 10
    image: ImageLimits = IN_DATASETS

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The limits that the settings give."""
        return cls(
            max_entries=settings.max_archive_entries,
            max_entry_bytes=settings.max_image_bytes,
            max_entry_ratio=settings.max_entry_ratio,
            max_total_ratio=settings.max_unpacked_ratio,
            image=ImageLimits(settings.max_dataset_pixels, settings.max_image_side),
        )

    def is_bomb(self, packed: int, unpacked: int, *, applies_from: int = TOTAL_APPLIES_FROM) -> bool:
        """Whether a file of `packed` bytes unpacks to more than is allowed."""
        return unpacked > max(applies_from, self.max_total_ratio * packed)

    def refuse_bomb(self) -> BadUpload:
        """The error for such a file."""
        return BadUpload(
            f"it unpacks to more than {self.max_total_ratio} times its size", code="suspicious_compression"
        )

    def is_suspicious(self, packed: int, unpacked: int) -> bool:
        """As `is_bomb`, for one entry."""
        return unpacked > RATIO_APPLIES_FROM and unpacked > self.max_entry_ratio * max(1, packed)
