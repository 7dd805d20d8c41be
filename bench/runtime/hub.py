"""The hub of Hugging Face that is configured: its address, its token, and whether it answers."""

from __future__ import annotations

import os
import socket
import urllib.request
from typing import Final
from urllib.parse import urlsplit

PUBLIC: Final = "https://huggingface.co"


def hub_endpoint() -> str:
    """Address of the hub: $HF_ENDPOINT, where a mirror stands for it, else huggingface.co."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or PUBLIC


def on_hub(url: str) -> str:
    """Return an address on huggingface.co as it is on the hub that is configured; any other one as it is.

    >>> on_hub("https://example.org/a.zip")
    'https://example.org/a.zip'
    """
    return hub_endpoint() + url.removeprefix(PUBLIC) if url.startswith(f"{PUBLIC}/") else url


def hub_headers(url: str) -> dict[str, str]:
    """Return the headers that carry the user's token to the hub, and to nobody else; none without a token."""
    if not f"{url}/".startswith(f"{hub_endpoint()}/"):
        return {}
    from huggingface_hub import get_token

    token = get_token()
    return {"Authorization": f"Bearer {token}"} if token else {}


def answers(url: str, seconds: float = 5.0) -> bool:
    """Whether the host of an address takes a connection; True behind a proxy, which may know names that we do not."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
        return True
    try:
        socket.create_connection((host, parts.port or (80 if parts.scheme == "http" else 443)), seconds).close()
    except OSError:
        return False
    return True
