"""Uploads in numbered parts, on both set-ups."""

import hashlib

import pytest

from tests.factories import client_of, npz, picture

DATA = npz(60)
PIECES = [DATA[start : start + 1500] for start in range(0, len(DATA), 1500)]


def begin(client, **facts) -> str:
    return client.post("/v1/uploads", json={"filename": "set.npz", **facts}).json()["id"]


def put(client, upload: str, number: int, data: bytes, **headers):
    return client.put(f"/v1/uploads/{upload}/parts/{number}", content=data, headers=headers)


def send_all(client, upload: str) -> None:
    for number, piece in enumerate(PIECES, 1):
        assert put(client, upload, number, piece).status_code == 200


def code(response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def test_parts_in_any_order_and_twice_become_a_dataset(client, work, blobs):
    upload = begin(client, n_bytes=len(DATA), sha256=hashlib.sha256(DATA).hexdigest())
    assert len(PIECES) > 2
    put(client, upload, 2, b"a first try that was cut")
    for number in reversed(range(1, len(PIECES) + 1)):
        piece = PIECES[number - 1]
        answer = put(client, upload, number, piece, **{"Content-Sha256": hashlib.sha256(piece).hexdigest()})
        assert answer.json() == {"number": number, "n_bytes": len(piece), "sha256": hashlib.sha256(piece).hexdigest()}
    assert len(list(blobs.keys("t/"))) == len(PIECES)  # the first try is gone

    assert client.post(f"/v1/uploads/{upload}/complete").json()["n_bytes"] == len(DATA)
    created = client.post("/v1/datasets", json={"upload_id": upload}, params={"name": "parts"})
    work()

    assert created.status_code == 201
    dataset = client.get(created.headers["location"]).json()
    assert (dataset["state"], dataset["n_images"], dataset["name"]) == ("ready", 60, "parts")
    assert code(client.get(f"/v1/uploads/{upload}")) == (404, "upload_not_found")


def test_what_has_arrived_is_shown_and_what_is_missing_named(client):
    upload = begin(client)
    put(client, upload, 1, PIECES[0])
    put(client, upload, 3, PIECES[2])

    shown = client.get(f"/v1/uploads/{upload}").json()
    closed = client.post(f"/v1/uploads/{upload}/complete")

    assert [part["number"] for part in shown["parts"]] == [1, 3]
    assert shown["state"] == "receiving"
    assert code(closed) == (409, "parts_missing")
    assert "[2]" in closed.json()["detail"]


@pytest.mark.parametrize("n_bytes", [True, "5", 0, 1.5])
def test_a_size_that_is_no_count_is_refused(client, n_bytes):
    assert code(client.post("/v1/uploads", json={"n_bytes": n_bytes})) == (422, "validation_failed")


def test_an_upload_without_parts_cannot_be_completed(client):
    assert code(client.post(f"/v1/uploads/{begin(client)}/complete")) == (409, "parts_missing")


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_wrong_sums_are_refused(client, work):
    upload = begin(client, n_bytes=len(DATA) + 1)
    wrong = put(client, upload, 1, PIECES[0], **{"Content-Sha256": "0" * 64})
    assert code(wrong) == (422, "checksum_mismatch")
    assert client.get(f"/v1/uploads/{upload}").json()["parts"] == []
    send_all(client, upload)
    assert code(client.post(f"/v1/uploads/{upload}/complete")) == (409, "size_mismatch")

    whole = begin(client, sha256="0" * 64)
    send_all(client, whole)
    client.post(f"/v1/uploads/{whole}/complete")
    created = client.post("/v1/datasets", json={"upload_id": whole})
    work()

    assert client.get(created.headers["location"]).json()["error"]["code"] == "checksum_mismatch"


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_an_upload_is_used_once_and_only_when_complete(client):
    upload = begin(client)
    send_all(client, upload)

    early = client.post("/v1/datasets", json={"upload_id": upload})
    client.post(f"/v1/uploads/{upload}/complete")
    first = client.post("/v1/datasets", json={"upload_id": upload})
    second = client.post("/v1/datasets", json={"upload_id": upload})

    assert code(early) == (409, "upload_not_complete")
    assert first.status_code == 201
    assert code(second) == (409, "upload_used")
    assert code(put(client, upload, 1, b"late")) == (409, "wrong_state")
    assert code(client.delete(f"/v1/uploads/{upload}")) == (409, "in_use")


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_a_bad_file_in_parts_is_refused_but_kept_for_its_owner(client):
    upload = begin(client)
    put(client, upload, 1, b"no dataset")
    client.post(f"/v1/uploads/{upload}/complete")

    refused = client.post("/v1/datasets", json={"upload_id": upload})

    assert code(refused) == (415, "unsupported_format")
    assert client.get(f"/v1/uploads/{upload}").json()["state"] == "complete"


def test_a_given_up_upload_leaves_nothing(client, blobs):
    upload = begin(client)
    send_all(client, upload)

    assert client.delete(f"/v1/uploads/{upload}").status_code == 202

    assert list(blobs.keys("t/")) == []
    assert code(client.get(f"/v1/uploads/{upload}")) == (404, "upload_not_found")


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_one_image_in_parts_becomes_a_dataset_under_its_files_name(client, work):
    upload = client.post("/v1/uploads", json={"filename": "holidays/beach.png"}).json()["id"]
    data = picture()
    put(client, upload, 1, data[:50])
    put(client, upload, 2, data[50:])
    client.post(f"/v1/uploads/{upload}/complete")

    created = client.post("/v1/datasets", json={"upload_id": upload})
    work()

    items = client.get(f"{created.headers['location']}/images").json()["items"]
    assert [item["name"] for item in items] == ["beach.png"]


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
@pytest.mark.parametrize("number", [0, 10_001, "x"])
def test_part_numbers_have_bounds(client, number):
    assert put(client, begin(client), number, b"1").status_code == 422


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_the_parts_of_an_upload_share_its_limit(settings, blobs):
    limited = settings.model_copy(update={"max_upload_bytes": 1000})
    with client_of(limited) as client:
        upload = begin(client)
        assert put(client, upload, 1, bytes(600)).status_code == 200
        over = put(client, upload, 2, bytes(401))
        assert put(client, upload, 2, bytes(400)).status_code == 200
        again = put(client, upload, 1, bytes(600))
        announced = client.post("/v1/uploads", json={"n_bytes": 1001})
        shown = client.get(f"/v1/uploads/{upload}").json()

    assert code(over) == (413, "too_large")
    assert again.status_code == 200
    assert code(announced) == (413, "too_large")
    assert shown["n_bytes"] == 1000
    assert len(list(blobs.keys("t/"))) == 2  # nothing is left of what was too much


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_one_idempotency_key_begins_one_upload(client):
    answers = [client.post("/v1/uploads", json={}, headers={"Idempotency-Key": "u"}).json()["id"] for _ in range(2)]

    assert answers[0] == answers[1]
