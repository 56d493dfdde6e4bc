"""`clusterserve up` and the commands, as a person uses them."""

import asyncio
import csv
import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import numpy as np
import psutil
import pytest
import typer
from PIL import Image

from benchmarks import api
from clusterserve.client import Client
from tests.factories import npz, picture
from tests.servers import cutting_proxy, free_port, wait_until
from tests.service import QUICK, Service, running

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def service(tmp_path_factory) -> Service:
    with running(tmp_path_factory.mktemp("up") / "data") as found:
        yield found


def command(service: Service, *arguments: object) -> str:
    environment = os.environ | {"CLUSTERSERVE_URL": f"http://127.0.0.1:{service.port}", "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-m", "clusterserve", *map(str, arguments)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_commands_do_the_main_job(service, tmp_path):
    (tmp_path / "set.npz").write_bytes(npz(30))
    (tmp_path / "new.png").write_bytes(picture(np.full((8, 8), 230, np.uint8)))

    assert "graph-selflabel (default of images)" in command(service, "methods")
    dataset = re.search(r"ds_\w+", out := command(service, "upload", tmp_path / "set.npz"))[0]
    assert "30 images, 0 refused" in out
    out = command(service, "train", dataset, "-k", 3, "--method", "kmeans")
    job, model = re.search(r"job_\w+", out)[0], re.search(r"mdl_\w+", out)[0]
    assert out.count("│ 10") == 3
    assert job in command(service, "jobs")
    assert '"state": "succeeded"' in command(service, "job", job, "--follow")
    assert "surest images" in command(service, "clusters", model)
    assert re.search(r"new.png\s*│ [012] ", command(service, "assign", model, tmp_path / "new.png"))


def test_images_are_sorted_into_a_folder_per_cluster(service, tmp_path):
    (tmp_path / "photos.zip").write_bytes(_photos())
    dataset = re.search(r"ds_\w+", command(service, "upload", tmp_path / "photos.zip"))[0]
    model = re.search(r"mdl_\w+", command(service, "train", dataset, "-k", 3, "--method", "kmeans"))[0]

    command(service, "export", model, "--copy-to", tmp_path / "sorted")
    command(service, "export", model, "--out", tmp_path / "all.csv")

    folders = sorted(path for path in (tmp_path / "sorted").iterdir())
    assert [folder.name for folder in folders] == ["cluster-000", "cluster-001", "cluster-002"]
    # Photos 0, 3, 6, ... are of one kind, 1, 4, 7, ... of the next.
    kinds = [{int(path.stem.removeprefix("photo")) % 3 for path in folder.iterdir()} for folder in folders]
    assert sorted(kinds, key=min) == [{0}, {1}, {2}]
    lines = list(csv.DictReader((tmp_path / "all.csv").read_text().splitlines()))
    assert {line["name"] for line in lines} == {f"photo{number}.png" for number in range(30)}
    for line in lines:
        assert (tmp_path / "sorted" / f"cluster-{int(line['cluster']):03d}" / line["name"]).exists()


def test_a_large_upload_survives_connections_that_drop(service, tmp_path, monkeypatch):
    """A proxy that cuts the connection five times in mid-part; the client goes on, the bytes are equal."""
    x = np.random.default_rng(0).integers(0, 255, (20_000, 28, 28), np.uint8)
    path = tmp_path / "large.npz"
    path.write_bytes(npz(x=x))
    monkeypatch.setattr("clusterserve.client.PART_BYTES", 1 << 20)
    with (
        cutting_proxy(service.port, cuts=5, after_bytes=2_500_000) as (port, n_cut),
        Client(f"http://127.0.0.1:{port}") as client,
    ):
        dataset = client.upload_in_parts(path)

    assert n_cut() == 5
    service.wait_for(dataset["job_id"])
    for index in (0, 12_345, 19_999):
        image = Image.open(io.BytesIO(service.client.image(dataset["id"], index)))
        assert np.array_equal(np.asarray(image), x[index])


def test_a_command_without_a_service_says_what_to_do(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "clusterserve", "jobs", "--url", "http://127.0.0.1:1"], capture_output=True, text=True
    )

    assert done.returncode == 1
    assert "clusterserve up" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_readmes_curl_lines_work_as_written(service, tmp_path):
    block = re.search(r"```bash\n(# The main job.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    (tmp_path / "photos.zip").write_bytes(_photos())
    (tmp_path / "new.png").write_bytes(picture())
    script = "set -eu\n" + block.replace("localhost:8000", f"127.0.0.1:{service.port}")

    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stderr
    assert re.search(r'"name":"image","cluster":\d', done.stdout)
    assert '"exemplars"' in done.stdout


def test_a_second_up_on_the_folder_says_so_and_changes_nothing(service):
    second = subprocess.run(
        [sys.executable, "-m", "clusterserve", "up", "--data-dir", service.folder, "--port", "0"],
        env=os.environ | QUICK, capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    assert second.returncode == 1
    assert "already running" in second.stdout
    assert service.client.is_ready()
    assert (service.folder / "up.json").exists()


@pytest.mark.parametrize("name", ["api", "valkey", "worker"])
def test_a_child_that_dies_is_started_again(service, name):
    before = service.pids(name)
    service.kill(name)

    wait_until(lambda: set(service.pids(name)).isdisjoint(before) and len(service.pids(name)) >= len(before))
    wait_until(service.client.is_ready)
    dataset = service.client.upload(_file(service, npz(6)))

    assert service.wait_for(dataset["job_id"])["state"] == "succeeded"


@pytest.mark.alone
def test_sixty_four_waiting_clients_do_not_slow_the_probe(service, tmp_path):
    async def measure() -> list[float]:
        limits = httpx2.Limits(max_connections=100)
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{service.port}", timeout=30, limits=limits) as http:
            waits = [
                asyncio.create_task(http.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=6"})) for _ in range(64)
            ]
            await asyncio.sleep(1)
            times = []
            for _ in range(100):
                started = time.perf_counter()
                assert (await http.get("/livez")).status_code == 200
                times.append(time.perf_counter() - started)
                await asyncio.sleep(0.02)
            answers = await asyncio.gather(*waits)
            assert {answer.json()["state"] for answer in answers} <= {"running", "queued"}
            return sorted(times)

    worker = next(pid for pid in service.pids("worker") if "train" in " ".join(psutil.Process(pid).cmdline()))
    with service.paused([worker]):  # nobody claims the job, so every client waits
        dataset = service.client.upload(_file(service, npz(12)))
        service.wait_for(dataset["job_id"])
        job_id = service.client.train(dataset["id"], "kmeans", 3)["id"]
        times = asyncio.run(measure())

    assert times[98] <= 0.05


def test_the_benchmark_measures_submitting_and_polling_and_leaves_nothing(service):
    before = service.client.jobs(1000)

    found = asyncio.run(api.measure(f"http://127.0.0.1:{service.port}", requests=10, seconds=1, clients=[8]))

    for kind in ("submit", "poll"):
        assert list(found[kind]) == ["8"]
        for figures in found[kind].values():
            assert 0 < figures["p50_ms"] <= figures["p99_ms"]
            assert (figures["n_errors"], figures["per_s"] > 0) == (0, True)
    assert [job["id"] for job in service.client.jobs(1000)] == [job["id"] for job in before]


def test_the_benchmark_does_not_load_another_machine_unasked():
    with pytest.raises(typer.BadParameter, match="--remote"):
        api.main("http://192.0.2.1:8000", requests=1, seconds=1, is_remote_allowed=False, as_json=True)


def test_waiting_for_a_job_ends_with_the_job(service):
    dataset = service.client.upload(_file(service, npz(12)))

    job = service.client.job(dataset["job_id"], wait_s=60)

    assert job["state"] == "succeeded"


def test_ctrl_c_stops_every_process(tmp_path):
    with running(tmp_path / "data") as service:
        pids = [pid for name in ("valkey", "api", "worker") for pid in service.pids(name)]
        assert len(pids) == 4

        assert service.stop() == 0

        assert not any(psutil.pid_exists(pid) for pid in pids)


def _file(service: Service, data: bytes) -> Path:
    path = service.folder.parent / "set.npz"
    path.write_bytes(data)
    return path


def _photos() -> bytes:
    from tests.factories import blobs_of_pixels, zipped

    x, _ = blobs_of_pixels(30)
    return zipped({f"photo{number}.png": picture(image) for number, image in enumerate(x)})


def test_a_service_open_to_other_machines_is_not_started_without_keys(tmp_path):
    command = [sys.executable, "-m", "clusterserve", "up", "--data-dir", str(tmp_path / "data"), "--host", "0.0.0.0"]
    started = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert started.returncode == 1
    assert "CLUSTERSERVE_REQUIRE_KEYS" in started.stdout
    assert not (tmp_path / "data").exists()


def test_it_listens_on_an_address_of_ipv6(tmp_path):
    port = free_port()
    command = [sys.executable, "-m", "clusterserve", "up", "--data-dir", str(tmp_path), "--host", "::1"]
    process = subprocess.Popen(
        [*command, "--port", str(port)], stdout=subprocess.PIPE, env=os.environ | QUICK, text=True
    )
    try:
        with Client(f"http://[::1]:{port}") as client:
            wait_until(client.is_ready, 60)
            assert client.jobs(1) == []
    finally:
        process.send_signal(signal.SIGINT)
        told, _ = process.communicate(timeout=60)
    assert f"http://[::1]:{port}" in told
