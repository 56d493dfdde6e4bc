"""The `clusterserve` command: `up` and `demo` run the service, the others talk to it over HTTP."""

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import httpx2
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from clusterserve import originals
from clusterserve.client import ApiError, Client, Json

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Group images nobody has labelled.")
keys_app = typer.Typer(no_args_is_help=True, help="Make, list, exchange and end API keys.")
app.add_typer(keys_app, name="keys")
console = Console()

Prefix = Annotated[str, typer.Argument(help="the second part of a key, which `list` shows")]
Url = Annotated[str, typer.Option(envvar="CLUSTERSERVE_URL", help="address of the service")]
DEFAULT_URL = "http://127.0.0.1:8000"
IN_PARTS_FROM = 64 << 20
EXPORTS = {
    ".csv": "text/csv",
    ".jsonl": "application/x-ndjson",
    ".parquet": "application/vnd.apache.parquet",
    ".arrow": "application/vnd.apache.arrow.stream",
}
ENDINGS = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"RIFF": ".webp", b"II*\0": ".tif"}


def main() -> None:
    """Entry point: what the service or the network says goes to stderr in one line, and the exit code is 1."""
    try:
        app()
    except ApiError as error:
        _fail(str(error), error.problem.get("errors") or [])
    except httpx2.HTTPError as error:
        _fail(f"the service does not answer ({error}); start it with `clusterserve up`")


@app.command()
def up(
    data_dir: Annotated[Path, typer.Option(envvar="CLUSTERSERVE_DATA_DIR")] = Path("clusterserve-data"),
    host: str = "127.0.0.1",
    port: int = 8000,
) -> None:
    """Run the whole service here: Valkey, the API and the workers, on SQLite and a folder."""
    from clusterserve.operate.commands import run_up

    raise typer.Exit(run_up(data_dir, host, port, console))


@app.command()
def demo(out: Annotated[Path, typer.Option(help="where the picture goes")] = Path("demo")) -> None:
    """Do the main job on real handwritten digits, with a service started for it."""
    from clusterserve.operate.demo import run_demo

    run_demo(out, console)


@app.command()
def migrate() -> None:
    """Bring the database of the settings to this release's schema."""
    from clusterserve.operate.commands import run_migrate

    run_migrate()
    console.print("the database is up to date")


@app.command()
def doctor() -> None:
    """Check everything the service of the settings rests on, and say what is wrong."""
    from clusterserve.operate.commands import run_doctor

    raise typer.Exit(run_doctor(console))


@app.command()
def gc(dry_run: Annotated[bool, typer.Option("--dry-run", help="only count")] = False) -> None:
    """Remove what is past its retention, and files that nothing names any more; workers do so every few minutes."""
    from clusterserve.operate.commands import run_gc

    run_gc(console, is_dry=dry_run)


@keys_app.command("create")
def create_key(
    tenant: Annotated[str, typer.Option(help="whose data it opens; made with its first key")] = "default",
    name: Annotated[str, typer.Option(help="for people")] = "",
    scopes: Annotated[str, typer.Option(help="with commas: read, write, train, admin")] = "read,write,train",
    days: Annotated[float | None, typer.Option(min=0, help="after which it expires; never by default")] = None,
) -> None:
    """Make a key. It is shown this once."""
    from clusterserve.operate import keys

    keys.create(console, tenant, name, [scope.strip() for scope in scopes.split(",")], days)


@keys_app.command("list")
def list_keys(tenant: str | None = None) -> None:
    """List keys, without their secrets."""
    from clusterserve.operate import keys

    keys.show_all(console, tenant)


@keys_app.command("rotate")
def rotate_key(
    prefix: Prefix, overlap_hours: Annotated[float, typer.Option(min=0, help="how long the old one goes on")] = 24
) -> None:
    """Make a key with the rights of an old one, which ends later."""
    from clusterserve.operate import keys

    keys.rotate(console, prefix, overlap_hours)


@keys_app.command("end")
def end_key(prefix: Prefix) -> None:
    """Let a key expire now; running services notice within seconds."""
    from clusterserve.operate import keys

    keys.end(console, prefix)


@app.command()
def methods(url: Url = DEFAULT_URL) -> None:
    """List the clustering methods."""
    table = Table("method", "title", "profiles", "takes")
    for method in Client(url).methods():
        mark = f" (default of {', '.join(method['default_of'])})" if method["default_of"] else ""
        table.add_row(method["name"] + mark, method["title"], ", ".join(method["profiles"]), ", ".join(method["data"]))
    console.print(table)


@app.command()
def upload(
    file: Annotated[Path, typer.Argument(help="a file, or a folder of images")],
    name: str = "",
    targets: Annotated[
        str, typer.Option(help="`folders`: names of several folders are targets; or `none`")
    ] = "folders",
    columns: Annotated[str, typer.Option(help="of a table or .npz: the inputs, with commas")] = "",
    target: Annotated[str, typer.Option(help="of a table or .npz: the targets")] = "",
    names: Annotated[str, typer.Option(help="of a table: the names")] = "",
    resume: Annotated[str | None, typer.Option(help="id of an upload of this file that was interrupted")] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Upload a dataset: a folder or zip of images, an .npz, a CSV, vectors as .npy or Parquet. Large: in parts."""
    if not file.exists():
        _fail(f"there is no file {file}")
    client = Client(url)
    wanted = {"targets": targets, "columns": [one.strip() for one in columns.split(",") if one.strip()]}
    wanted |= {key: value for key, value in (("target", target), ("names", names)) if value}
    if file.is_dir():
        with tempfile.TemporaryDirectory() as scratch, originals.packed(file, Path(scratch)) as archive:
            dataset = _upload_in_parts(client, archive, name or file.resolve().name, wanted, resume)
    elif resume or file.stat().st_size > IN_PARTS_FROM:
        dataset = _upload_in_parts(client, file, name, wanted, resume)
    else:
        dataset = client.upload(file, name, **wanted)
    originals.remember(dataset["id"], file)
    job = follow(client, dataset["job_id"])
    dataset = client.dataset(dataset["id"])
    if job["state"] != "succeeded":
        _fail(f"ingest {job['state']}: {(job['error'] or {}).get('message', '')}")
    console.print(f"dataset {dataset['id']}: {dataset['n_images']} {dataset['kind']}, {dataset['n_rejects']} refused")
    show_notes(dataset["notes"])


@app.command()
def export(
    model_id: str,
    out: Annotated[Path | None, typer.Option(help="file to write: .csv, .jsonl, .parquet or .arrow")] = None,
    copy_to: Annotated[Path | None, typer.Option(help="new folder, for one folder of images per cluster")] = None,
    source: Annotated[
        Path | None, typer.Option("--originals", help="folder or zip to copy from; by default what was uploaded")
    ] = None,
    stored: Annotated[bool, typer.Option("--stored", help="copy what the service stores, without metadata")] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Write a model's assignments to a file, or copy its images into one folder per cluster, as they were."""
    client = Client(url)
    model = client.model(model_id)
    if (out is None) == (copy_to is None):
        _fail("give either --out FILE or --copy-to DIR")
    if out is not None:
        if out.suffix not in EXPORTS:
            _fail(f"the file's ending says the form: {', '.join(EXPORTS)}")
        client.download(f"/v1/assignment-sets/{model['assignment_set_id']}/assignments", out, EXPORTS[out.suffix])
        console.print(f"{model['n_images']} assignments in {out}")
    if copy_to is not None:
        if copy_to.exists() and (not copy_to.is_dir() or any(copy_to.iterdir())):
            _fail(f"{copy_to} is not empty; name a new folder")
        found = None if stored else source or originals.source_of(model["dataset_id"])
        if found is None and not stored:
            console.print("where these images were uploaded from is not known here or gone; --originals names it")
        if source is not None and not source.exists():
            _fail(f"there is no {source}")
        _copy_images(client, model, copy_to, found)


@app.command()
def train(
    dataset_id: str,
    n_clusters: Annotated[int, typer.Option("--clusters", "-k")],
    method: str | None = None,
    profile: Annotated[str | None, typer.Option(help="paper or fast; by default the method's own choice")] = None,
    seed: int = 0,
    url: Url = DEFAULT_URL,
) -> None:
    """Cluster a dataset and follow the job to its end."""
    client = Client(url)
    job = client.train(dataset_id, method, n_clusters, profile=profile, seed=seed)
    console.print(f"job {job['id']}")
    job = follow(client, job["id"])
    if job["state"] != "succeeded":
        _fail(f"job {job['state']}: {(job['error'] or {}).get('message', '')}")
    console.print(f"model {job['model_id']}")
    show_notes(job["warnings"])
    console.print(clusters_table(client.clusters(job["model_id"])))


@app.command()
def jobs(url: Url = DEFAULT_URL, limit: int = 20) -> None:
    """List the newest jobs."""
    table = Table("job", "kind", "state", "method", "phase", "progress")
    for job in Client(url).jobs(limit):
        table.add_row(job["id"], job["kind"], job["state"], job["method"] or "", job["phase"], f"{job['progress']:.0%}")
    console.print(table)


@app.command("job")
def one_job(job_id: str, follow_it: Annotated[bool, typer.Option("--follow")] = False, url: Url = DEFAULT_URL) -> None:
    """Show a job, or follow it to its end."""
    client = Client(url)
    console.print_json(data=follow(client, job_id) if follow_it else client.job(job_id))


@app.command()
def clusters(model_id: str, url: Url = DEFAULT_URL) -> None:
    """Show the clusters of a model."""
    console.print(clusters_table(Client(url).clusters(model_id)))


@app.command()
def assign(model_id: str, files: list[Path], url: Url = DEFAULT_URL) -> None:
    """Cluster ids of image files."""
    if missing := [file for file in files if not file.is_file()]:
        _fail(f"there is no file {missing[0]}")
    answers = Client(url).assign(model_id, [(str(file), file.read_bytes()) for file in files])
    console.print(assignments_table(answers))


def follow(client: Client, job_id: str) -> Json:
    """Show a job's events as a progress bar; the job once it has ended."""
    columns = (
        TextColumn("{task.description:>10}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("queued", total=1.0)
        for event in client.follow(job_id):
            data = event["data"]
            bar.update(
                task,
                description=data.get("phase") or data.get("state"),
                completed=1.0 if data.get("state") == "succeeded" else data.get("progress"),
            )
    return client.job(job_id)


def show_notes(notes: list[Json]) -> None:
    """Print what a dataset says of how it was read, or what to know of a training."""
    for one in notes:
        console.print(f"- {one['message']}", markup=False)
        if one["code"] == "refused":
            for example in one["examples"]:
                console.print(f"    {example}", markup=False)


def _upload_in_parts(client: Client, file: Path, name: str, wanted: Json, resume: str | None) -> Json:
    columns = (TextColumn("{task.description:>10}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("upload", total=1.0)
        begun: list[str] = []

        def on_part(upload_id: str, share: float) -> None:
            begun.append(upload_id)
            bar.update(task, completed=share)

        try:
            return client.upload_in_parts(file, name, resume=resume, on_part=on_part, **wanted)
        except (httpx2.TransportError, KeyboardInterrupt):
            if begun:
                console.print(f"interrupted; go on with --resume {begun[0]}")
            raise


def _copy_images(client: Client, model: Json, folder: Path, source: Path | None) -> None:
    """One folder per cluster, files under their own names, numbered where two are alike."""
    found = None if source is None else originals.Originals(source)
    uploaded_at = originals.uploaded_at(model["dataset_id"])
    n_stored, n_changed, taken = 0, 0, set[Path]()
    with Progress(console=console) as bar:
        task = bar.add_task("copy", total=model["n_images"])
        for item in client.assignments(model["assignment_set_id"]):
            path = folder / f"cluster-{item['cluster']:03d}" / originals.file_name(item["name"], "")
            path.parent.mkdir(parents=True, exist_ok=True)
            path = _free(path, item["index"], taken)
            if found is None or not found.copy(item["name"], path):
                data = client.image(model["dataset_id"], item["index"])
                path = _free(path.with_name(originals.file_name(item["name"], _ending(data))), item["index"], taken)
                path.write_bytes(data)
                n_stored += 1
            elif uploaded_at is not None and path.stat().st_mtime > uploaded_at:
                n_changed += 1
            taken.add(path)
            bar.advance(task)
    if found is not None:
        found.close()
    console.print(f"{model['n_images']} images in {model['n_clusters']} folders under {folder}")
    if n_changed:
        console.print(f"{n_changed} of the files have changed since they were uploaded")
    if n_stored:
        why = "" if source is None else f", since {source} has no files of those names"
        console.print(f"{n_stored} of them as the service stores them: upright, without date and metadata{why}")


def _free(path: Path, index: int, taken: set[Path]) -> Path:
    return path.with_stem(f"{path.stem}-{index}") if path in taken else path


def _ending(data: bytes) -> str:
    """What a stored image's file should end with."""
    return next((end for mark, end in ENDINGS.items() if data.startswith(mark)), "")


def clusters_table(clusters: list[Json]) -> Table:
    """Clusters as a table."""
    table = Table("cluster", "images", "confidence", "outliers", "surest images")
    for cluster in clusters:
        confidence = "" if cluster["confidence"] is None else f"{cluster['confidence']:.3f}"
        surest = " ".join(map(str, cluster["exemplars"][:6]))
        table.add_row(str(cluster["cluster"]), str(cluster["size"]), confidence, str(cluster["n_outliers"]), surest)
    return table


def assignments_table(answers: list[Json]) -> Table:
    """Answers for new images as a table."""
    table = Table("image", "cluster", "confidence", "")
    for answer in answers:
        if "error" in answer:
            table.add_row(answer["name"], "", "", answer["error"]["message"])
        else:
            note = "outlier" if answer["is_outlier"] else ""
            table.add_row(answer["name"], str(answer["cluster"]), f"{answer['confidence']:.3f}", note)
    return table


def _fail(message: str, errors: list[Json] | None = None) -> None:
    print(message, file=sys.stderr)
    for error in errors or []:
        print("  " + ", ".join(f"{key}: {value}" for key, value in error.items()), file=sys.stderr)
    sys.exit(1)
