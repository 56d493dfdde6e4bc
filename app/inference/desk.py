"""Where requests for assignments wait their turn: so many at once, in so many threads, and not for too long."""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from numpy.typing import NDArray

from app.errors import Overloaded, TimedOut
from app.inference.batcher import Answer, Batcher, Pending
from app.inference.budget import PixelBudget
from app.inference.served import n_cores

Found = TypeVar("Found")

DESK_FULL = "the service has all it can do; try again soon"
RECENT = 0.02  # what one request weighs in the mean of late ones


class Desk:
    """What one process lets in. Its counters belong to the event loop's thread: no locks."""

    def __init__(self, *, max_images: int, max_bytes: int, deadline_s: float, pixels: PixelBudget) -> None:
        """`max_images`, `max_bytes`: of all requests between their first byte and their answer.

        A request that is still being read counts as many images as requests lately had: what could not be done is then
        refused before it is read. So many slow senders take half of the room at most.
        """
        self.pixels = pixels
        self.n_lanes = n_cores()
        self.threads = ThreadPoolExecutor(self.n_lanes + 1, thread_name_prefix="desk")
        self._max_images, self._max_bytes, self._deadline_s = max_images, max_bytes, deadline_s
        self._n_images = self._n_bytes = 0
        self._n_admitted = self._n_running = 0
        self._images_a_request = 1.0

    @property
    def n_images(self) -> int:
        """Images at work or waiting."""
        return self._n_images

    def has_room(self, n_bytes: int = 1) -> bool:
        """Whether a request with a body of so many bytes, or any, can be taken now; one alone always can."""
        to_be_read = (self._n_admitted - self._n_running + 1) * self._images_a_request
        n_images = self._n_images + min(to_be_read, self._max_images / 2)
        return not self._n_admitted or (n_images <= self._max_images and self._n_bytes + n_bytes <= self._max_bytes)

    @contextmanager
    def admit(self, n_bytes: int) -> Iterator[None]:
        """Hold room for a request with a body of so many bytes.

        Raises:
            Overloaded: there is none.
        """
        if not self.has_room(n_bytes):
            raise Overloaded(DESK_FULL)
        self._n_bytes += n_bytes
        self._n_admitted += 1
        try:
            yield
        finally:
            self._n_bytes -= n_bytes
            self._n_admitted -= 1

    async def run(
        self, batcher: Batcher, n_images: int, decode: Callable[[], NDArray[Any] | None], *, with_embedding: bool
    ) -> Answer | None:
        """Decode a request's images in a thread and give them to a batcher; None where `decode` found none to give.

        Raises:
            Overloaded: so many images wait that these would come too late. A request alone always has room.
            TimedOut: they did.
        """
        if self._n_images and self._n_images + n_images > self._max_images:
            raise Overloaded(DESK_FULL)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Answer | None] = loop.create_future()
        deadline = time.monotonic() + self._deadline_s

        def tell(answer: Answer | BaseException | None) -> None:
            with suppress(RuntimeError):  # the loop ended while the model ran: nobody waits
                loop.call_soon_threadsafe(_resolve, done, answer)

        def work() -> None:
            try:
                if done.cancelled():
                    return  # the caller has left
                if time.monotonic() > deadline:
                    raise TimedOut("the request waited too long for its turn")
                inputs = decode()
                if inputs is None:
                    tell(None)
                else:
                    batcher.put(Pending(inputs, deadline, tell, with_embedding=with_embedding))
            except BaseException as error:  # whoever waits must hear of it
                tell(error)

        self._images_a_request += (n_images - self._images_a_request) * RECENT
        self._n_images += n_images
        self._n_running += 1
        try:
            self.threads.submit(work)
            return await done
        finally:
            self._n_images -= n_images
            self._n_running -= 1

    async def aside(self, do: Callable[[], Found]) -> Found:
        """Run something slow in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, do)

    def close(self) -> None:
        """Let the threads end."""
        self.threads.shutdown(wait=False, cancel_futures=True)


def _resolve(done: "asyncio.Future[Answer | None]", answer: Answer | BaseException | None) -> None:
    if done.done():
        return
    if isinstance(answer, BaseException):
        done.set_exception(answer)
    else:
        done.set_result(answer)
