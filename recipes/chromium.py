"""Drives headless Chromium over its DevTools pipe: pages are opened, clicked, typed into and photographed.

The protocol (https://chromedevtools.github.io/devtools-protocol/) is JSON on two file descriptors, so this needs no
library and no port. For figures of our pages and for the tests that are marked `browser`.
"""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
"""The browser's command; None where there is none."""
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars --remote-debugging-pipe"
)
SECONDS = 60.0
"""Longest wait for an answer of the browser, and for what a test waits for: far more than either takes."""
LEAST_FREE_DESCRIPTOR = 10
MOVE_AND_START = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""The browser reads from descriptor 3 and writes to 4."""
KEYS = {
    "Enter": 13, "Tab": 9, "Escape": 27, " ": 32, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40,
    "Home": 36, "End": 35, "PageUp": 33, "PageDown": 34,
}  # fmt: skip
"""Keys that `Page.press` knows, and their numbers."""
ALT, CONTROL, META, SHIFT = 1, 2, 4, 8
"""What is held down meanwhile, as sums."""


class BrowserError(Exception):
    """The browser has failed, a script in a page has, or what was waited for did not come."""


class Browser:
    """A running browser with a profile of its own; use it in a `with` statement.

    Raises:
        BrowserError: there is no browser on the path.
    """

    def __init__(self) -> None:
        if CHROMIUM is None:
            raise BrowserError("no chromium, chromium-browser, google-chrome or chrome on the path")
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        commands, answers = os.pipe(), os.pipe()
        theirs = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, LEAST_FREE_DESCRIPTOR) for end in (commands[0], answers[1])]
        moved = [sys.executable, "-ISc", MOVE_AND_START, *map(str, theirs)]
        self._process = subprocess.Popen(
            [*moved, CHROMIUM, *FLAGS.split(), f"--user-data-dir={self._profile.name}", "about:blank"],
            pass_fds=theirs,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (*theirs, commands[0], answers[1]):
            os.close(end)
        self._commands, self._answers = commands[1], answers[0]
        self._received = b""
        self._number = 0
        self.pages: dict[str, Page] = {}

    def __enter__(self) -> "Browser":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.call("Browser.close")
            self._process.wait(timeout=20)
        except (BrowserError, OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        for end in (self._commands, self._answers):
            os.close(end)
        self._profile.cleanup()

    def open(
        self,
        url: str,
        *,
        width: int = 1100,
        height: int = 900,
        scale: float = 1,
        dark: bool = False,
        reduced_motion: bool = False,
        before: str = "",
    ) -> "Page":
        """Opens a page in a tab of its own, and waits until it has loaded.

        Args:
            url: its address.
            width: of the window, in CSS pixels.
            height: of the window.
            scale: device pixels for each CSS pixel.
            dark: what the page is told of the reader's colour scheme.
            reduced_motion: whether it is told that the reader wants little motion.
            before: JavaScript that runs before the page's own.
        """
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self.pages[session] = Page(self, session, target)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False
        )
        page.prefer(dark=dark, reduced_motion=reduced_motion)
        page.call("Emulation.setFocusEmulationEnabled", enabled=True)
        if before:
            page.call("Page.addScriptToEvaluateOnNewDocument", source=before)
        page.go(url)
        return page

    def call(self, method: str, session: str | None = None, /, **params: Any) -> dict[str, Any]:
        """Calls a method of the protocol and returns its result; events that come meanwhile go to their pages."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._commands, data) :]
        while True:
            answer = self._next_message()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error'].get('message')}")
                return answer["result"]
            page = self.pages.get(answer.get("sessionId", ""))
            if page is not None:
                page.note(answer.get("method", ""), answer.get("params", {}))

    def _next_message(self) -> dict[str, Any]:
        limit = time.monotonic() + SECONDS
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, limit - time.monotonic()))
            piece = os.read(self._answers, 1 << 20) if ready else b""
            if not piece:
                raise BrowserError("the browser does not answer" if not ready else "the browser has ended")
            self._received += piece
        message, self._received = self._received.split(b"\0", 1)
        return json.loads(message)


class Page:
    """A tab."""

    def __init__(self, browser: Browser, session: str, target: str) -> None:
        self._browser, self._session, self._target = browser, session, target
        self.messages: list[str] = []
        """Warnings and errors of the console, the browser's own among them."""
        self.requests: list[str] = []
        """Addresses that the page has asked for."""
        self.posted: list[tuple[str, str]] = []
        """Addresses that it has sent something to, and what."""

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Calls a method of the protocol for this tab."""
        return self._browser.call(method, self._session, **params)

    def prefer(self, *, dark: bool = False, reduced_motion: bool = False) -> None:
        """Tells the page which colour scheme the reader wants, and whether they want little motion."""
        features = {
            "prefers-color-scheme": "dark" if dark else "light",
            "prefers-reduced-motion": "reduce" if reduced_motion else "no-preference",
        }
        self.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": name, "value": value} for name, value in features.items()],
        )

    def go(self, url: str) -> None:
        """Opens another page in this tab, and waits until it has loaded; what was kept of the last one is dropped."""
        for kept in (self.messages, self.requests, self.posted):
            kept.clear()
        self.evaluate("window.isLeft = true")
        self.call("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete' && !window.isLeft")

    def note(self, method: str, params: dict[str, Any]) -> None:
        """Keeps what the browser tells of the page."""
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.messages.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.messages.append(" ".join(str(one.get("value", one.get("description"))) for one in params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            entry = params["entry"]
            self.messages.append(f"{entry['text']} {entry.get('url', '')}".strip())
        elif method == "Network.requestWillBeSent":
            request = params["request"]
            self.requests.append(request["url"])
            if request["method"] == "POST":
                self.posted.append((request["url"], request.get("postData", "")))

    def evaluate(self, expression: str) -> Any:
        """Returns the value of an expression, awaited if it is a promise, as JSON has it.

        Raises:
            BrowserError: it throws.
        """
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise BrowserError(details.get("exception", {}).get("description") or details["text"])
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """Waits until an expression is true, and returns its value.

        Raises:
            BrowserError: it does not become true.
        """
        limit = time.monotonic() + SECONDS
        while True:
            value = self.evaluate(expression)
            if value:
                return value
            if time.monotonic() > limit:
                raise BrowserError(f"never true: {expression}; the console says: {self.messages}")
            time.sleep(0.03)

    def click(self, selector: str) -> None:
        """Clicks with the mouse in the middle of the first element that the selector finds, scrolled into view."""
        found = json.dumps(selector)
        x, y = self.evaluate(
            f"(() => {{ const one = document.querySelector({found});"
            f" if (!one) throw new Error('nothing is ' + {found});"
            " one.scrollIntoView({ block: 'center', behavior: 'instant' });"
            " const box = one.getBoundingClientRect();"
            " return [box.left + box.width / 2, box.top + box.height / 2]; })()"
        )
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            button = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)

    def press(self, key: str, held: int = 0) -> None:
        """Presses a key of `KEYS`, or a letter, where the focus is."""
        code = KEYS.get(key, ord(key[0].upper()))
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        event = {"key": key, "code": key if len(key) > 1 else "", "windowsVirtualKeyCode": code, "modifiers": held}
        shown = {"text": text} if text and not held & (CONTROL | META | ALT) else {}
        self.call("Input.dispatchKeyEvent", type="keyDown" if shown else "rawKeyDown", **event, **shown)
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def write(self, text: str) -> None:
        """Writes text where the focus is, as an input method would."""
        self.call("Input.insertText", text=text)

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """Photographs the whole page, or what the window shows of it, as PNG."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def screenshot_both(self, path: Path, *, whole: bool = True) -> None:
        """Photographs the page with light colours, and with dark ones for the path with `-dark` behind its name."""
        for dark, place in ((False, path), (True, path.with_stem(f"{path.stem}-dark"))):
            self.prefer(dark=dark, reduced_motion=True)
            self.screenshot(place, whole=whole)

    def close(self) -> None:
        """Closes the tab."""
        self._browser.call("Target.closeTarget", targetId=self._target)
        self._browser.pages.pop(self._session, None)
