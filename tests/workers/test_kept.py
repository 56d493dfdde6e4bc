"""Checkpoints of a job: what another attempt goes on from, and what it does not."""

from types import SimpleNamespace

import pytest
import torch

from app.store.blobs import connect
from models.training.trainer import origin_of
from workers.kept import JobCheckpoints


@pytest.mark.parametrize(("change", "is_skipped"), [({}, False), ({"start": -1}, True), ({"device": "cuda"}, True)])
def test_checkpoints_of_another_start_or_device_are_skipped_with_the_curve_they_carry(
    embedded_settings, tmp_path, change, is_skipped
):
    told = []
    job = SimpleNamespace(id="job_x", tenant_id="default", fence=1, checkpoint=None)
    report = SimpleNamespace(checkpoint=lambda key, _: told.append(key))
    work = SimpleNamespace(job=job, blobs=connect(embedded_settings), report=report, scratch=tmp_path)
    first = JobCheckpoints(work, "cpu", lambda: {"epochs": ["one"]})
    first.save("fit-00001", {"w": torch.ones(2)}, {"phase": "fit", **origin_of("cpu"), **change})
    job.checkpoint = told[0]

    again = JobCheckpoints(work, "cpu", dict)

    assert again.are_skipped == is_skipped
    assert again.resumed_extra == ({} if is_skipped else {"epochs": ["one"]})
    assert (again.latest("fit") is None) == is_skipped
