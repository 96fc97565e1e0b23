"""Errors as OpenAI's clients read them: a status and {"error": {message, type, param, code}}."""

from typing import Any

from patchpad.errors import PatchpadError, QueueFullError, SchedulerClosedError
from patchpad.inference.engine import NotFiniteError

RETRY_AFTER_SECONDS = 1

_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """What a client is told in the place of an answer.

    Args:
        status: of HTTP.
        message: what was wrong, and what is allowed.
        param: the field of the request that it is about.
        code: a word for programs.
        headers: further ones of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = headers

    def to_dict(self) -> dict[str, Any]:
        """Returns the body."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def busy(message: str, code: str, status: int = 429) -> ApiError:
    """Returns an error after which a client should try again."""
    return ApiError(status, message, code=code, headers=(("Retry-After", str(RETRY_AFTER_SECONDS)),))


def shutting_down() -> ApiError:
    """Returns what requests get while the server stops."""
    return busy("the server is shutting down", "shutting_down", 503)


def api_error(error: PatchpadError) -> ApiError:
    """Translates an error of the engine or of the model."""
    if isinstance(error, QueueFullError):
        return busy(_in_one_line(error), "queue_full")
    if isinstance(error, SchedulerClosedError):
        return shutting_down()
    if isinstance(error, NotFiniteError):  # of the model, and not of what was asked
        return ApiError(500, _in_one_line(error))
    # Those that a value of the user's causes end the command line with 2.
    return ApiError(400 if error.exit_code == 2 else 500, _in_one_line(error))


def _in_one_line(error: PatchpadError) -> str:
    return f"{error.message}. {error.hint}" if error.hint else error.message
