"""Which requests the desk takes in."""

import asyncio
import contextlib
import threading

import pytest

from app.errors import Overloaded
from app.inference.budget import PixelBudget
from app.inference.desk import Desk


def run(desk: Desk, n: int, until: threading.Event | None = None):
    """A request of `n` images that a thread of the desk is at until it is told; without one it ends at once."""

    def decode() -> None:
        if until is not None:
            until.wait(60)

    return desk.run(None, n, decode, with_embedding=False)


@pytest.fixture
def desk():
    desk = Desk(max_images=100, max_bytes=1_000, deadline_s=10, pixels=PixelBudget(1))
    yield desk
    desk.close()


def test_a_request_still_being_read_counts_as_many_images_as_late_ones_had(desk):
    """Room for 100; 60 at work and requests of 20 lately: two more may come in, though nobody knows their images."""

    async def scene() -> int:
        for _ in range(400):
            await run(desk, 20)
        told, n_more = threading.Event(), 0
        with contextlib.ExitStack() as read:
            for _ in range(3):
                read.enter_context(desk.admit(1))
            at_work = [asyncio.create_task(run(desk, 20, told)) for _ in range(3)]
            await asyncio.sleep(0)
            with contextlib.suppress(Overloaded):
                while n_more < 10:
                    read.enter_context(desk.admit(1))
                    n_more += 1
            told.set()
            await asyncio.gather(*at_work)
        return n_more

    assert asyncio.run(scene()) == 2
    assert desk.n_images == 0


def test_slow_senders_alone_do_not_close_the_desk(desk):
    """200 bodies that never end, after requests of 20 images: others still come in."""

    async def scene() -> None:
        for _ in range(400):
            await run(desk, 20)
        with contextlib.ExitStack() as read:
            for _ in range(201):
                read.enter_context(desk.admit(1))
            await run(desk, 20)

    asyncio.run(scene())


def test_one_request_alone_is_always_taken(desk):
    with desk.admit(10_000):
        assert not desk.has_room(1)
