"""Processor time: what a round cost in the processes that did the work, and how much of the machine others took meanwhile."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable

import psutil


class Meter:
    """Measures from its making to `stop`. Processes are given with all that they have started."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = list(pids)
        self._before_s = _cpu_s(self._pids)
        self._bench_before_s = _cpu_s([os.getpid()])
        self._machine_before_s = _busy_s()
        self._began = time.monotonic()

    def stop(self) -> Meter:
        """Take the second reading."""
        self.seconds = time.monotonic() - self._began
        self.cpu_s = _cpu_s(self._pids) - self._before_s
        bench_s = _cpu_s([os.getpid()]) - self._bench_before_s
        self.others_cores = max(0.0, (_busy_s() - self._machine_before_s - bench_s) / self.seconds)
        return self


def _cpu_s(pids: Iterable[int]) -> float:
    """Seconds of processor time of these processes, of their living descendants, and of those that they have seen end: a
    backend of PostgreSQL may live for less than a window.
    """
    total = 0.0
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(pid)
            for process in [root, *root.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    times = process.cpu_times()
                    total += times.user + times.system + times.children_user + times.children_system
    return total


def _busy_s() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq)
