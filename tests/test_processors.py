"""The work of other processes is read from /proc/stat, for the processors that this one may use."""

import os
import time

import pytest

from patchpad import processors
from patchpad.processors import OtherWork


class Machine:
    """A clock, this process's own work, and a /proc/stat, which all move together."""

    def __init__(self, path, monkeypatch, usable=(0, 1), count=4):
        self.path, self.now, self.own = path, 50.0, 0.0
        self.busy = [0.0] * count
        self.write()
        monkeypatch.setattr(processors, "STAT", path)
        monkeypatch.setattr(processors, "usable_processors", lambda: set(usable))
        monkeypatch.setattr(os, "sysconf", lambda name: 100)
        monkeypatch.setattr(time, "process_time", lambda: self.own)

    def write(self):
        rows = [f"cpu{n} {int(100 * b)} 0 0 {int(100 * (self.now - b))} 0 0 0 0 0 0" for n, b in enumerate(self.busy)]
        self.path.write_text("\n".join(["cpu 1 2 3 4 5 6 7 8 9 10", *rows, "intr 12345 6", "ctxt 9"]) + "\n")

    def go(self, seconds, busy, own=0.0):
        self.now += seconds
        self.own += own * seconds
        self.busy = [before + share * seconds for before, share in zip(self.busy, busy, strict=True)]
        self.write()


@pytest.fixture
def machine(tmp_path, monkeypatch):
    return Machine(tmp_path / "stat", monkeypatch)


def test_work_of_others_is_all_work_but_that_of_this_process_and_of_processors_out_of_reach(machine):
    work = OtherWork(clock=lambda: machine.now)
    machine.go(1.0, [1.0, 0.5, 1.0, 1.0])
    assert work.processors() == pytest.approx(1.5)
    machine.go(2.0, [1.0, 1.0, 0.0, 0.0], own=1.5)
    assert work.processors() == pytest.approx(0.5)
    machine.go(2.0, [0.5, 0.0, 1.0, 1.0], own=0.6)
    assert work.processors() == 0.0


def test_no_time_between_two_readings_says_nothing(machine):
    work = OtherWork(clock=lambda: machine.now)
    assert work.processors() is None


@pytest.mark.parametrize("content", [None, "", "cpu 1 2 3", "cpu0 x y z 1 2 3 4\n"])
def test_without_the_file_it_is_the_load_of_the_last_minute(machine, monkeypatch, content):
    if content is None:
        machine.path.unlink()
    else:
        machine.path.write_text(content)
    monkeypatch.setattr(os, "getloadavg", lambda: (2.5, 0, 0))
    work = OtherWork(clock=lambda: machine.now)
    machine.now, machine.own = machine.now + 1, machine.own + 0.5
    assert work.processors() == pytest.approx(2.0)
    monkeypatch.delattr(os, "getloadavg")
    machine.now += 1
    assert work.processors() is None


@pytest.mark.skipif(not processors.STAT.exists(), reason="there is no /proc/stat")
def test_this_machine_can_be_read():
    work = OtherWork()
    time.sleep(0.02)
    busy = work.processors()
    assert busy is not None
    assert 0 <= busy <= len(processors.usable_processors()) + 1
