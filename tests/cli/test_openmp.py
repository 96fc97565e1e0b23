"""Beside other work, and only there, waiting threads are told to sleep before torch is loaded."""

import os
import subprocess
import sys

import pytest

from patchpad.cli import openmp
from patchpad.cli.openmp import adapt_openmp
from patchpad.processors import WAITING_VARIABLES


@pytest.fixture
def work(monkeypatch):
    """Work of others on two processors, as if torch was not loaded yet."""

    class Work:
        busy = 1.0
        asked = 0

        def processors(self):
            Work.asked += 1
            return Work.busy

    Work.asked = 0
    monkeypatch.setattr(openmp, "OtherWork", Work)
    monkeypatch.setattr(openmp, "SAMPLE_SECONDS", 0)
    monkeypatch.setattr(openmp, "usable_processors", lambda: {0, 1})
    monkeypatch.delitem(sys.modules, "torch")
    for name in (*WAITING_VARIABLES, "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "")  # put back what was there
        monkeypatch.delenv(name)
    return Work


def chosen(*tokens):
    adapt_openmp(tokens)
    return os.environ.pop("OMP_WAIT_POLICY", None)


@pytest.mark.parametrize("command", openmp.COMMANDS)
def test_busy_machine_makes_threads_sleep_and_a_free_one_changes_nothing(work, command):
    assert chosen(command, "--out", "x") == "PASSIVE"
    for free in (0.0, 0.4, None):
        work.busy = free
        assert chosen(command, "--out", "x") is None
    assert work.asked == 4


def test_only_commands_that_compute_look(work):
    for tokens in ((), ("cost",), ("generate", "x"), ("--help",), ("train", "--help"), ("study", "-h")):
        assert chosen(*tokens) is None
    assert work.asked == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [("OMP_WAIT_POLICY", "ACTIVE"), ("GOMP_SPINCOUNT", "7"), ("KMP_BLOCKTIME", "0"), ("OMP_NUM_THREADS", "1")],
)
def test_what_the_user_has_set_stays(work, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    before = dict(os.environ)
    adapt_openmp(["train"])
    assert dict(os.environ) == before
    assert work.asked == 0


def test_threads_that_find_a_free_processor_may_spin(work, monkeypatch):
    monkeypatch.setattr(openmp, "usable_processors", lambda: set(range(8)))
    work.busy = 3.0
    assert chosen("train") == "PASSIVE"
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert chosen("train") is None
    work.busy = 5.0
    assert chosen("train") == "PASSIVE"


def test_a_loaded_torch_has_read_its_variables(work, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", object())
    assert chosen("train") is None


def test_it_is_asked_before_torch_is_loaded():
    code = (
        "import sys, patchpad.cli.app as app\n"
        "def spy(tokens):\n    print(tokens, 'torch' in sys.modules)\n"
        "app.adapt_openmp = spy\n"
        "app.main(['cost', '--config', 'tiny'])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.startswith("['cost', '--config', 'tiny'] False")
