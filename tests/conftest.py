"""Two ways to run the tests, together in `make test`.

Without JAXTYPING_DISABLE, shapes are checked in every call: the hook is installed before patchpad is imported, and
stays for lazy imports. Properties are then tried on few examples, since checking takes longer than computing. With
JAXTYPING_DISABLE=1 they are tried on more, and `torch.compile`, which the hook would break, is tested too.
"""

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

EXAMPLES = 1 if CHECKS_SHAPES else int(os.environ.get("EXAMPLES", "3"))  # `make test-all` tries more
hypothesis.settings.register_profile("default", deadline=None, max_examples=EXAMPLES, derandomize=True)
hypothesis.settings.load_profile("default")

# A shell starts its background jobs with Ctrl-C ignored, and so do their children: tests of Ctrl-C would fail there.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what `make test` runs as users do, and skips what cannot run here, with its reason."""
    has_tokenizers = importlib.util.find_spec("tokenizers") is not None
    for item in items:
        if not has_tokenizers and "bpe" in getattr(getattr(item, "callspec", None), "id", "").split("-"):
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
    """Turns a missing extra, wherever a test or its fixtures meet it, into a skip with the error as its reason."""
    report = yield
    error = call.excinfo.value if call.excinfo else None
    if isinstance(error, MissingExtraError):
        report.outcome = "skipped"
        report.longrepr = (str(item.path), item.reportinfo()[1] or 0, f"Skipped: {error}")
    return report


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)  # the models are tiny: threads would wait for each other longer than they compute
