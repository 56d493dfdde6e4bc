"""Object storage: one small module over obstore, a local folder or S3, and the rule for keys.

Only put, put-if-absent, ranged get, stream, list and delete are used: the local store lacks the rest.
Every key is `t/{tenant}/{kind}/{id}/f{fence}/...`; a row names the prefix that is published.
"""

import bisect
import contextlib
import errno
import io
import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import timedelta
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, GenericError, PermissionDeniedError, UnauthenticatedError
from obstore.store import LocalStore, ObjectStore, S3Store
from typing_extensions import Buffer

from app import metrics
from app.log import get_logger
from app.settings import Settings

if TYPE_CHECKING:
    from obstore.store import RetryConfig

READ_AHEAD = 64 << 10
PART_BYTES = 5 << 20  # the least that S3 takes; three of them are held while a stream is written
MAX_PARTS = 10_000  # that S3 takes of one object
PIECE_BYTES = 8 << 20
# Retried for as long as a request may wait; what lasts longer is the caller's to repeat.
RETRIES: "RetryConfig" = {"max_retries": 4, "retry_timeout": timedelta(seconds=20)}

log = get_logger()


class BlobExists(Exception):
    """Put-if-absent met an existing key."""


class StorageUnavailable(Exception):
    """Object storage did not answer, or not as it should: the same may succeed later."""


_OUTAGES = (GenericError, PermissionDeniedError, UnauthenticatedError)


@contextlib.contextmanager
def _asking(operation: str) -> Iterator[None]:
    """Time one operation, and tell an outage from a missing object."""
    try:
        with metrics.timed("storage", operation):
            yield
    except _OUTAGES as error:
        raise _told(operation, error) from error


def _told(operation: str, error: Exception) -> StorageUnavailable:
    metrics.STORAGE_ERRORS.labels(operation).inc()
    log.warning("storage_unavailable", operation=operation, error=type(error).__name__)
    return StorageUnavailable(operation)


def prefix(tenant_id: str, kind: str, owner_id: str, fence: int = 0) -> str:
    """Where one attempt at one thing writes: `t/default/train/job_…/f3`."""
    return f"t/{tenant_id}/{kind}/{owner_id}/f{fence}"


class Blobs:
    """One bucket or folder."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def put(self, key: str, data: bytes | IO[bytes] | Iterator[bytes]) -> None:
        """Write a whole object, of moderate size; nothing is seen until it is complete.

        Raises:
            BlobExists: the key is taken.
        """
        try:
            with _asking("put"):
                obstore.put(self._store, key, data, mode="create")
        except AlreadyExistsError as error:
            raise BlobExists(key) from error

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes], at_most: int) -> None:
        """Write an asynchronous stream of `at_most` bytes in parts, at constant memory, to a key nobody else can have.

        Put-if-absent would gather the whole object first, which a large upload must not; so this is for
        keys under an id just made.
        """
        part_bytes = max(PART_BYTES, -(-at_most // MAX_PARTS))
        try:
            await obstore.put_async(
                self._store, key, chunks, use_multipart=True, chunk_size=part_bytes, max_concurrency=2
            )
        except (*_OUTAGES, FileNotFoundError) as error:  # the latter: an upload in parts that was completed, unheard
            raise _told("put_stream", error) from error

    def get(self, key: str) -> bytes:
        """A whole object.

        Raises:
            FileNotFoundError: there is none.
        """
        with _asking("get"):
            return bytes(obstore.get(self._store, key).bytes())

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """`length` bytes from `start`."""
        with _asking("get_range"):
            return bytes(obstore.get_range(self._store, key, start=start, length=length))

    def stream(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """An object's bytes from `start` to `end` (exclusive), piece by piece."""
        # A request for each piece: one for all would run into the storage client's time-out on a slow reader.
        end = self.size(key) if end is None else end
        for at in range(start, end, PIECE_BYTES):
            yield self.get_range(key, at, min(PIECE_BYTES, end - at))

    def size(self, key: str) -> int:
        """Bytes of an object.

        Raises:
            FileNotFoundError: there is none.
        """
        with _asking("head"):
            return obstore.head(self._store, key)["size"]

    def open(self, key: str) -> IO[bytes]:
        """A seekable, buffered reader with ranged reads behind it.

        Raises:
            FileNotFoundError: there is no such object.
        """
        return self.open_joined([(key, self.size(key))])

    def open_joined(self, keys: Sequence[tuple[str, int]]) -> IO[bytes]:
        """Several objects, with their sizes, as one seekable file."""
        return io.BufferedReader(_RangedFile(self, keys), READ_AHEAD)

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects; nothing happens where there is none."""
        for key in keys:
            with contextlib.suppress(FileNotFoundError), _asking("delete"):
                obstore.delete(self._store, key)

    def keys(self, under: str) -> Iterator[str]:
        """Keys under a prefix."""
        pages = iter(obstore.list(self._store, under))
        while True:
            with _asking("list"):
                page = next(pages, None)
            if page is None:
                return
            for entry in page:
                yield entry["path"]

    def folders(self, under: str) -> list[str]:
        """The next path element below a prefix, as whole prefixes."""
        with _asking("list"):
            return list(obstore.list_with_delimiter(self._store, under)["common_prefixes"])

    def delete_prefix(self, under: str) -> int:
        """Remove every object under a prefix; how many there were."""
        keys = list(self.keys(under))
        for start in range(0, len(keys), 1000):
            with _asking("delete"):
                obstore.delete(self._store, keys[start : start + 1000])
        return len(keys)


class _RangedFile(io.RawIOBase):
    """Objects, one after the other, as a read-only file."""

    def __init__(self, blobs: Blobs, keys: Sequence[tuple[str, int]]) -> None:
        self._blobs = blobs
        self._keys = [key for key, _ in keys]
        self._ends = list(itertools.accumulate(size for _, size in keys))
        self._size = self._ends[-1] if keys else 0
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise OSError(errno.EINVAL, "before the beginning")  # as a real file does; zipfile relies on it
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer)
        number = bisect.bisect_right(self._ends, self._at)
        if number == len(self._ends) or not len(view):
            return 0
        start = self._at - (self._ends[number - 1] if number else 0)
        length = min(len(view), self._ends[number] - self._at)
        view[:length] = self._blobs.get_range(self._keys[number], start, length)
        self._at += length
        return length


def connect(settings: Settings) -> Blobs:
    """The storage the settings name."""
    url = urlsplit(settings.resolved_storage_url)
    if url.scheme == "file":
        return Blobs(LocalStore(prefix=url.path, mkdir=True, automatic_cleanup=True))
    given = {
        "prefix": url.path.strip("/"),
        "endpoint": settings.s3_endpoint,
        "access_key_id": settings.s3_access_key,  # without keys the machine's own role is asked
        "secret_access_key": settings.s3_secret_key.get_secret_value(),
    }
    store = S3Store(
        url.netloc,
        region=settings.s3_region,
        **{name: value for name, value in given.items() if value},  # type: ignore[arg-type]
        client_options={
            "allow_http": settings.s3_endpoint.startswith("http://"),
            "connect_timeout": "5s",
            "timeout": "60s",
        },
        retry_config=RETRIES,
    )
    return Blobs(store)
