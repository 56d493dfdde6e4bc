"""Logging set-up for the API, the workers and the runner: constant event names, facts as keywords."""

import logging
import sys

import structlog


def configure(level: str, style: str) -> None:
    """Send structlog and the standard library's records to stderr in one form (`console` or `json`)."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if style == "json" else structlog.dev.ConsoleRenderer(colors=False)
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for chatty in ("alembic", "httpx2"):
        logging.getLogger(chatty).setLevel("WARNING")


def get_logger() -> structlog.typing.FilteringBoundLogger:
    """The logger every module uses; bind facts with `bound`."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return logger


bound = structlog.contextvars.bound_contextvars
