"""A client of the REST API: the few calls the commands are made of. HTTP only."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import httpx2

Json = dict[str, Any]
PART_BYTES = 16 << 20
MAX_PARTS = 10_000
RETRY_PAUSES_S = (0.5, 1, 2, 4, 8)


class ApiError(Exception):
    """The service answered with a problem."""

    def __init__(self, problem: Json) -> None:
        super().__init__(f"{problem.get('detail') or problem.get('title')} ({problem.get('code')})")
        self.problem = problem


class Client:
    """One service."""

    def __init__(self, url: str, key: str | None = None) -> None:
        """`url` such as `http://127.0.0.1:8000`; `key`: an API key, by default CLUSTERSERVE_API_KEY's."""
        key = key or os.environ.get("CLUSTERSERVE_API_KEY")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx2.Client(base_url=url, headers=headers, timeout=httpx2.Timeout(30, read=120))

    def upload(self, file: Path, name: str = "", **wanted: Any) -> Json:
        """Send a file as a new dataset; returns it, still `ingesting`.

        `wanted`: `targets`, `columns`, `target` and `names`, as `POST /v1/datasets` takes them.
        """
        with file.open("rb") as body:
            params = {"name": name or file.name, **wanted}
            return self._call("POST", "/v1/datasets", params=params, files={"file": (file.name, body)})

    def upload_in_parts(
        self,
        file: Path,
        name: str = "",
        *,
        resume: str | None = None,
        on_part: Callable[[str, float], None] = lambda _upload, _share: None,
        **wanted: Any,
    ) -> Json:
        """Send a large file part by part; a connection that drops costs one part.

        Args:
            file: what to send.
            name: of the dataset; the file's by default.
            resume: id of an upload of the same file that was interrupted.
            on_part: called with the upload's id and the share that has arrived, after each part.
            wanted: see `upload`.
        """
        size = file.stat().st_size
        body = {"filename": file.name, "n_bytes": size}
        upload = self._call("GET", f"/v1/uploads/{resume}") if resume else self._call("POST", "/v1/uploads", json=body)
        arrived = {part["number"]: part["sha256"] for part in upload["parts"]}
        part_bytes = max(PART_BYTES, -(-size // MAX_PARTS))
        with file.open("rb") as whole:
            for number in range(1, -(-size // part_bytes) + 1):
                data = whole.read(part_bytes)
                digest = hashlib.sha256(data).hexdigest()
                if arrived.get(number) != digest:
                    self._put_part(f"/v1/uploads/{upload['id']}/parts/{number}", data, digest)
                on_part(upload["id"], min(1.0, number * part_bytes / size))
        self._call("POST", f"/v1/uploads/{upload['id']}/complete")
        params = {"name": name or file.name, **wanted}
        return self._call("POST", "/v1/datasets", json={"upload_id": upload["id"]}, params=params)

    def dataset(self, dataset_id: str) -> Json:
        """One dataset."""
        return self._call("GET", f"/v1/datasets/{dataset_id}")

    def rejects(self, dataset_id: str) -> list[Json]:
        """Every refused file."""
        return list(self._all(f"/v1/datasets/{dataset_id}/rejects"))

    def image(self, dataset_id: str, index: int) -> bytes:
        """The bytes of one image."""
        response = self._http.get(f"/v1/datasets/{dataset_id}/images/{index}")
        self._raise(response)
        return response.content

    def methods(self) -> list[Json]:
        """Every method."""
        response = self._http.get("/v1/methods")
        self._raise(response)
        methods: list[Json] = response.json()
        return methods

    def train(self, dataset_id: str, method: str | None, n_clusters: int, **more: Any) -> Json:
        """Start a training job."""
        body = {"kind": "train", "dataset_id": dataset_id, **more}
        body["config"] = {"n_clusters": n_clusters, **more.get("config", {})}
        if method:
            body["method"] = method
        return self._call("POST", "/v1/jobs", json=body)

    def assign_dataset(self, model_id: str, dataset_id: str) -> Json:
        """Start the assignment of a whole dataset."""
        return self._call("POST", "/v1/jobs", json={"kind": "assign", "model_id": model_id, "dataset_id": dataset_id})

    def jobs(self, limit: int = 50) -> list[Json]:
        """The newest jobs."""
        jobs: list[Json] = self._call("GET", "/v1/jobs", params={"limit": limit})["items"]
        return jobs

    def job(self, job_id: str, wait_s: int = 0) -> Json:
        """One job, after it has ended or `wait_s` have passed."""
        headers = {"Prefer": f"wait={wait_s}"} if wait_s else {}
        return self._call("GET", f"/v1/jobs/{job_id}", headers=headers)

    def follow(self, job_id: str, pause_s: float = 0.3) -> Iterator[Json]:
        """A job's events as they come, until it has ended."""
        cursor: str | None = None
        while True:
            params = {"limit": 200} | ({"cursor": cursor} if cursor else {})
            page = self._call("GET", f"/v1/jobs/{job_id}/events", params=params)
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return
            if len(page["items"]) < 200:
                time.sleep(pause_s)

    def model(self, model_id: str) -> Json:
        """One model."""
        return self._call("GET", f"/v1/models/{model_id}")

    def clusters(self, model_id: str) -> list[Json]:
        """Every cluster of a model."""
        return list(self._all(f"/v1/models/{model_id}/clusters"))

    def assign(self, model_id: str, files: Sequence[tuple[str, bytes]]) -> list[Json]:
        """Cluster ids of new images, 100 to a request."""
        answers: list[Json] = []
        for start in range(0, len(files), 100):
            parts = [("file", (name, data)) for name, data in files[start : start + 100]]
            answers += self._call("POST", f"/v1/models/{model_id}/assign", files=parts)["items"]
        return answers

    def is_ready(self) -> bool:
        """Whether the service answers and can work."""
        try:
            return self._http.get("/readyz", timeout=5).status_code == 200
        except httpx2.HTTPError:
            return False

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _put_part(self, path: str, data: bytes, digest: str) -> None:
        """Send one part, again after growing pauses where the connection or the service fails."""
        for pause_s in (*RETRY_PAUSES_S, None):
            try:
                self._call("PUT", path, content=data, headers={"Content-Sha256": digest})
                return
            except (httpx2.TransportError, ApiError) as error:
                is_final = isinstance(error, ApiError) and error.problem.get("status", 500) < 500
                if is_final or pause_s is None:
                    raise
                time.sleep(pause_s)

    def download(self, path: str, out: Path, accept: str) -> None:
        """Stream an answer into a file, which appears whole or not at all."""
        unfinished = out.with_name(f".{out.name}.unfinished")
        with self._http.stream("GET", path, headers={"Accept": accept}) as response:
            if response.is_error:
                response.read()
            self._raise(response)
            with unfinished.open("wb") as file:
                for chunk in response.iter_bytes():
                    file.write(chunk)
        unfinished.replace(out)

    def assignments(self, set_id: str) -> Iterator[Json]:
        """Every assignment of a set, with the image's name, as it streams."""
        headers = {"Accept": "application/x-ndjson"}
        with self._http.stream("GET", f"/v1/assignment-sets/{set_id}/assignments", headers=headers) as response:
            if response.is_error:
                response.read()
            self._raise(response)
            for line in response.iter_lines():
                yield json.loads(line)

    def _all(self, path: str) -> Iterator[Json]:
        cursor: str | None = None
        while True:
            page = self._call("GET", path, params={"limit": 1000} | ({"cursor": cursor} if cursor else {}))
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def _call(self, method: str, path: str, **more: Any) -> Json:
        response = self._http.request(method, path, **more)
        self._raise(response)
        answer: Json = response.json()
        return answer

    @staticmethod
    def _raise(response: httpx2.Response) -> None:
        if response.is_error:
            is_problem = response.headers.get("content-type", "").startswith("application/problem+json")
            raise ApiError(response.json() if is_problem else {"title": f"HTTP {response.status_code}"})
