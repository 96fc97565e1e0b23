"""A text of 10 GB, none of which is on the disk: opening it takes no more memory and time than a small one."""

import os
import sys
import time

import pytest

LARGE, SMALL = 10 * 2**30, 2**20
MOST_BYTES_MORE = 64 * 2**20
MOST_SECONDS_MORE = 20.0
"""On a machine that has much else to do; it was 1 second on one that had less."""


def train(text, out) -> tuple[int, float]:
    """Makes three steps on a text in a process of its own; returns the most memory in bytes, and seconds."""
    options = ["--train.steps", "3", "--train.validation_bytes", "10000", "--device", "cpu"]
    command = ["patchpad", "train", "--config", "tiny-fixed16-entropy", "--data", str(text), "--out", str(out)]
    arguments = [sys.executable, "-m", *command, *options]
    started = time.perf_counter()
    process = os.posix_spawn(
        sys.executable, arguments, {**os.environ, "OMP_NUM_THREADS": "1", "JAXTYPING_DISABLE": "1"}
    )
    _, status, usage = os.wait4(process, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024), time.perf_counter() - started


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows fills the file with zeros, which takes long")
def test_three_steps_on_ten_gigabytes_take_what_they_take_on_a_megabyte(tmp_path):
    found = {}
    for name, size in (("small", SMALL), ("large", LARGE)):
        text = tmp_path / f"{name}.txt"
        text.touch()
        os.truncate(text, size)
        found[name] = train(text, tmp_path / name)
    (small_bytes, small_seconds), (large_bytes, large_seconds) = found["small"], found["large"]
    assert large_bytes < small_bytes + MOST_BYTES_MORE
    assert large_seconds < small_seconds + MOST_SECONDS_MORE
