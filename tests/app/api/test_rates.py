"""How often a key may ask, over replicas, and while Valkey is away."""

import signal

import pytest

from app.services import keys
from tests.factories import client_of, npy
from tests.servers import Valkey


@pytest.fixture
def keyed(embedded_settings):
    return embedded_settings.model_copy(
        update={"require_keys": True, "max_requests_per_minute": 5, "max_new_jobs_per_minute": 2}
    )


def key_for(client, settings, scopes=("read", "write", "train")):
    with client.app.state.service.database.write() as session:
        key, _ = keys.create(session, keys.secret_of(settings), tenant_id="t", name="", scopes=list(scopes))
    return {"Authorization": f"Bearer {key}"}


def test_a_key_may_ask_so_often_a_minute_of_all_replicas_together(keyed):
    with client_of(keyed) as one, client_of(keyed) as other:
        mine = key_for(one, keyed)

        answers = [client.get("/v1/jobs", headers=mine) for client in (one, other, one, other, one, other)]
        another_key = one.get("/v1/jobs", headers=key_for(one, keyed))

    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert [answer.headers["RateLimit"].split(";")[1] for answer in answers] == [
        "r=4",
        "r=3",
        "r=2",
        "r=1",
        "r=0",
        "r=0",
    ]
    assert answers[0].headers["RateLimit-Policy"] == '"requests";q=5;w=60'
    assert answers[5].json()["code"] == "rate_limited"
    assert 1 <= int(answers[5].headers["Retry-After"]) <= 60
    assert another_key.status_code == 200


def test_new_jobs_are_counted_on_their_own(keyed):
    with client_of(keyed) as client:
        mine = key_for(client, keyed)

        answers = [client.post("/v1/datasets", content=npy([[0.0, 1.0]] * 4), headers=mine) for _ in range(3)]
        reading = client.get("/v1/jobs", headers=mine)

    assert [answer.status_code for answer in answers] == [201, 201, 429]
    assert '"new_jobs";r=0' in answers[2].headers["RateLimit"]
    assert len(reading.json()["items"]) == 2  # nothing stays of what was refused


def test_while_valkey_is_away_each_process_counts_by_itself_and_nobody_waits(keyed):
    with Valkey() as server, client_of(keyed.model_copy(update={"broker_url": server.url})) as client:
        mine = key_for(client, keyed)
        assert client.get("/v1/jobs", headers=mine).status_code == 200
        server.stop(signal.SIGKILL)

        answers = [client.get("/v1/jobs", headers=mine) for _ in range(6)]

    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert sum(answer.elapsed.total_seconds() for answer in answers) < 3
