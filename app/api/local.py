"""Without keys, only programs on this machine may call: no other machine, and no web page that a browser here shows."""

from urllib.parse import urlsplit

from fastapi import Request

from app.errors import Forbidden
from app.settings import is_local


def require_local(request: Request) -> None:
    """See that a request comes from here, was meant for here, and was not sent by a page from elsewhere.

    Raises:
        Forbidden: `keys_required`, `foreign_host`, `foreign_origin`.
    """
    if request.client is not None and not is_local(request.client.host):
        raise Forbidden("the service asks for no keys, so it answers this machine alone", code="keys_required")
    # A page may point a name of its own at this machine, or post a form here: browsers then say so in these two.
    if not is_local(_host(f"//{request.headers.get('host', '')}")):
        raise Forbidden("without keys the service answers to names of this machine alone", code="foreign_host")
    origin = request.headers.get("origin")
    if origin is not None and not is_local(_host(origin)):
        raise Forbidden("without keys the service does not answer pages from elsewhere", code="foreign_origin")


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:  # no URL at all
        return None
