"""`python -m benchmarks NAME`: everything the documentation says about quality and speed, measured."""

import typer

from benchmarks import api, assign, data, inference, ingest, quality, sessions, soak, training

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
app.command("quality")(quality.main)
app.command("ingest")(ingest.main)
app.command("api")(api.main)
app.command("inference")(inference.main)
app.command("sessions")(sessions.main)
app.command("soak")(soak.main)
app.command("assign")(assign.main)
app.command("data")(data.main)
app.command("training")(training.main)

if __name__ == "__main__":
    app()
