"""The server's routes. The only place that imports starlette.

Every answer is sent through `Guard`, which checks who asks and turns every error into an answer.
"""

import secrets
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from patchpad.serving.api_error import ApiError, shutting_down
from patchpad.serving.chat import ChatForm, chat_job
from patchpad.serving.completions import CompletionForm, completion_job
from patchpad.serving.connection import Receive, Scope, Send, read_body, send_bytes, send_json
from patchpad.serving.extra import missing_extra
from patchpad.serving.generating import Answer, Form
from patchpad.serving.guard import Guard
from patchpad.serving.jobs import Job
from patchpad.serving.json_body import parse_body
from patchpad.serving.metrics import Metrics
from patchpad.serving.model_card import ModelCard
from patchpad.serving.playground_routes import Playground
from patchpad.serving.scheduler import Scheduler
from patchpad.serving.schemas import ChatBody, CompletionBody, DetokenizeBody, ProbeBody, TokenizeBody, checked
from patchpad.serving.settings import Settings
from patchpad.serving.tokens import detokenize, tokenize, tokenizer_info

try:
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.routing import Route
except ImportError as error:
    raise missing_extra(error) from error

Endpoint = Callable[[Scope, Receive, Send], Awaitable[None]]


def build_app(scheduler: Scheduler, settings: Settings) -> Starlette:
    """Returns the server as an ASGI application.

    Args:
        scheduler: runs the model. Start it in the application's event loop, with `post` being the loop's
            `call_soon_threadsafe`.
        settings: limits, keys, and the model's name.

    Raises:
        GenerationError: a default compute that the model cannot serve.
        InputError: a default threshold that it does not take.
    """
    card = ModelCard(scheduler.model, settings)
    service = Service(scheduler, card)
    playground = Playground(scheduler, card)
    routes = [
        _route("/health", "GET", service.health),
        _route("/metrics", "GET", service.show_metrics),
        _route("/v1/models", "GET", service.list_models),
        _route("/v1/models/{model_id:path}", "GET", service.show_model),
        _route("/v1/completions", "POST", service.complete),
        _route("/v1/chat/completions", "POST", service.chat),
        _route("/tokenize", "POST", service.tokenize),
        _route("/detokenize", "POST", service.detokenize),
        _route("/tokenizer_info", "GET", service.tokenizer_info),
        _route("/", "GET", playground.page),
        _route("/playground/next-byte", "POST", service.probe(playground.next_byte)),
        _route("/playground/marks", "POST", service.probe(playground.marks)),
        _route("/playground/{name}", "GET", playground.file),
    ]
    guard = Middleware(partial(Guard, settings=settings, metrics=service.metrics))
    app = Starlette(routes=routes, middleware=[guard])
    app.router.redirect_slashes = False  # a redirect would repeat the host that the client named
    app.router.default = _nothing_here
    return app


def _route(path: str, method: str, endpoint: Endpoint) -> Route:
    return Route(path, _Endpoint(method, endpoint))


class _Endpoint:
    """An ASGI application for one method of one path."""

    def __init__(self, method: str, endpoint: Endpoint) -> None:
        self._methods = (method, "HEAD") if method == "GET" else (method,)
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in self._methods:
            allowed = ", ".join(self._methods)
            raise ApiError(405, f"the method is not allowed here; allowed: {allowed}", headers=(("Allow", allowed),))
        await self._endpoint(scope, receive, send)


async def _nothing_here(scope: Scope, receive: Receive, send: Send) -> None:
    raise ApiError(404, "nothing is at this path", code="not_found")


class Service:
    """What the routes do.

    Args:
        scheduler: runs the model.
        card: facts about it.
    """

    def __init__(self, scheduler: Scheduler, card: ModelCard) -> None:
        self._scheduler = scheduler
        self._card = card
        self._created = int(time.time())
        self.metrics = Metrics(scheduler)

    async def health(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Says whether the engine is alive; it does not wait for it."""
        counts = self._scheduler.counts()
        if counts.has_died or (not counts.is_alive and counts.is_accepting):
            raise ApiError(500, "the engine has stopped", code="engine_dead")
        if not counts.is_accepting:
            raise shutting_down()
        await send_json(send, 200, {"status": "ok"})

    async def show_metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Tells all counts to Prometheus."""
        await send_bytes(send, 200, self.metrics.text(), Metrics.content_type)

    async def list_models(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lists the one model."""
        await send_json(send, 200, {"object": "list", "data": [self._model()]})

    async def show_model(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Describes the one model."""
        if scope["path_params"]["model_id"] != self._card.settings.model_id:
            raise ApiError(404, "no such model is served here", code="model_not_found")
        await send_json(send, 200, self._model())

    def _model(self) -> dict[str, Any]:
        return {
            "id": self._card.settings.model_id,
            "object": "model",
            "created": self._created,
            "owned_by": "patchpad",
            "patchpad": self._card.to_dict(),
        }

    async def complete(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Continues prompts."""
        body = checked(CompletionBody, await self._body(scope, receive))
        job = completion_job(body, self._card)
        with_usage = body.stream_options is not None and body.stream_options.include_usage
        await self._answer(job, CompletionForm(job, self._card), body.stream, with_usage, receive, send)

    async def chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Continues a chat."""
        body = checked(ChatBody, await self._body(scope, receive))
        job = chat_job(body, self._card)
        with_usage = body.stream_options is not None and body.stream_options.include_usage
        await self._answer(job, ChatForm(job, self._card), body.stream, with_usage, receive, send)

    async def _answer(
        self, job: Job, form: Form, is_stream: bool | None, with_usage: bool, receive: Receive, send: Send
    ) -> None:
        number = secrets.token_hex(12)
        answer = Answer(job, form, self._card, self._scheduler, number, self.metrics.first_byte)
        if is_stream:
            await answer.send_stream(receive, send, with_usage=with_usage)
        else:
            await answer.send_whole(receive, send)

    async def tokenize(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Turns text into ids."""
        await send_json(send, 200, tokenize(checked(TokenizeBody, await self._body(scope, receive)), self._card))

    async def detokenize(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Turns ids into text."""
        await send_json(send, 200, detokenize(checked(DetokenizeBody, await self._body(scope, receive))))

    async def tokenizer_info(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Describes the tokenizer: a token is a byte."""
        await send_json(send, 200, tokenizer_info(self._card))

    def probe(self, endpoint: Callable[[ProbeBody, Receive, Send], Awaitable[None]]) -> Endpoint:
        """Returns an endpoint that reads a question of the playground first."""

        async def read_first(scope: Scope, receive: Receive, send: Send) -> None:
            await endpoint(checked(ProbeBody, await self._body(scope, receive)), receive, send)

        return read_first

    async def _body(self, scope: Scope, receive: Receive) -> dict[str, Any]:
        return parse_body(await read_body(scope, receive, self._card.settings.max_body_bytes))
