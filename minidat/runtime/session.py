"""`Session`: a snapshot of a model, and helper processes that share the work of its inference (see `team` for how).

The process that opens a session computes nothing itself: it lays the arguments into memory that the helpers see, tells
them, waits, and copies the result out. So it can be interrupted at any moment, and what happens to its model, its
threads or its functions is nothing to the helpers. They in turn notice when nobody needs them any more: the connection
to them closes, or they have another parent.
"""

from __future__ import annotations

import gc
import mmap
import os
import pickle
import platform
import subprocess
import sys
import threading
import traceback
import weakref
from contextlib import suppress
from copy import deepcopy
from itertools import pairwise
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import SessionError
from .team import ALIGNMENT, Arena, Member, TeamError, run_as
from .threads import keep_freed_memory, thread_count

MOST_HELPERS = 8
LOOK_SECONDS = 1.0  # between two looks at a process that says nothing
PATIENCE = 10  # such looks at a helper that does nothing at all, before it is given up
LONGEST_ERROR = 8000  # bytes: a connection takes as much before anybody reads it
COUNTER_BYTES = 4096  # where members meet
HELPER_ENVIRONMENT = {
    # a core for each helper
    **dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "PYTHONHASHSEED": "0",  # all go through a set in the same order
}

Spans = list[tuple[int, int]]  # where in the memory something pickled lies: first its structure, then each array


class Session:
    """Inference with `model` as it is now, by helper processes.

        with minidat.Session(model) as session:
            logits = session(images)                # as model(images)
            maps = session.run("features", images)  # as model.features(images)

    The model is copied when the session begins: what happens to it later does not matter. There are as many helpers as
    the model itself would use threads; they end with the block, or with this process, however that ends, and their
    memory is given back. `helpers` holds their numbers (PID). With a single thread, and where no helpers can be had
    (they need Linux on x86-64, whose stores other cores see in the order they were made), this process uses the copy.

    model: an object that can be pickled, whose methods return the same whenever they are called with the same. Raises
    SessionError if it cannot be sent to the helpers.
    """

    def __init__(self, model: Any) -> None:
        self._owner = os.getpid()
        self._lock = threading.RLock()
        self._unusable = "did not begin"  # why; empty as long as it is usable
        self._passes = 0
        self._model: Any = None  # the copy, if there are no helpers
        self._memory: _Memory | None = None
        self._helpers: list[_Helper] = []
        self._end = weakref.finalize(self, _end, self._owner, self._helpers)
        try:
            if _can_have_helpers():
                try:
                    self._start(model)
                except OSError:  # too little memory, or too many processes
                    self._end()
            if not self._helpers:
                self._model = _copied(model)
        except BaseException:
            self.close()
            raise
        self._unusable = ""

    def _start(self, model: Any) -> None:
        part, size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), min(thread_count(), MOST_HELPERS)
        with open(os.memfd_create("minidat"), "r+b", buffering=0) as file:
            file.truncate(4 * part)
            memory = _Memory(file.fileno(), part)
            spans = _pack(model, memory, memory.model)
            for rank in range(size):
                self._helpers.append(_Helper(file.fileno(), part, rank, size))
        _, error = self._pass(spans)
        if error is not None:
            problem = f"cannot load the {type(model).__name__}: {type(error).__name__}: {error}"
            raise SessionError(f"session: a helper process {problem}")
        self._memory = memory

    @property
    def helpers(self) -> tuple[int, ...]:
        return tuple(helper.process.pid for helper in self._helpers)

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        """What model(...) would have returned when the session began."""
        return self.run("__call__", *arguments, **settings)

    def run(self, method: str, /, *arguments: Any, **settings: Any) -> Any:
        """What model.method(...) would have returned then: arrays, also in lists and the like; or have raised.

        Raises SessionError if the session has ended or belongs to the process that this one was forked from; also if it
        ends now, because a helper has ended, does nothing for ten seconds, or has not done the same as the others. A
        pass that is interrupted ends the session, too.
        """
        if os.getpid() != self._owner:
            raise SessionError(f"session: it belongs to process {self._owner}; open another one in a forked process")
        with self._lock:
            if self._unusable:
                raise SessionError(f"session: it {self._unusable}; open another one")
            if self._memory is None:
                return getattr(self._model, method)(*arguments, **settings)
            call = _pack((method, arguments, settings), self._memory, self._memory.call)
            self._unusable = "was interrupted"  # unless all goes well
            try:
                spans, error = self._pass(call)
                result = None if spans is None else deepcopy(_unpack(spans, self._memory))
            except SessionError:
                self._unusable = "has lost its helper processes"
                self.close()
                raise
            except BaseException:
                self.close()
                raise
            self._unusable = ""
        if error is not None:
            raise error
        return result

    def close(self) -> None:
        """End the session, as the end of its block does."""
        if os.getpid() != self._owner:  # the helpers are not this process's own
            self._end()
            return
        with self._lock:
            self._unusable = self._unusable or "has ended"
            self._end()
            if self._memory is not None:
                self._memory.map.madvise(mmap.MADV_REMOVE)
            self._model = self._memory = None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _pass(self, call: Spans) -> tuple[Spans | None, Exception | None]:
        """Let all helpers do the same, until none of them does any more: the result, or what was raised."""
        self._passes += 1
        for helper in self._helpers:
            helper.send((self._passes, call))
        answers = {}
        waiting = {helper.connection: helper for helper in self._helpers}
        while waiting:
            ready = wait(list(waiting), LOOK_SECONDS)
            for connection in ready:
                helper = waiting.pop(connection)  # type: ignore[call-overload]
                answers[helper] = helper.receive()
                if answers[helper].error is not None:
                    for other in waiting.values():  # it might wait for this one
                        other.send(None)
            if not ready:
                for helper in waiting.values():
                    helper.look()
        for helper in self._helpers:
            if answers[helper].error is not None:
                return None, answers[helper].error
        if len({answer.fingerprint for answer in answers.values()}) > 1:
            raise SessionError("session: the helper processes have not done the same; the model's methods must")
        return answers[self._helpers[0]].result, None


class Answer(NamedTuple):
    """What a helper says after a pass."""

    fingerprint: int = 0  # of all it has done
    result: Spans | None = None  # the first helper's
    error: Exception | None = None


def _can_have_helpers() -> bool:
    has_python = bool(sys.executable) and not hasattr(sys, "frozen")
    return sys.platform == "linux" and platform.machine() == "x86_64" and has_python and thread_count() > 1


def _end(owner: int, helpers: list[_Helper]) -> None:
    """End the helpers, or, in a process forked from their owner, forget them."""
    for helper in helpers:
        if os.getpid() == owner:
            helper.process.kill()
        else:
            helper.process.returncode = 0  # nothing to wait for
    for helper in helpers:
        helper.process.wait()
        helper.connection.close()
    helpers.clear()


class _Helper:
    """A helper process, as the session sees it."""

    def __init__(self, file: int, part: int, rank: int, size: int) -> None:
        self.connection, theirs = Pipe()
        path = [*sys.path, str(Path(__file__).parents[2])]
        command = f"import sys; sys.path[:] = {path!r}; from minidat.runtime.session import serve; serve()"
        files = (file, theirs.fileno())
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", command, *map(str, (os.getpid(), *files, part, rank, size))],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=files,
                # the same number of threads, since that may decide how operators cut their work
                env={**os.environ, **HELPER_ENVIRONMENT, "MINIDAT_NUM_THREADS": str(thread_count())},
                start_new_session=True,  # Ctrl-C is for the session's process alone
            )

    def send(self, call: tuple[int, Spans] | None) -> None:
        """Tell what to do next; None: to give the pass up."""
        self.looks, self.ticks = 0, -1
        try:
            self.connection.send(call)
        except OSError:
            raise self._ended() from None

    def receive(self) -> Answer:
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            raise self._ended() from None

    def _ended(self) -> SessionError:
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(LOOK_SECONDS)
        return SessionError(f"session: helper process {self.process.pid} has ended, status {self.process.returncode}")

    def look(self) -> None:
        """Raise SessionError if the process has used no time of any core for many looks: it is stopped, or stuck."""
        # looks, not seconds: if all processes are stopped for a while, it is not this one's fault
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        before, self.ticks = self.ticks, int(fields[11]) + int(fields[12])
        self.looks = self.looks + 1 if self.ticks == before else 0
        if self.looks >= PATIENCE:
            raise SessionError(f"session: helper process {self.process.pid} does not answer")


# --- the memory that all see ------------------------------------------------------------------------------------------


class _Memory:
    """Counters, and four parts of a file: the model, a call, its result, the members' arrays.

    A part may become as large as the machine's memory (`part` bytes): what is not in use costs nothing.
    """

    def __init__(self, file: int, part: int) -> None:
        self.map = mmap.mmap(file, 4 * part)
        self.arrivals = memoryview(self.map)[:COUNTER_BYTES].cast("q")
        bounds = (COUNTER_BYTES, *(i * part for i in range(1, 5)))
        self.model, self.call, self.result, self.arrays = pairwise(bounds)


def _pack(value: Any, memory: _Memory, bounds: tuple[int, int]) -> Spans:
    """Pickle `value` into the memory between `bounds`, arrays as they are. Raises SessionError if it cannot be."""
    structure, buffers = _pickled(value)
    start, spans = bounds[0], []
    for part in (memoryview(structure), *buffers):
        stop = start + part.nbytes
        if stop > bounds[1]:
            raise SessionError("session: it is too large for this machine's memory")
        memory.map[start:stop] = part
        spans.append((start, stop))
        start = -(-stop // ALIGNMENT) * ALIGNMENT
    return spans


def _pickled(value: Any) -> tuple[bytes, list[memoryview]]:
    buffers: list[pickle.PickleBuffer] = []
    try:
        structure = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    except Exception as error:  # a class may raise anything
        raise SessionError(f"session: the {type(value).__name__} cannot be pickled: {error}") from None
    return structure, [buffer.raw() for buffer in buffers]


def _unpack(spans: Spans, memory: _Memory) -> Any:
    """What `_pack` has packed; its arrays lie in the memory and are read-only."""
    structure, *buffers = (memoryview(memory.map)[start:stop].toreadonly() for start, stop in spans)
    return pickle.loads(structure, buffers=buffers)


def _copied(value: Any) -> Any:
    """A copy with read-only arrays."""
    structure, buffers = _pickled(value)
    return pickle.loads(structure, buffers=[bytes(buffer) for buffer in buffers])


# --- in a helper process ----------------------------------------------------------------------------------------------


def serve() -> None:
    """Take part in one pass after the other, until the session ends."""
    parent, file, channel, part, rank, size = map(int, sys.argv[1:])
    keep_freed_memory()
    memory, connection = _Memory(file, part), Connection(channel)
    model: Any = None

    def gone() -> bool:
        return os.getppid() != parent

    def check() -> None:
        if connection.poll() or gone():  # the session has ended, or tells to give up
            raise TeamError

    def answer(number: int, call: Spans) -> Answer:
        nonlocal model
        try:
            if number == 1:
                model = _unpack(call, memory)
                return Answer()
            method, arguments, settings = _unpack(call, memory)
            member = Member(rank, size, Arena(memory.map, *memory.arrays), memory.arrivals, number, check)
            result = run_as(member, lambda: getattr(model, method)(*arguments, **settings))
            fingerprint = member.finish()
            return Answer(fingerprint, _pack(result, memory, memory.result) if rank == 0 else None)
        except TeamError:
            return Answer()
        except Exception as error:
            return Answer(error=_portable(error))

    with suppress(EOFError, OSError):
        while True:
            while not connection.poll(LOOK_SECONDS):
                if gone():
                    return
            task = connection.recv()
            if task is not None:  # else a pass was given up that had already ended
                connection.send(answer(*task))
                # arrays must die when nothing refers to them any more, at the same point of the program for all members
                gc.disable()
                gc.collect()
                gc.freeze()


def _portable(error: Exception) -> Exception:
    """The error with its traceback, or what it says if it cannot be sent."""
    error.add_note("in a helper process:\n" + traceback.format_exc()[-LONGEST_ERROR // 4 :])
    with suppress(Exception):  # a class may raise anything
        pickled = pickle.dumps(error)
        pickle.loads(pickled)
        if len(pickled) <= LONGEST_ERROR:
            return error
    return SessionError(f"{type(error).__name__}: {error}"[:200])
