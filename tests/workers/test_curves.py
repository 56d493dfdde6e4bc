"""Reports of a fit on their way to the supervisor."""

import io
from threading import Event

from models.base import StepState
from tests.models.battery import images
from workers.curves import Curves
from workers.messages import StepMessage, decode
from workers.work import Reporter, Span


def test_every_field_of_a_report_crosses_the_pipe():
    pipe = io.StringIO()
    curves = Curves(Reporter(pipe, Event()), Span(0.0, 1.0), None)
    _, kinds = images()

    curves.on_step(
        StepState("fit", 0.5, 3, {"kl": 0.1}, 0.25, [20, 40], kinds, is_epoch=True, event="checkpoint_skipped")
    )

    (step,) = [
        message for line in pipe.getvalue().splitlines() if isinstance(message := decode(line.encode()), StepMessage)
    ]
    assert (step.phase, step.step, step.losses, step.label_change) == ("fit", 3, {"kl": 0.1}, 0.25)
    assert (step.cluster_sizes, step.event) == ([20, 40], "checkpoint_skipped")
