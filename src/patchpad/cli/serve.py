"""`patchpad serve`."""

import asyncio
import gc
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from patchpad.cli.options import Device, Draft, KeptWeights, OptionalRunPath, draft_option
from patchpad.cli.streams import print_text
from patchpad.errors import ServingInterrupted

if TYPE_CHECKING:
    from patchpad.serving.settings import Settings

logger = logging.getLogger(__name__)

SWITCH_SECONDS = 0.001
"""How long the engine's thread may go on when the server's thread wants to run; Python's own value is 5 ms."""


def serve(
    run: OptionalRunPath = None,
    /,
    *,
    host: Annotated[
        str, Parameter(help="Address to listen on. The default can be reached from this machine only.")
    ] = "127.0.0.1",
    port: Annotated[int, Parameter(help="Port to listen on. 0: any free port.")] = 8000,
    api_key_file: Annotated[
        Path | None,
        Parameter(help="File of API keys, one per line. Requests need one of them. Or set PATCHPAD_API_KEY."),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        Parameter(negative=(), help="Another host name that requests may use for this server. May be repeated."),
    ] = None,
    model_name: Annotated[
        str | None, Parameter(help="Name of the model in the API. Default: the folder's name, or patchpad-bundled.")
    ] = None,
    scratchpad_threshold: Annotated[
        float | None,
        Parameter(
            allow_leading_hyphen=True,
            help="For requests without one: in nats, inf or -inf. Default: the stored threshold.",
        ),
    ] = None,
    compute: Annotated[
        float | None, Parameter(help="Trunk calls per byte instead. The calibration translates them.")
    ] = None,
    batch_rows: Annotated[int, Parameter(help="The most rows that run at once.")] = 64,
    max_waiting_rows: Annotated[int, Parameter(help="The most rows that wait. Further requests get 429.")] = 256,
    max_request_rows: Annotated[int, Parameter(help="The most rows of one request: its prompts times n.")] = 64,
    max_prompt_bytes: Annotated[int, Parameter(help="Bytes of the longest prompt.")] = 16_384,
    max_new_bytes: Annotated[int, Parameter(help="Largest max_tokens of a request.")] = 16_384,
    max_body_bytes: Annotated[int, Parameter(help="Bytes of the longest request body.")] = 1_048_576,
    max_header_bytes: Annotated[int, Parameter(help="Bytes of the longest request headers.")] = 16_384,
    max_connections: Annotated[int, Parameter(help="The most open connections.")] = 512,
    arrival_seconds: Annotated[float, Parameter(help="Time for a request to arrive.")] = 10.0,
    request_seconds: Annotated[float, Parameter(help="Time for a request to be answered.")] = 600.0,
    drain_seconds: Annotated[float, Parameter(help="Time that running requests get after Ctrl-C or SIGTERM.")] = 30.0,
    prefix_mib: Annotated[
        int, Parameter(help="MiB for states of earlier prompts, so that they need not be read again. 0: none.")
    ] = 64,
    log_requests: Annotated[
        bool, Parameter(negative=(), help="Log route, status, bytes and seconds of each request.")
    ] = False,
    compile: Annotated[
        bool,
        Parameter(negative=(), help="Compile the steps first (CUDA: capture graphs). The first requests wait for it."),
    ] = False,
    draft: Draft = "auto",
    weights: KeptWeights = "fp32",
    device: Device = "cpu",
) -> None:
    """Serve a model over HTTP with OpenAI's API. A playground is at /.

    Without RUN, the small model that ships with patchpad is served. Ctrl-C and SIGTERM stop the server: running
    requests may finish first, unless the signal comes twice. The exit code is 0, or 130 if requests were cut short.
    """
    from patchpad.serving.scheduler import Scheduler
    from patchpad.serving.security import is_loopback, others_can_read, read_keys
    from patchpad.serving.server import Server, address_of, open_socket
    from patchpad.serving.settings import Settings
    from patchpad.training.checkpoint import load

    settings = Settings(
        model_id=model_name or _model_id(run),
        host=host,
        allowed_hosts=tuple(allowed_host or ()),
        api_keys=read_keys(api_key_file),
        scratchpad_threshold_nats=scratchpad_threshold,
        compute=compute,
        max_header_bytes=max_header_bytes,
        max_body_bytes=max_body_bytes,
        max_prompt_bytes=max_prompt_bytes,
        max_new_bytes=max_new_bytes,
        max_rows=max_request_rows,
        max_connections=max_connections,
        arrival_seconds=arrival_seconds,
        request_seconds=request_seconds,
        drain_seconds=drain_seconds,
        log_requests=log_requests,
    )
    if api_key_file is not None and others_can_read(api_key_file):
        logger.warning("other users of this machine can read %s; chmod 600 prevents it", api_key_file)
    if not is_loopback(host):
        _warn_of_network(settings)
    opened = open_socket(host, port)
    try:
        scheduler = Scheduler(
            load(run, device=device, weights=weights),
            batch_rows=batch_rows,
            max_waiting=max_waiting_rows,
            prefix_bytes=prefix_mib * 2**20,
            compile=compile,
            draft=draft_option(draft),
        )
        server = Server(scheduler, settings, on_start=lambda: _announce(settings.model_id, address_of(opened, host)))
        sys.setswitchinterval(SWITCH_SECONDS)
        gc.freeze()  # to look through all that is loaded for garbage would stop every stream, again and again
        asyncio.run(server.serve([opened]))
    finally:
        gc.unfreeze()
        opened.close()
    if server.was_cut_short:
        raise ServingInterrupted("the server has stopped; requests that still ran were cut short")
    logger.info("the server has stopped; all requests had ended")


def _announce(model_id: str, address: str) -> None:
    print_text(f"Serving {model_id} at {address} (Ctrl-C stops it)")
    sys.stdout.flush()


def _model_id(run: Path | None) -> str:
    from patchpad.training.checkpoint import is_bundled

    return "patchpad-bundled" if run is None or is_bundled(run) else run.resolve().name


def _warn_of_network(settings: "Settings") -> None:
    logger.warning("%s can be reached from other machines; what is sent is not encrypted", settings.host)
    if not settings.api_keys:
        logger.warning("NO API KEY IS SET: everyone who reaches this port can use the model; set --api-key-file")
