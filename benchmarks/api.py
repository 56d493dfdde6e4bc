"""Speed of the API: submitting and polling jobs at 1, 8 and 64 clients, on a running service."""

import asyncio
import io
import ipaddress
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any
from urllib.parse import urlsplit

import httpx2
import numpy as np
import typer

CLIENTS = (1, 8, 64)
WAIT_S = 60
_ENDED = {"succeeded", "failed", "cancelled"}

Request = Callable[[], Awaitable[httpx2.Response]]


def main(
    url: Annotated[str, typer.Option(help="a running service")] = "http://127.0.0.1:8000",
    requests: Annotated[int, typer.Option(min=1, max=10_000, help="of each kind at each number of clients")] = 500,
    seconds: Annotated[float, typer.Option(min=0.1, max=60, help="after which a round ends early")] = 10,
    is_remote_allowed: Annotated[bool, typer.Option("--remote", help="also on another machine")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on the last line")] = False,
) -> None:
    """Print p50 and p99 in milliseconds and requests per second; leaves no job and no dataset behind."""
    if not is_remote_allowed and not _is_loopback(url):
        raise typer.BadParameter("this loads the service; say --remote to do so to another machine's")
    found = asyncio.run(measure(url, requests, seconds))
    if as_json:
        print(json.dumps(found))
        return
    for kind, rounds in found.items():
        for clients, figures in rounds.items():
            print(f"{kind:>8} {clients:>3} clients  " + "  ".join(f"{name} {value}" for name, value in figures.items()))


async def measure(
    url: str, requests: int, seconds: float, clients: Sequence[int] = CLIENTS
) -> dict[str, dict[str, dict[str, Any]]]:
    """Figures by kind of request and number of clients.

    Args:
        url: the service's address.
        requests: how many a round sends at most.
        seconds: how long a round lasts at most.
        clients: how many there are in each round.
    """
    limits = httpx2.Limits(max_connections=max(clients), max_keepalive_connections=max(clients))
    async with httpx2.AsyncClient(base_url=url, timeout=60, limits=limits) as http:
        dataset_id, ingest_id = await _upload(http)
        jobs: list[str] = []
        body = {"kind": "train", "dataset_id": dataset_id, "method": "kmeans", "config": {"n_clusters": 2}}

        async def submit() -> httpx2.Response:
            response = await http.post("/v1/jobs", json=body)
            if response.status_code == 201:
                jobs.append(response.json()["id"])
            return response

        async def poll() -> httpx2.Response:
            return await http.get(f"/v1/jobs/{ingest_id}")

        found: dict[str, dict[str, dict[str, Any]]] = {"submit": {}, "poll": {}}
        try:
            for n in clients:
                found["submit"][str(n)] = await _round(submit, n, requests, seconds)
                await _cancel(http, jobs)
                found["poll"][str(n)] = await _round(poll, n, requests, seconds)
        finally:
            await _cancel(http, jobs)
            (await http.delete(f"/v1/datasets/{dataset_id}", params={"models": "delete"})).raise_for_status()
    return found


async def _round(request: Request, clients: int, requests: int, seconds: float) -> dict[str, Any]:
    """So many clients, each sending its next request when the last is answered."""
    times: list[float] = []
    n_errors = n_sent = 0
    begun = time.perf_counter()

    async def client() -> None:
        nonlocal n_errors, n_sent
        while n_sent < requests and time.perf_counter() - begun < seconds:
            n_sent += 1
            started = time.perf_counter()
            n_errors += (await request()).is_error
            times.append(time.perf_counter() - started)

    await asyncio.gather(*(client() for _ in range(clients)))
    p50, p99 = np.percentile(times, (50, 99)) * 1000
    per_s = len(times) / (time.perf_counter() - begun)
    return {
        "p50_ms": round(float(p50), 2),
        "p99_ms": round(float(p99), 2),
        "per_s": round(per_s, 1),
        "n": len(times),
        "n_errors": n_errors,
    }


async def _upload(http: httpx2.AsyncClient) -> tuple[str, str]:
    """A dataset of four vectors, once it is ready, and its ingest job."""
    data = io.BytesIO()
    np.save(data, np.eye(4, dtype=np.float32))
    response = await http.post(
        "/v1/datasets", params={"name": "benchmark"}, content=data.getvalue(), headers={"Prefer": f"wait={WAIT_S}"}
    )
    dataset = response.raise_for_status().json()
    if dataset["state"] != "ready":
        raise RuntimeError(f"the dataset is {dataset['state']}; is a worker running?")
    return dataset["id"], dataset["job_id"]


async def _cancel(http: httpx2.AsyncClient, jobs: list[str]) -> None:
    """Cancel these jobs and wait for the few that were running already."""
    for job_id in jobs:
        await http.post(f"/v1/jobs/{job_id}/cancel")
    for job_id in jobs:
        response = await http.get(f"/v1/jobs/{job_id}", headers={"Prefer": f"wait={WAIT_S}"})
        if response.json()["state"] not in _ENDED:
            raise RuntimeError(f"job {job_id} has not ended")
    jobs.clear()


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
