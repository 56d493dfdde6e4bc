"""kill -9 at any moment, on both set-ups: the job ends without a person, with exactly one result, the right one."""

import random
import time

from tests.chaos.jobs import until_running
from tests.servers import wait_until
from tests.service import Service

LONGEST_S = {"ingest": 1.5, "train": 3.5, "assign": 2.0}  # about what each takes from its claim to its end


def test_a_job_survives(service, expected, kind, victims, moment):
    is_up_killed = len(victims) > 1 and isinstance(service, Service)
    job_id = expected.submit(service, kind)
    until_running(service, job_id)
    time.sleep(random.Random(f"{kind} {victims} {moment}").uniform(0, LONGEST_S[kind]))

    service.kill(*victims, *(["up"] if is_up_killed else []))
    if is_up_killed:
        service.start()

    wait_until(service.client.is_ready, 60, "the service")
    expected.check(service, kind, job_id)
