"""First thing that runs inside a sandbox: it lowers its limits, gives up its rights, then plays its part."""

import io
import json
import os
import resource
import sys
from typing import Any


def main(options: dict[str, Any]) -> None:
    """Lowers the limits for good, becomes another user where asked to, and runs a program, or judges one.

    Args:
        options: `part` ("program", "hosted_program" or "judge"), `limits` (names of RLIMIT_* to numbers), `user_id`
            (None to stay who one is) and `link` (a file descriptor, for the two parts that talk).
    """
    source = sys.stdin.buffer.read().decode("utf-8", "surrogatepass")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False))
    for name, value in options["limits"].items():
        resource.setrlimit(getattr(resource, name), (value, value + 1 if name == "RLIMIT_CPU" else value))
    user_id = options["user_id"]
    if user_id is not None:
        os.setgroups([])
        os.setresgid(user_id, user_id, user_id)
        os.setresuid(user_id, user_id, user_id)
    if options["part"] == "judge":
        from .judge import judge

        judge(json.loads(source), options["link"])
    elif options["part"] == "hosted_program":
        from .host import host

        host(source, options["link"])
    else:
        exec(compile(source, "<program>", "exec"), {"__name__": "__main__"})
