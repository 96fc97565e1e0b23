"""Recipes are scripts beside the package; source archives come without them."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
collect_ignore_glob = [] if (ROOT / "recipes").is_dir() and (ROOT / "benchmarks").is_dir() else ["test_*.py"]
