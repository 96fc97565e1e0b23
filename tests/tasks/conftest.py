"""Makes `toy_tasks` importable from the tests beside it; files of tasks and suites."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def file(tmp_path):
    """Writes a YAML file, and returns its path."""

    def write(text):
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return path

    return write
