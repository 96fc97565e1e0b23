"""The playground's page at `/`, its files, and what it asks the model."""

import asyncio
from functools import partial
from typing import Any

from patchpad.files import without_infinities
from patchpad.model.language_model import LanguageModel
from patchpad.serving.api_error import ApiError
from patchpad.serving.connection import Receive, Scope, Send, send_bytes, send_json, while_connected
from patchpad.serving.model_card import ModelCard
from patchpad.serving.playground import PAGE_POLICY, read_files
from patchpad.serving.playground.marks import marks
from patchpad.serving.playground.next_byte import next_byte
from patchpad.serving.scheduler import Scheduler
from patchpad.serving.schemas import ProbeBody

PAGE = "index.html"


class Playground:
    """The files are read once: a request names one of them or gets none.

    Args:
        scheduler: calls functions of the model.
        card: of the model.
    """

    def __init__(self, scheduler: Scheduler, card: ModelCard) -> None:
        self._scheduler = scheduler
        self._card = card
        self._files = read_files()

    async def page(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the page."""
        await self._send_file(PAGE, send)

    async def file(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends one of its files."""
        await self._send_file(scope["path_params"]["name"], send)

    async def _send_file(self, name: str, send: Send) -> None:
        if name not in self._files:
            raise ApiError(404, "nothing is at this path", code="not_found")
        content, kind = self._files[name]
        headers = (("Content-Security-Policy", PAGE_POLICY), ("Cache-Control", "no-cache"))
        await send_bytes(send, 200, content, kind, headers)

    async def next_byte(self, body: ProbeBody, receive: Receive, send: Send) -> None:
        """Tells what the model expects after a byte, with and without a scratchpad."""
        await self._call(partial(next_byte, prompt=self._prompt(body), position=body.position), body, receive, send)

    async def marks(self, body: ProbeBody, receive: Receive, send: Send) -> None:
        """Tells what the model decides at each byte of a prompt."""
        await self._call(partial(marks, prompt=self._prompt(body)), body, receive, send)

    def _prompt(self, body: ProbeBody) -> bytes:
        if len(body.prompt) != 1:
            raise ApiError(400, f"`prompt` is a list of {len(body.prompt)}; allowed: one prompt", param="prompt")
        data, longest = body.prompt[0].data, self._card.settings.max_prompt_bytes
        if len(data) > longest:
            raise ApiError(400, f"the prompt has {len(data)} bytes; allowed: {longest}", param="prompt")
        return data

    async def _call(self, function: "partial[dict[str, Any]]", body: ProbeBody, receive: Receive, send: Send) -> None:
        threshold = self._card.threshold(body.scratchpad_threshold, body.compute)

        def call(model: LanguageModel) -> dict[str, Any]:
            return function(model, scratchpad_threshold_nats=threshold)

        async def wait() -> dict[str, Any]:
            async with asyncio.timeout(self._card.settings.request_seconds):
                return await asyncio.wrap_future(self._scheduler.call(call))

        try:
            found = await while_connected(receive, wait())
        except TimeoutError:
            raise ApiError(504, "the request was not done in time", code="timeout") from None
        await send_json(send, 200, without_infinities(found))
