"""GPUs lent to runners, one training each. No GPU is needed to count them."""

import sys
import textwrap
from threading import Event

import pytest

from app.queue import GPU_QUEUE, TRAIN_QUEUE
from app.settings import Settings
from tests.factories import add_job, claim
from workers.devices import AllTaken, Devices
from workers.supervisor import Supervisor


def test_each_training_has_a_device_of_its_own_and_gives_it_back():
    devices = Devices(Settings(gpu_queue=True, gpus="0, 1"))

    with devices.lend(GPU_QUEUE) as first, devices.lend(GPU_QUEUE) as second:
        assert {first, second} == {"0", "1"}
        with pytest.raises(AllTaken), devices.lend(GPU_QUEUE):
            pass
    with devices.lend(GPU_QUEUE) as again:
        assert again in ("0", "1")


def test_a_training_that_fails_gives_its_device_back():
    devices = Devices(Settings(gpu_queue=True, gpus="GPU-5e1f"))

    with pytest.raises(RuntimeError), devices.lend(GPU_QUEUE):
        raise RuntimeError
    with devices.lend(GPU_QUEUE) as again:
        assert again == "GPU-5e1f"


def test_other_queues_see_no_gpu_where_there_are_workers_for_them(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")

    with Devices(Settings(gpu_queue=True)).lend(TRAIN_QUEUE) as hidden:
        assert hidden == ""
    with Devices(Settings(gpu_queue=True)).lend(GPU_QUEUE) as own:
        assert own == "3"
    with Devices(Settings()).lend(TRAIN_QUEUE) as untouched:
        assert untouched is None


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
@pytest.mark.parametrize(("device", "seen"), [("1", "1"), ("", ""), (None, "unset")])
def test_the_runner_sees_what_it_was_lent(settings, database, monkeypatch, device, seen):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    script = """
        import json, os
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "unset")
        print(json.dumps({"type": "error", "code": "told", "message": seen, "is_retryable": False}))
    """
    add_job(database)
    command = [sys.executable, "-c", textwrap.dedent(script)]

    outcome = Supervisor(settings, database, claim(database), Event(), command=command, device=device).run()

    assert outcome.error == {"code": "told", "message": seen}
