"""Benchmarks are scripts beside the package: their folder is put on the path, as it is when they are run."""

import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
collect_ignore_glob = [] if BENCHMARKS.is_dir() else ["test_*.py"]  # source archives come without them
