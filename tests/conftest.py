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

import hypothesis  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "recipes"))
"""Scripts there find what lies beside them, as they do when they are run."""

EXAMPLES = 1 if CHECKS_SHAPES else int(os.environ.get("EXAMPLES", "3"))  # `make test-all` tries more
hypothesis.settings.register_profile("default", deadline=None, max_examples=EXAMPLES, derandomize=True)
hypothesis.settings.load_profile("default")

# A shell starts its background jobs with Ctrl-C ignored, and so do their children: tests of Ctrl-C would fail there.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what `make test` runs as users do, and skips compiled code where shapes are checked."""
    for item in items:
        if item.path.parent.name in ("benchmarks", "recipes") or item.path.name == "test_docs.py":
            item.add_marker(pytest.mark.unchecked)
        if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            item.add_marker(pytest.mark.property)
        if CHECKS_SHAPES and "compile" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="torch.compile needs JAXTYPING_DISABLE=1"))


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)  # the models are tiny: threads would wait for each other longer than they compute
