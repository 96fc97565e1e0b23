"""Guards of the CUDA paths, on a CPU: they run on a pretended device, in a process of their own (`make test-cuda`)."""

import logging
import sys
from pathlib import Path

import pytest

if "pretended_cuda" not in sys.modules:  # the plugin has loaded it; the other modes of `make test` know no such device
    collect_ignore_glob = ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.pretended)


@pytest.fixture(autouse=True)
def _nothing_gives_way(caplog):
    yield
    warnings = [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.WARNING]
    assert not warnings
