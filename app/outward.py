"""Requests to addresses that callers name: signed after Standard Webhooks, and never to a network they must not reach.

An address is looked up once, judged, and connected to as it was judged: a name that means another machine a moment
later gains nothing. Redirects are not followed.
"""

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import secrets
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx2

TIMEOUT_S = 10.0
_OPEN_6 = ipaddress.ip_network("2000::/3")
_SECRET = "whsec_"  # noqa: S105 - what marks one


class Refused(Exception):
    """An address that is not asked; its text says why."""


@dataclass(frozen=True)
class Target:
    """Where a request goes: the URL with the machine's own address in it, and the name it is asked by."""

    url: str
    host: str
    name: str


def new_secret() -> str:
    """What a webhook's messages will be signed with."""
    return _SECRET + base64.b64encode(secrets.token_bytes(32)).decode()


def target(url: str, *, allow_private: bool) -> Target:
    """Look a URL up and judge it; `allow_private` lets it be plain HTTP and lead into the service's own network.

    Raises:
        Refused: not HTTPS, a user in it, a name nobody knows, or an address that is not of the open internet.
    """
    if not (url.isascii() and url.isprintable()):
        raise Refused("the URL has to be in ASCII, its host in punycode")
    try:
        httpx2.URL(url)
        parts = urlsplit(url)
        port = parts.port or (80 if parts.scheme == "http" else 443)
    except (ValueError, httpx2.InvalidURL) as error:
        raise Refused("that is no URL") from error
    if parts.scheme != "https" and not (parts.scheme == "http" and allow_private):
        raise Refused("the URL has to begin with https://")
    if not parts.hostname or parts.username is not None or parts.password is not None:
        raise Refused("the URL needs a host, and no user")
    try:
        entries = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Refused("nobody knows the URL's host") from error
    addresses = [ipaddress.ip_address(entry[4][0]) for entry in entries]
    if not allow_private and not all(_is_open(address) for address in addresses):
        raise Refused("the URL leads into a private network")
    first = addresses[0]
    address = f"[{first}]" if first.version == 6 else str(first)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(f"{parts.scheme}://{address}:{port}{path}", parts.netloc, parts.hostname)


def _is_open(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is of the open internet, and of no kind that leads to another one."""
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    if isinstance(address, ipaddress.IPv6Address) and (
        address not in _OPEN_6 or address.sixtofour is not None or address.teredo is not None
    ):
        return False
    return address.is_global and not address.is_multicast


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """`webhook-signature` of a message (Standard Webhooks, version 1)."""
    key = base64.b64decode(secret.removeprefix(_SECRET))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def send(to: Target, secret: str, message_id: str, timestamp: int, body: bytes) -> int:
    """Post a signed message; the answer's status.

    Raises:
        Refused: no answer.
    """
    headers = {
        "Host": to.host,
        "Content-Type": "application/json",
        "User-Agent": "clusterserve",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(secret, message_id, timestamp, body),
    }
    try:
        return asyncio.run(_post(to, headers, body))
    except (httpx2.HTTPError, ssl.SSLError, OSError) as error:  # of which `TimeoutError` is one
        raise Refused(f"no answer ({type(error).__name__})") from error


async def _post(to: Target, headers: dict[str, str], body: bytes) -> int:
    """All of it within `TIMEOUT_S`, however slowly the answer drips; what it says beyond its status is not read."""
    async with (
        asyncio.timeout(TIMEOUT_S),
        httpx2.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False) as client,
        client.stream("POST", to.url, content=body, headers=headers, extensions={"sni_hostname": to.name}) as answer,
    ):
        return answer.status_code
