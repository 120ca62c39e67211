"""Runs a file of test cases against one ZooKeeper-compatible server and prints one line per case.

The idea: a case is a function `test_...(t)`, found in the order of its file. It works below `t.root`, a path no other
case uses, so cases run side by side; what takes time (expiry, timeouts) is waited for once, not once per case. A case
marked `@alone` runs after all others, by itself, because it looks at something the whole server shares.

Output: `ok NAME`, `skip NAME: reason` or `FAIL NAME: reason`, then a line of totals. Exit status 0 only if nothing failed.

Options: `--tick-ms` is the server's tickTime. `--apache` says that the server is Apache ZooKeeper: expectations it is
known to break on purpose or in its 3.8 releases (the version is asked with `srvr`) are then relaxed or skipped. Without it
the expectation is Apache 3.9.5's behaviour plus the deliberate deviations of this server.

Invariants: nothing waits without a deadline; no case leaves a thread that could hold up the exit.
Not here: how a case speaks to the server (`wire.py`, or kazoo).
"""

import argparse
import inspect
import os
import queue
import socket
import sys
import threading
import time
import traceback

# A case that has not ended by then is reported as failed and left behind.
CASE_SECONDS_MAX = 60.0
# How long a single expected thing may take on a busy machine.
WAIT_SECONDS = 10.0
# What a busy machine may add to a time that is measured against an upper bound.
SCHEDULING_SECONDS = 0.75


class Skip(Exception):
    """The case does not apply to this server."""


def alone(case):
    """Marks a case that must not run beside others."""
    case.alone = True
    return case


def wait_for(what, condition, seconds=WAIT_SECONDS):
    """Polls until `condition()` is true and returns its value; fails with `what` when the time is up."""
    deadline = time.monotonic() + seconds
    pause = 0.001
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s for {what}")
        time.sleep(pause)
        pause = min(pause * 2, 0.02)


def check_equal(got, want, what="value"):
    assert got == want, f"{what}: got {got!r}, want {want!r}"


def four_letter_word(host, port, word, seconds=WAIT_SECONDS):
    """The whole answer to a word, read until the server closes."""
    with socket.create_connection((host, port), timeout=seconds) as sock:
        sock.sendall(word)
        answer = b""
        while True:
            try:
                piece = sock.recv(65536)
            except ConnectionResetError:
                return answer
            if not piece:
                return answer
            answer += piece


class Case:
    """What one running case is given."""

    def __init__(self, suite, name):
        self.host, self.port = suite.host, suite.port
        self.tick = suite.options.tick_ms / 1000.0
        self.tick_ms = suite.options.tick_ms
        self.options = suite.options
        self.apache = suite.apache  # None, or a version such as (3, 8)
        self.root = f"/{name.removeprefix('test_').replace('_', '-')}-{suite.run_id}"
        self._cleanups = []

    @property
    def apache38(self):
        """True on an Apache server older than 3.9."""
        return self.apache is not None and self.apache < (3, 9)

    def skip_on_apache(self, why):
        if self.apache is not None:
            raise Skip(f"Apache: {why}")

    def skip_on_apache38(self, why):
        if self.apache38:
            raise Skip(f"Apache 3.8: {why}")

    def cleanup(self, action):
        """Runs `action` when the case has ended, last added first."""
        self._cleanups.append(action)

    def end(self):
        while self._cleanups:
            try:
                self._cleanups.pop()()
            except Exception:  # The case has been judged already.
                pass

    def word(self, word):
        """The answer to a four-letter word as text; skips the case if the server does not allow the word."""
        answer = four_letter_word(self.host, self.port, word.encode()).decode()
        if "is not in the whitelist" in answer:
            raise Skip(f"{word} is not in the server's whitelist")
        return answer


class Suite:
    def __init__(self, module, options):
        self.options = options
        self.host, _, port = options.server.rpartition(":")
        self.port = int(port)
        self.run_id = f"{os.getpid():x}-{time.time_ns() // 1_000_000 & 0xFFFFFF:x}"
        self.apache = self._apache_version() if options.apache else None
        self.cases = [
            (name, case)
            for name, case in vars(module).items()
            if name.startswith("test_") and inspect.isfunction(case) and options.filter in name
        ]
        self._results = queue.Queue()

    def _apache_version(self):
        text = four_letter_word(self.host, self.port, b"srvr").decode()
        version = text.split("version:", 1)[1].split("-", 1)[0].strip()
        return tuple(int(part) for part in version.split("."))

    def run(self):
        together = [(name, case) for name, case in self.cases if not getattr(case, "alone", False)]
        apart = [(name, case) for name, case in self.cases if getattr(case, "alone", False)]
        counts = {"ok": 0, "skip": 0, "FAIL": 0}
        self._run_some(together, self.options.jobs, counts)
        self._run_some(apart, 1, counts)
        print(f"{counts['ok']} ok, {counts['skip']} skipped, {counts['FAIL']} failed", flush=True)
        return 0 if self.cases and not counts["FAIL"] else 1

    def _run_some(self, cases, jobs, counts):
        waiting, running = list(cases), {}
        while waiting or running:
            while waiting and len(running) < jobs:
                name, case = waiting.pop(0)
                running[name] = time.monotonic() + CASE_SECONDS_MAX
                threading.Thread(target=self._run_one, args=(name, case), daemon=True).start()
            try:
                name, verdict, reason = self._results.get(timeout=0.1)
            except queue.Empty:
                for name in [name for name, deadline in running.items() if time.monotonic() > deadline]:
                    del running[name]
                    self._report(name, "FAIL", f"did not end within {CASE_SECONDS_MAX:g} s", counts)
                continue
            if running.pop(name, None) is not None:
                self._report(name, verdict, reason, counts)

    def _run_one(self, name, case):
        given = Case(self, name)
        try:
            case(given)
            result = ("ok", "")
        except Skip as why:
            result = ("skip", str(why))
        except BaseException as error:
            result = ("FAIL", _explain(error))
        given.end()
        self._results.put((name, *result))

    @staticmethod
    def _report(name, verdict, reason, counts):
        counts[verdict] += 1
        print(f"{verdict} {name}: {reason}" if reason else f"{verdict} {name}", flush=True)


def _explain(error):
    """One line: the error, and the lines of the test files it passed through."""
    here = os.path.dirname(os.path.abspath(__file__))
    frames = [
        f"{os.path.basename(frame.filename)}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if os.path.dirname(os.path.abspath(frame.filename)) == here and frame.name != "_run_one"
    ]
    text = " ".join(str(error).split()) or "assertion"
    kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
    return f"{kind}{text[:600]} ({' < '.join(reversed(frames))})"


def main(module_name, add_options=None):
    module = sys.modules[module_name]
    parser = argparse.ArgumentParser(description=module.__doc__.split("\n", 1)[0])
    parser.add_argument("server", metavar="HOST:PORT")
    parser.add_argument("filter", nargs="?", default="", help="run only the cases whose name contains this")
    parser.add_argument("--tick-ms", type=int, default=2000, help="the server's tickTime (default 2000)")
    parser.add_argument("--apache", action="store_true", help="the server is Apache ZooKeeper")
    parser.add_argument("--jobs", type=int, default=8, help="cases that run side by side (default 8)")
    if add_options:
        add_options(parser)
    status = Suite(module, parser.parse_intermixed_args()).run()
    sys.stdout.flush()
    # Threads of failed cases may still wait for the server; they must not hold up the exit.
    os._exit(status)
