"""Two ways to run the tests, together in `make test`; `tests/cuda` is a third.

Without JAXTYPING_DISABLE, shapes are checked in every call: the hook is installed before patchpad is imported, and
stays for lazy imports. Checking takes longer than computing, so `make test` leaves properties out there, and
`make test-all` tries them on one example. With JAXTYPING_DISABLE=1 they are tried on more, and `torch.compile`, which
the hook would break, is tested too.
"""

import logging
import os
import signal
import sys
from pathlib import Path

import jaxtyping

CHECKS_SHAPES = os.environ.get("JAXTYPING_DISABLE") != "1"
if CHECKS_SHAPES:
    jaxtyping.install_import_hook("patchpad", "beartype.beartype")

import importlib.util  # noqa: E402
from collections.abc import Generator  # noqa: E402

import hypothesis  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

from patchpad.errors import MissingExtraError  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "recipes"))
"""Scripts there find what lies beside them, as they do when they are run."""

EXAMPLES = 1 if CHECKS_SHAPES else int(os.environ.get("EXAMPLES", "2"))  # `make test-all` tries more
hypothesis.settings.register_profile("default", deadline=None, max_examples=EXAMPLES, derandomize=True)
hypothesis.settings.load_profile("default")

# A shell starts its background jobs with Ctrl-C ignored, `nohup` ignores hang-ups, and so do their children: tests of
# these signals would fail there.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

LINKS_NOT_ALLOWED = 1314  # an error number of Windows
if os.name == "nt":
    del os.kill  # which would end the run of the tests there: it sends no signals


@pytest.fixture(autouse=True)
def _graphs_are_captured(monkeypatch):
    """Makes a CUDA graph that cannot be captured an error; users get a warning."""
    monkeypatch.setattr("patchpad.inference.cuda_graphs.FAILURES_ARE_ERRORS", True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what `make test` runs as users do, and skips what cannot run here, with its reason."""
    has_tokenizers = importlib.util.find_spec("tokenizers") is not None
    for item in items:
        words = getattr(getattr(item, "callspec", None), "id", "").split("-")
        if not has_tokenizers and ("bpe" in words or "tokens" in words):
            item.add_marker(pytest.mark.skip(reason='needs the extra `bpe`: pip install "patchpad[bpe]"'))
        if item.path.parent.name in ("benchmarks", "recipes") or item.path.name == "test_docs.py":
            item.add_marker(pytest.mark.unchecked)
        if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            item.add_marker(pytest.mark.property)
        if CHECKS_SHAPES and "compile" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="torch.compile needs JAXTYPING_DISABLE=1"))
        elif CHECKS_SHAPES and "unchecked" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="runs without the checks of shapes: JAXTYPING_DISABLE=1"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turns what this machine lacks, wherever a test or its fixtures meet it, into a skip with its reason."""
    report = yield
    if call.excinfo and (reason := what_is_lacking(call.excinfo.value)):
        report.outcome = "skipped"
        report.longrepr = (str(item.path), item.reportinfo()[1] or 0, f"Skipped: {reason}")
    return report


def what_is_lacking(error: BaseException) -> str | None:
    """Returns why an error is no fault of the package: a missing extra, or what Windows does not have."""
    if isinstance(error, MissingExtraError):
        return str(error)
    if os.name == "nt" and isinstance(error, AttributeError) and error.obj in (os, signal):
        return f"Windows lacks it: {error}"
    if os.name == "nt" and getattr(error, "winerror", None) == LINKS_NOT_ALLOWED:
        return f"Windows lets only some users make links: {error}"
    return None


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)  # the models are tiny: threads would wait for each other longer than they compute


@pytest.fixture(autouse=True)
def _log_level_stays_in_the_test():
    # The command line sets the level, in fixtures too, and a log that is kept may hold paths that are not UTF-8.
    logger = logging.getLogger("patchpad")
    logger.setLevel(logging.NOTSET)
    yield
    logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium, which all tests share."""
    from chromium import CHROMIUM, Browser  # only where a browser is wanted

    if CHROMIUM is None:
        pytest.skip("no chromium, chromium-browser, google-chrome or chrome on the path")
    with Browser() as found:
        yield found
