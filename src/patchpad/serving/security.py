"""Who may ask: hosts and origins of requests, and API keys.

A page of another site can have a browser send requests to a server on the same machine. Such requests name that site
as their origin. A site whose name is made to point to this machine is its own origin, but then it is also the host
that the request asks for.
"""

import hmac
import ipaddress
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from patchpad.errors import ConfigError
from patchpad.serving.api_error import ApiError

KEY_VARIABLE = "PATCHPAD_API_KEY"
SHORTEST_KEY = 16
"""Characters of a key: a shorter one could be guessed."""

Headers = Iterable[tuple[bytes, bytes]]


def header_values(headers: Headers, name: bytes) -> list[bytes]:
    """Returns all values of a header; names are lower case."""
    return [value for key, value in headers if key == name]


def check_host(headers: Headers, allowed: frozenset[str]) -> str:
    """Returns the host that a request asks for, with its port.

    An address in numbers cannot be made to point elsewhere, so all of them are allowed.

    Raises:
        ApiError: there is none, or more than one, or its name is not allowed.
    """
    hosts = header_values(headers, b"host")
    if len(hosts) != 1:
        raise ApiError(400, f"the request has {len(hosts)} headers `Host`; allowed: one")
    host = hosts[0].decode("latin-1").strip().lower()
    name = _name_of(host)
    if name is None:
        raise ApiError(400, "the header `Host` is not a host")
    if not _is_address(name) and name not in allowed:
        raise ApiError(
            403, "the header `Host` names a host that this server is not; allow it with --allowed-host", code="bad_host"
        )
    return host


def check_origin(headers: Headers, host: str) -> None:
    """Refuses requests that a page of another site has sent.

    Raises:
        ApiError: the origin is not this server.
    """
    for value in header_values(headers, b"origin"):
        origin = value.decode("latin-1").strip().lower()
        try:
            parts = urlsplit(origin)
            is_own = parts.scheme in ("http", "https") and parts.netloc == host
        except ValueError:
            is_own = False
        if not is_own:
            raise ApiError(403, "the request comes from a page of another site", code="bad_origin")


def check_key(headers: Headers, keys: tuple[bytes, ...]) -> None:
    """Refuses requests without one of the keys. All keys are compared, each in a time that does not depend on it.

    Raises:
        ApiError: there is no key in the request, or another one.
    """
    if not keys:
        return
    given = header_values(headers, b"authorization")
    scheme, _, key = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
    matches = [hmac.compare_digest(key.strip(), one) for one in keys]
    if scheme.lower() == b"bearer" and any(matches):
        return
    found = "no API key was given" if not given else "the API key is not one of this server's"
    raise ApiError(
        401,
        f"{found}; send it as `Authorization: Bearer KEY`",
        code="invalid_api_key",
        headers=(("WWW-Authenticate", "Bearer"),),
    )


def allowed_names(host: str, further: Iterable[str]) -> frozenset[str]:
    """Returns the names of hosts that requests may ask for."""
    return frozenset({"localhost", host.lower().strip("[]"), *(name.lower() for name in further)})


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    name = host.strip("[]").lower()
    return name == "localhost" or (_is_address(name) and ipaddress.ip_address(name).is_loopback)


def read_keys(file: Path | None) -> tuple[bytes, ...]:
    """Returns the keys in a file, one a line, or else the one in the environment; none where there are none.

    Raises:
        ConfigError: the file cannot be read or holds no key, or a key is too short or not of printable ASCII.
    """
    if file is None:
        found = os.environ.get(KEY_VARIABLE)
        return () if found is None else (_checked_key(found, f"the variable {KEY_VARIABLE}"),)
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError(f"--api-key-file is {file}, which cannot be read: {reason}", hint="Check the path.") from None
    keys = tuple(_checked_key(line, f"line {number} of {file}") for number, line in enumerate(lines, 1) if line.strip())
    if not keys:
        raise ConfigError(f"--api-key-file is {file}, which holds no key; allowed: a key a line", hint=_make_one(file))
    return keys


def others_can_read(file: Path) -> bool:
    """Whether other users of the machine can read a file."""
    return os.name != "nt" and bool(file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))


def _checked_key(text: str, place: str) -> bytes:
    key = text.strip()
    if len(key) < SHORTEST_KEY or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(
            f"the API key in {place} has {len(key)} characters; allowed: {SHORTEST_KEY} or more of printable ASCII, no "
            "spaces",
            hint=_make_one(Path("KEY_FILE")),
        )
    return key.encode("ascii")


def _make_one(file: Path) -> str:
    return f"Make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))' > {file}"


def _name_of(host: str) -> str | None:
    """Returns the name in a host with or without a port; None if it is neither."""
    behind = host.partition("]")[2]
    if behind and not behind.startswith(":"):  # which urlsplit would leave out
        return None
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port  # which checks it
        return parts.hostname if parts.netloc == host and "@" not in host and parts.hostname else None
    except ValueError:
        return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
