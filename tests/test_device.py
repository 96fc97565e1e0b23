import json
import logging
from pathlib import Path

import pytest
import torch

from patchpad import device
from patchpad.device import select_device

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"


@pytest.fixture
def with_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    device._warn_of_first_run.cache_clear()
    yield
    device._warn_of_first_run.cache_clear()


def warnings_of(caplog) -> list[str]:
    return [record.message for record in caplog.records if record.levelno == logging.WARNING]


def test_auto_warns_once_that_nothing_has_run_on_a_gpu(with_cuda, monkeypatch, caplog):
    monkeypatch.setattr(device, "HAS_RUN_ON_A_GPU", False)
    assert [select_device("auto").type for _ in range(2)] == ["cuda", "cuda"]
    (message,) = warnings_of(caplog)
    assert "never been run on a GPU" in message
    assert "device cpu" in message


def test_no_warning_where_a_gpu_has_been_tried_or_was_asked_for(with_cuda, monkeypatch, caplog):
    monkeypatch.setattr(device, "HAS_RUN_ON_A_GPU", False)
    select_device("cuda")
    select_device("cpu")
    monkeypatch.setattr(device, "HAS_RUN_ON_A_GPU", True)
    select_device("auto")
    assert not warnings_of(caplog)


def test_auto_without_cuda_does_not_warn(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert select_device("auto").type in ("cpu", "mps")
    assert not warnings_of(caplog)


@pytest.mark.skipif(not RESULTS.is_dir(), reason="source archives come without results")
def test_the_warning_ends_with_the_first_result_of_a_gpu():
    origins = [json.loads(file.read_text(encoding="utf-8"))["provenance"] for file in RESULTS.glob("*.json")]
    assert any(origin["device"] == "cuda" for origin in origins) == device.HAS_RUN_ON_A_GPU
