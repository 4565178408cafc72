"""The workers meet over plain TCP, and compare their commands, before TensorFlow connects them.

TensorFlow would wait in C++ for a worker that has not started, say nothing, and take SIGTERM for
itself. Here, worker 0 listens at its address, at which TensorFlow listens later. The others ask it
twice a second: a line of JSON says who asks, a line of JSON answers who is missing, or the verdict.
No connection lasts, so a worker that ends and starts again while others wait needs no care.
"""

import contextlib
import json
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from absl import logging

from input_pipeline.errors import UsageError, UserError
from input_pipeline.service.data_service import is_loopback, parse_address
from loops.distribution import blocking_connect
from loops.distribution.cluster_resolver import Cluster
from loops.runtime.stop_signals import StoppedBySignal, StopSignals, exit_now

T = TypeVar("T")

_PROTOCOL = "imagenet-loops workers 1"
_POLL_SECONDS = 0.2
_ASK_SECONDS = 0.5
# How long one question and its answer may take.
_EXCHANGE_SECONDS = 5.0
# A worker that has not asked for this time is missing again.
_ABSENT_SECONDS = 10.0
# How long worker 0 stays to give the verdict to all, and at least, if it ends them.
_VERDICT_SECONDS = 15.0
_LAST_VERDICT_SECONDS = 2.0
_NAME_SECONDS = 30.0
_LONGEST_LINE = 1 << 20
# What a worker says about itself, and what all hear in the end: text of an error, exit code.
_Report = dict[str, Any]
_Verdict = tuple[str, int]
_AGREED = ("", 0)
# The value of a fact that a worker does not have.
NOT_SET = "not set"
_LIST = "the list of workers (TF_CONFIG or Slurm)"
_FIRST_REPORT_SECONDS = 3.0
_REPORT_SECONDS = 60.0


def meet(cluster: Cluster, facts: Mapping[str, str], failure: UserError | None = None) -> None:
    """Waits until all workers are there, and compares their facts.

    Args:
      cluster: the workers.
      facts: what must be equal on all workers, by name; an empty value is unknown.
      failure: an error of this worker, which it tells to the others that come in time.

    Raises:
      UsageError: a fact differs, on all workers; or an address cannot be used.
      UserError: another worker has failed; the exit code is that of its error.
      StoppedBySignal: a signal ended the wait.
    """
    addresses = cluster.addresses
    if len(addresses) == 1:
        return
    report = {
        "protocol": _PROTOCOL,
        "number": cluster.number,
        "process": f"process {os.getpid()} of {socket.gethostname()}",
        "token": secrets.token_hex(8),
        "facts": {_LIST: " ".join(addresses), **facts},
        "failure": (str(failure), failure.exit_code) if failure else None,
    }
    with StopSignals() as signals, _listen(cluster) as listener:
        wait = Wait(cluster, signals)
        if cluster.number == 0:
            verdict = _Host(cluster, report, listener).run(wait)
        else:
            verdict = _ask_host(cluster, report, wait)
    if verdict != _AGREED and not failure:
        raise _to_error(verdict)


def call_while_waiting(cluster: Cluster, connect: Callable[[], T]) -> T:
    """Calls a function that blocks until TensorFlow has connected the workers.

    It runs in a thread, so that this one can handle signals and say which workers do not answer.
    TensorFlow installs its own SIGTERM handler in C++ meanwhile, so Python's is installed again.

    Args:
      cluster: the workers.
      connect: the function.

    Returns:
      its result.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(connect())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    with StopSignals() as signals, blocking_connect.interpreter_unlocked():
        wait = Wait(cluster, signals)
        thread.start()
        try:
            while thread.is_alive():
                thread.join(_POLL_SECONDS)
                signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
                wait.check(lambda: _list_silent(cluster), "TensorFlow connects the workers")
        except StoppedBySignal as stopped:
            # TensorFlow's destructors would wait for the thread.
            exit_now(stopped)
    if errors:
        raise errors[0]
    return results[0]


def _list_silent(cluster: Cluster) -> list[int]:
    """Returns the numbers of the workers whose addresses accept no connection."""
    return [n for n, address in enumerate(cluster.addresses) if not _is_open(address)]


def _is_open(address: str) -> bool:
    try:
        socket.create_connection(parse_address(address), 1.0).close()
    except (OSError, UnicodeError):
        return False
    return True


def describe_differences(facts: Mapping[int, Mapping[str, str]]) -> str:
    """Describes in one line which facts differ, with the values; "" if all are equal.

    Args:
      facts: the facts of each worker, by its number. An empty value is unknown, not different.
    """
    differences = []
    for name in dict.fromkeys(name for worker in facts.values() for name in worker):
        workers: dict[str, list[int]] = {}
        for number, worker in sorted(facts.items()):
            if value := worker.get(name, NOT_SET):
                workers.setdefault(value, []).append(number)
        if len(workers) > 1:
            values = [f"{_shorten(v)} on {_name_workers(n)}" for v, n in workers.items()]
            differences.append(f"{name} is {', '.join(values)}")
    if not differences:
        return ""
    more = f"; and {len(differences) - 8} more" if len(differences) > 8 else ""
    return (
        f"workers differ: {'; '.join(differences[:8])}{more}; start all workers with the same"
        " command, code, packages, environment and images"
    )


def _name_workers(numbers: Sequence[int]) -> str:
    if len(numbers) > 4:
        return f"{len(numbers)} workers from {numbers[0]} to {numbers[-1]}"
    return f"worker{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def _shorten(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:120]}..."


class Wait:
    """Waits for other workers: ends on a signal, and says once a minute for whom it waits.

    Args:
      cluster: the workers.
      signals: entered StopSignals.
    """

    def __init__(self, cluster: Cluster, signals: StopSignals) -> None:
        self._cluster, self._signals = cluster, signals
        self._start = time.monotonic()
        self._next_report = self._start + _FIRST_REPORT_SECONDS
        self._unresolved_since: dict[int, float] = {}
        self._lookup: threading.Thread | None = None

    def check(self, find_missing: Callable[[], Sequence[int]], reason: str = "") -> None:
        """Does what is due; call it a few times a second.

        Args:
          find_missing: returns the numbers of the workers that are missing.
          reason: why they are, if that is known.

        Raises:
          StoppedBySignal: a signal was received.
        """
        if self._signals.received:
            raise StoppedBySignal(self._signals.received, "it waited for other workers")
        now = time.monotonic()
        if now < self._next_report:
            return
        self._next_report = now + _REPORT_SECONDS
        addresses, missing, own = self._cluster.addresses, find_missing(), self._cluster.number
        if not missing and not reason:
            return
        shown = [f"worker {number} at {addresses[number]}" for number in missing[:8]]
        if len(missing) > 8:
            shown.append(f"{len(missing) - 8} more")
        logging.info(
            "worker %d at %s waits for %s, %d s so far%s%s",
            own,
            addresses[own],
            ", ".join(shown) or "the others",
            now - self._start,
            f" ({reason})" if reason else "",
            self._describe_own_address(),
        )

    def find_unresolved(self, missing: Sequence[int]) -> str:
        """Returns an error message once the name of a missing worker has long not resolved.

        The names are looked up in a thread, because a lookup may take long.
        """
        if self._lookup is None or not self._lookup.is_alive():
            self._lookup = threading.Thread(target=self._look_up, args=(missing,), daemon=True)
            self._lookup.start()
        for number, since in sorted(self._unresolved_since.items()):
            if number in missing and time.monotonic() - since > _NAME_SECONDS:
                return (
                    f"{self._cluster.source}, host={self._cluster.addresses[number]}: the name of"
                    f" worker {number} does not resolve; correct it, or give the machine's address"
                )
        return ""

    def _look_up(self, missing: Sequence[int]) -> None:
        for number in missing:
            if _resolve(self._cluster.addresses[number]):
                self._unresolved_since.pop(number, None)
            else:
                self._unresolved_since.setdefault(number, time.monotonic())
        time.sleep(2.0)

    def _describe_own_address(self) -> str:
        """Says so if the address of this worker is that of another machine."""
        own = self._cluster.addresses[self._cluster.number]
        for family, host in _resolve(own):
            with contextlib.suppress(OSError), socket.socket(family) as probe:
                probe.bind((host, 0))
                return ""
        return f"; {own} is no address of this machine: has each worker its own index?"


def _resolve(address: str) -> list[tuple[int, str]]:
    """Returns (family, IP address) of each address that HOST:PORT resolves to."""
    try:
        found = socket.getaddrinfo(parse_address(address)[0], None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [(family, str(sockaddr[0])) for family, _, _, _, sockaddr in found]


@contextlib.contextmanager
def _listen(cluster: Cluster) -> Iterator[socket.socket]:
    """Listens at the address of this worker; all do, to find out that a port is in use.

    Raises:
      UsageError: the port is in use or may not be used.
    """
    address = cluster.addresses[cluster.number]
    host, port = parse_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The name of a machine may resolve to a loopback address on that machine itself.
    try:
        listener = socket.create_server((host if is_loopback(host) else "", port), family=family)
    except OSError as error:
        raise UsageError(
            f"{cluster.source}, host={address}: this worker cannot start, its port cannot be used"
            f" ({error.strerror}); end what uses it, or name another port"
        ) from None
    with listener:
        listener.settimeout(_POLL_SECONDS)
        yield listener


class _Host:
    """Worker 0, which the others ask.

    Args:
      cluster: the workers.
      report: that of worker 0.
      listener: listening socket with a timeout.
    """

    def __init__(self, cluster: Cluster, report: _Report, listener: socket.socket) -> None:
        self._addresses = cluster.addresses
        self._listener = listener
        self._reports = {0: report}
        self._last_seen: dict[int, float] = {}
        self._verdict = report["failure"]
        self._told: set[int] = set()
        self._reason = ""

    def run(self, wait: Wait) -> _Verdict:
        """Answers until every worker knows the verdict; returns it."""
        decided = float("inf")
        while not self._is_over(time.monotonic() - decided):
            with contextlib.suppress(OSError, ValueError, TypeError, LookupError, RecursionError):
                connection, (ip, *_) = self._listener.accept()
                with connection:
                    self._answer(connection, ip)
            wait.check(self._list_missing, self._reason)
            if self._verdict is None:
                missing = self._list_missing()
                if text := wait.find_unresolved(missing):
                    self._verdict = (text, UsageError.exit_code)
                elif not missing:
                    self._verdict = self._compare(self._reports)
            if self._verdict is not None:
                decided = min(decided, time.monotonic())
        return self._verdict or _AGREED

    def _is_over(self, seconds: float) -> bool:
        """Returns whether the verdict has been known for this time, and to all that need it."""
        # If worker 0 itself has failed, the others may still be starting.
        failed = self._reports[0]["failure"] is not None
        known = range(1, len(self._addresses)) if failed else self._last_seen.keys()
        enough = 0.0 if self._verdict == _AGREED else _LAST_VERDICT_SECONDS
        return seconds >= (enough if self._told.issuperset(known) else _VERDICT_SECONDS)

    def _list_missing(self) -> list[int]:
        recent = time.monotonic() - _ABSENT_SECONDS
        numbers = range(1, len(self._addresses))
        return [number for number in numbers if self._last_seen.get(number, 0.0) < recent]

    def _answer(self, connection: socket.socket, ip: str) -> None:
        """Answers one question.

        Raises:
          OSError, ValueError, TypeError, LookupError, RecursionError: the worker is gone, or
            another program asks.
        """
        report = _receive(connection)
        if report["protocol"] != _PROTOCOL or report["number"] == 0:
            return
        number = int(report["number"])
        known = self._reports.get(number, report)
        report["process"] = f"{report['process']} at {ip}"
        if self._verdict is None:
            self._verdict = self._refuse(number, report, known)
        if self._verdict is None:  # or else its list may have more workers than ours
            address = self._addresses[number]
            if _is_open(address):  # TensorFlow connects to it, too
                self._reports[number] = report
                self._last_seen[number] = time.monotonic()
            else:
                self._reason = f"worker {number} asks, but {address} accepts no connection"
        missing = self._list_missing()
        answer = {"protocol": _PROTOCOL, "missing": missing, "verdict": self._verdict}
        connection.sendall(_to_line(answer))
        if self._verdict is not None:
            self._told.add(number)

    def _refuse(self, number: int, report: _Report, known: _Report) -> _Verdict | None:
        """Returns why the worker that asks can never take part, or None."""
        both = {0: self._reports[0], number: report}
        if report["facts"][_LIST] != self._reports[0]["facts"][_LIST]:
            return self._compare(both)
        if report["token"] != known["token"] and number not in self._list_missing():
            return (
                f"two processes are worker {number}: {known['process']}, and {report['process']};"
                " give each worker its own index",
                UsageError.exit_code,
            )
        if report["failure"] is not None:
            text, code = report["failure"]
            verdict = self._compare(both)
            failure = (f"worker {number} at {self._addresses[number]}: {text}", int(code))
            return verdict if verdict != _AGREED else failure
        return None

    def _compare(self, reports: Mapping[int, _Report]) -> _Verdict:
        text = describe_differences({n: report["facts"] for n, report in reports.items()})
        return (text, UsageError.exit_code) if text else _AGREED


def _ask_host(cluster: Cluster, report: _Report, wait: Wait) -> _Verdict:
    """Asks worker 0 until it knows the verdict; returns it. A failed worker asks for a while."""
    host, port = parse_address(cluster.addresses[0])
    line = _to_line(report)
    missing, next_time, reason = [0], 0.0, ""
    deadline = time.monotonic() + (float("inf") if not report["failure"] else _VERDICT_SECONDS)
    while time.monotonic() < deadline:
        wait.check(missing.copy, reason)
        if text := wait.find_unresolved([0]):
            return text, UsageError.exit_code
        time.sleep(_POLL_SECONDS)
        if time.monotonic() < next_time:
            continue
        try:
            with socket.create_connection((host, port), _EXCHANGE_SECONDS) as connection:
                connection.sendall(line)
                answer = _receive(connection)
            if answer["protocol"] != _PROTOCOL:
                raise ValueError
            if answer["verdict"] is not None:
                return str(answer["verdict"][0]), int(answer["verdict"][1])
            missing[:], reason = [int(number) for number in answer["missing"]], ""
        except OSError as error:
            missing[:], reason = [0], error.strerror or str(error)
        except (ValueError, LookupError, TypeError, RecursionError):
            missing[:], reason = [0], "what answers there is no worker that waits"
        next_time = time.monotonic() + _ASK_SECONDS
    return _AGREED


def _to_error(verdict: _Verdict) -> UserError:
    text, code = verdict
    if code == UsageError.exit_code:
        return UsageError(text)
    error = UserError(text)
    error.exit_code = code
    return error


def _to_line(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def _receive(connection: socket.socket) -> dict[str, Any]:
    """Receives a line of JSON.

    Raises:
      OSError: the other side is gone, or too slow.
      ValueError, RecursionError: it sent something else.
    """
    deadline = time.monotonic() + _EXCHANGE_SECONDS
    data = b""
    while not data.endswith(b"\n"):
        connection.settimeout(max(0.01, deadline - time.monotonic()))
        part = connection.recv(1 << 16)
        data += part
        if not part or len(data) > _LONGEST_LINE or time.monotonic() > deadline:
            raise ValueError
    message = json.loads(data)
    if not isinstance(message, dict):
        raise ValueError
    return message
