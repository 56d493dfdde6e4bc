"""Errors a caller causes. Each carries its HTTP status and a stable code; `app.api.problems` renders them once."""

from typing import Any, ClassVar


class AppError(Exception):
    """Base: subclasses set `status` and `code`; `detail` is a sentence for people, `errors` the parts."""

    status: ClassVar[int] = 500
    code: str = "internal_error"
    title: ClassVar[str] = "Internal error"
    retry_after_s: int | None = None

    def __init__(self, detail: str, *, code: str | None = None, errors: list[dict[str, Any]] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or self.code
        self.errors = errors or []


class Malformed(AppError):
    """A body that is not what its content type says; what its content is worth is no matter."""

    status, code, title = 400, "bad_request", "Bad Request"


class Unauthenticated(AppError):
    """Nobody the service knows; `WWW-Authenticate` says how to say who one is."""

    status, code, title = 401, "unauthenticated", "An API key is needed"


class Forbidden(AppError):
    status, code, title = 403, "forbidden", "Not allowed"


class QuotaExceeded(AppError):
    """The tenant keeps as much as it may."""

    status, code, title = 403, "quota_exceeded", "Quota exceeded"


class TooSlow(AppError):
    """The body comes too slowly to be waited for."""

    status, code, title = 408, "too_slow", "The body came too slowly"


class NotFound(AppError):
    status, code, title = 404, "not_found", "Not found"


class Conflict(AppError):
    status, code, title = 409, "conflict", "Conflict"


class TooFewImages(Conflict):
    code, title = "too_few_images", "Too few images"


class NotReady(Conflict):
    code, title = "dataset_not_ready", "Dataset not ready"


class InUse(Conflict):
    code, title = "in_use", "Still in use"


class WrongState(Conflict):
    code, title = "wrong_state", "Not possible in this state"


class IdempotencyBusy(Conflict):
    code, title = "idempotency_key_busy", "The first request with this key is still running"


class TooLarge(AppError):
    status, code, title = 413, "too_large", "Too large"


class NotAcceptable(AppError):
    status, code, title = 406, "not_acceptable", "Not available in that form"


class PreconditionFailed(AppError):
    """What the caller has seen is not what there is."""

    status, code, title = 412, "precondition_failed", "Changed since"


class RangeNotSatisfiable(AppError):
    status, code, title = 416, "range_not_satisfiable", "Range not satisfiable"


class UnsupportedFormat(AppError):
    status, code, title = 415, "unsupported_format", "Unsupported format"


class Invalid(AppError):
    """A request that is well-formed but cannot be done; `code` says which rule it breaks."""

    status, code, title = 422, "invalid", "Invalid request"


class BadUpload(Invalid):
    code, title = "bad_upload", "The uploaded file cannot be used"


class UnknownMethod(Invalid):
    code, title = "unknown_method", "Unknown method"


class InvalidConfig(Invalid):
    code, title = "invalid_config", "Invalid config"


class TooManyImages(Invalid):
    code, title = "too_many_images", "Too many images for this method"


class IdempotencyMismatch(Invalid):
    code, title = "idempotency_key_reused", "Idempotency key reused with another request"


class TooManyRequests(AppError):
    """More than the caller may have at once; later there is room again."""

    status, code, title = 429, "too_many_requests", "Too many requests"
    retry_after_s = 10


class TooManyJobs(TooManyRequests):
    code, title = "too_many_queued_jobs", "Too many queued jobs"


class TooOften(TooManyRequests):
    """A key asked more often than it may; `RateLimit` says when it may again."""

    code, title = "rate_limited", "Asked too often"

    def __init__(self, detail: str, retry_after_s: int) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class Overloaded(TooManyRequests):
    """The process has all it can do; it gets through that within moments."""

    code, title = "overloaded", "Too many requests at once"
    retry_after_s = 1


class Unavailable(AppError):
    """A dependency is away; the same request may be sent again."""

    status, code, title = 503, "unavailable", "Temporarily unavailable"
    retry_after_s = 1


class TimedOut(Unavailable):
    code, title = "timed_out", "Not done in time"
