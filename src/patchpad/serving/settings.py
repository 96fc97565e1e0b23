"""What a server allows: limits of requests, of time, and who may ask."""

import math
from dataclasses import dataclass

from patchpad.errors import ConfigError

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Limits and keys of a server. Sizes are in bytes and times in seconds."""

    model_id: str = "patchpad"
    """Name of the model in the API."""
    host: str = "127.0.0.1"
    """Address that the server listens on; requests may name it as their host."""
    allowed_hosts: tuple[str, ...] = ()
    """Further names that requests may ask for, such as that of a proxy in front."""
    api_keys: tuple[bytes, ...] = ()
    """Keys of which a request must have one; none for a server that asks for no key."""
    scratchpad_threshold_nats: int | float | None = None
    """Of requests that do not say; None for the stored one."""
    compute: int | float | None = None
    """Trunk calls per byte of requests that do not say, in the place of a threshold."""

    max_header_bytes: int = 16_384
    """Of a request's first line and headers together."""
    max_body_bytes: int = MIB
    """Of a request's body."""
    max_prompt_bytes: int = 16_384
    """Of one prompt."""
    max_new_bytes: int = 16_384
    """Most that `max_tokens` may ask for."""
    max_rows: int = 64
    """Prompts times choices of one request."""
    max_facts: int = 100_000
    """Log-probabilities and byte details of one answer: of new bytes, and of prompts where these are scored."""
    max_connections: int = 512
    """Connections that are open at once."""
    arrival_seconds: int | float = 10.0
    """In which a request, headers and body, must have arrived."""
    request_seconds: int | float = 600.0
    """In which it must be answered."""
    send_seconds: int | float = 30.0
    """In which a client must go on reading what it is sent."""
    idle_seconds: int | float = 15.0
    """For which a connection may stay open between two requests."""
    drain_seconds: int | float = 30.0
    """For which running requests go on after the first signal to stop."""
    log_requests: bool = False
    """Log a line for each request: its route, status, bytes and seconds; never what it says."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name.startswith("max_") and value < 1:
                raise ConfigError(f"{name} is {value}; allowed: 1 or more")
            if name.endswith("_seconds") and not 0 <= value < math.inf:
                raise ConfigError(f"{name} is {value}; allowed: a number of seconds, 0 or more")
