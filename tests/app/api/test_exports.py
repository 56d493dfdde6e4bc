"""Assignments in every form, files by range, events as a stream: each read back by another tool."""

import csv
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest


@pytest.fixture
def found(trained):
    """The client, the set's address, and its rows as JSON pages say."""
    client, _, model = trained
    address = f"/v1/assignment-sets/{client.get(f'/v1/models/{model}').json()['assignment_set_id']}/assignments"
    rows, cursor = [], None
    while True:
        page = client.get(address, params={"limit": 5} | ({"cursor": cursor} if cursor else {})).json()
        rows += page["items"]
        if (cursor := page["next_cursor"]) is None:
            return client, address, rows


def test_csv_names_every_image(found):
    client, address, rows = found

    text = client.get(address, headers={"Accept": "text/csv"}).text

    lines = list(csv.DictReader(io.StringIO(text)))
    assert [line["name"] for line in lines] == [f"{n:08d}" for n in range(18)]
    assert [int(line["cluster"]) for line in lines] == [row["cluster"] for row in rows]


def test_json_lines_arrow_and_parquet_say_the_same(found):
    client, address, rows = found
    lines = client.get(address, headers={"Accept": "application/x-ndjson"}).text.splitlines()
    arrow = client.get(address, headers={"Accept": "application/vnd.apache.arrow.stream"}).content
    parquet = client.get(address, headers={"Accept": "application/vnd.apache.parquet"}).content

    assert [{k: v for k, v in json.loads(line).items() if k != "name"} for line in lines] == rows
    assert pa.ipc.open_stream(arrow).read_all().drop_columns("name").to_pylist() == rows
    assert pq.read_table(io.BytesIO(parquet)).to_pylist() == rows


def test_filters_hold_in_every_form(found):
    client, address, rows = found
    limit = float(np.median([row["confidence"] for row in rows]))
    for cluster in (None, 1):
        params = {"min_confidence": limit} | ({} if cluster is None else {"cluster": cluster})
        expected = {row["index"] for row in rows if row["confidence"] >= limit and cluster in (None, row["cluster"])}
        page = client.get(address, params={**params, "limit": 1000}).json()["items"]
        lines = client.get(address, params=params, headers={"Accept": "application/x-ndjson"}).text.splitlines()

        assert {row["index"] for row in page} == expected
        assert {json.loads(line)["index"] for line in lines} == expected
        assert 0 < len(expected) < 18


def test_filtered_pages_walk_every_row_once(found):
    client, address, rows = found
    limit = sorted(row["confidence"] for row in rows)[3]
    seen, cursor = [], None
    while True:
        params = {"limit": 2, "min_confidence": limit} | ({"cursor": cursor} if cursor else {})
        page = client.get(address, params=params).json()
        seen += [row["index"] for row in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break

    assert seen == [row["index"] for row in rows if row["confidence"] >= limit]


def test_a_form_there_is_not_is_not_acceptable(found):
    client, address, _ = found

    refused = client.get(address, headers={"Accept": "application/pdf"})
    filtered = client.get(address, params={"cluster": 1}, headers={"Accept": "application/vnd.apache.parquet"})

    assert (refused.status_code, refused.json()["code"]) == (406, "not_acceptable")
    assert filtered.status_code == 406


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes=0-9", slice(0, 10)),
        ("bytes=10-", slice(10, None)),
        ("bytes=-7", slice(-7, None)),
        ("bytes=5-5", slice(5, 6)),
    ],
)
def test_files_come_in_ranges(found, header, part):
    client, address, _ = found
    accept = {"Accept": "application/vnd.apache.parquet"}
    whole = client.get(address, headers=accept)

    got = client.get(address, headers={**accept, "Range": header})
    stale = client.get(address, headers={**accept, "Range": header, "If-Range": '"old"'})

    assert (got.status_code, got.content) == (206, whole.content[part])
    assert got.headers["content-range"].endswith(f"/{len(whole.content)}")
    assert (stale.status_code, stale.content) == (200, whole.content)


def test_what_is_known_is_not_sent_again_and_what_is_past_the_end_refused(found):
    client, address, _ = found
    accept = {"Accept": "application/vnd.apache.parquet"}
    etag = client.get(address, headers=accept).headers["etag"]

    assert client.get(address, headers={**accept, "If-None-Match": etag}).status_code == 304
    past = client.get(address, headers={**accept, "Range": "bytes=99999999-"})
    assert (past.status_code, past.json()["code"]) == (416, "range_not_satisfiable")


def parse(text: str) -> list[dict[str, str]]:
    """Server-sent events by the HTML standard's line rules."""
    events = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line and not line.startswith(":"))
        if fields:
            events.append(fields)
    return events


def test_events_stream_from_the_table_and_resume_after_one(trained):
    client, model, _ = trained
    job = client.get(f"/v1/models/{model}").json()["job_id"]
    pages = client.get(f"/v1/jobs/{job}/events", params={"limit": 1000}).json()["items"]
    headers = {"Accept": "text/event-stream"}

    response = client.get(f"/v1/jobs/{job}/events", headers=headers)
    resumed = client.get(f"/v1/jobs/{job}/events", headers={**headers, "Last-Event-ID": str(pages[2]["id"])})

    assert response.headers["content-type"].startswith("text/event-stream")
    assert [json.loads(event["data"]) for event in parse(response.text)] == pages
    assert [int(event["id"]) for event in parse(resumed.text)] == [event["id"] for event in pages[3:]]
    assert parse(response.text)[-1]["event"] == "state"


def test_hostile_names_stay_texts_in_a_spreadsheet():
    from app.store.assignment_export import _inert

    assert [_inert(name) for name in ("=1+1.png", "@x", "a.png", "")] == ["'=1+1.png", "'@x", "a.png", ""]
