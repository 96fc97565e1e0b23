"""The tests marked `gpu`, with a result for each as soon as it is there.

Usage: python benchmarks/gpu_tests.py [-k finite] [-n 4]
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from measuring import add_to_results, arguments
from origin import ROOT

MARK = "mark.gpu"
LONGEST_REASON = 2000


class Recorder:
    """A plugin of pytest that notes how each test ended."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Notes a test once: what its call gave, or what kept it from being called."""
        if report.when != "call" and report.passed:
            return
        self.rows.append(
            {
                "part": "tests",
                "test": report.nodeid,
                "outcome": report.outcome,
                "seconds": report.duration,
                "reason": "" if report.passed else str(report.longrepr)[-LONGEST_REASON:],
            }
        )
        self.write()

    def write(self) -> None:
        """Is called after each test."""


def gpu_test_files(folder: Path = ROOT / "tests") -> list[Path]:
    """Returns the files that hold tests marked `gpu`; other files may need packages that are not there."""
    files = sorted(folder.rglob("test_*.py"))
    return [file for file in files if MARK in file.read_text(encoding="utf-8")]


def run(files: Sequence[Path], words: Sequence[str], recorder: Recorder) -> int:
    """Runs the tests of files that are marked `gpu`; returns pytest's exit status.

    Warnings are no errors here: those of another torch or driver say nothing of the package.
    """
    options = ["-m", "gpu", "-q", "-p", "no:cacheprovider", "-W", "default", "--rootdir", str(ROOT), *words]
    return int(pytest.main([*options, *map(str, files)], plugins=[recorder]))


def main() -> None:
    """Runs them; what this script does not know goes to pytest."""
    parser = arguments(__doc__.splitlines()[0])
    parser.set_defaults(device="cuda")
    options, words = parser.parse_known_args()
    recorder = Recorder()
    recorder.write = lambda: add_to_results(options, "gpu-tests", recorder.rows[-1:])
    sys.exit(run(gpu_test_files(), words, recorder))


if __name__ == "__main__":
    main()
