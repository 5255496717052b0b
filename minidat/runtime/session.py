"""Helper processes that run a model's forward pass together with this one: see `minidat.runtime.team` for how.

They start when a second batch is passed through a model without gradients, and serve all models from then on. Until
they are ready, and where they cannot be had, threads do the work: helpers need Linux on x86-64, whose stores other
cores see in the order they were made. A helper is never out of date: for every pass it is told all of the model's state
but the numbers, the weights lie in memory that it sees, and if a function of minidat has been replaced, nobody helps.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import io
import os
import pickle
import pkgutil
import platform
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from mmap import mmap
from types import FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..nn import Context, Parameter
from .team import NAP, Arena, Member, TeamError, current, run_as
from .threads import alone, thread_count

if TYPE_CHECKING:
    from .dat import DAT

MOST_MEMBERS = 8
LOOKS = 40000  # for the next pass to begin, or this one to end, before the first nap: some milliseconds
KEPT_BYTES = 2**26  # of memory that is free, from one pass to the next
CONTROL_BYTES, MESSAGE_BYTES = 4096, 2**20  # at the start of the shared memory
# glibc keeps memory for the next operator, which otherwise would have to fetch its pages from the system again
HELPER_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**26)}
# numbers of 8 bytes in the control block; those from ARRIVALS on are 8 apart, one for each member
PASS, MESSAGE, LENGTH, BROKEN = range(4)
ARRIVALS, DONE, ASLEEP, DIGEST, TRAIL = (64 * i for i in range(1, 6))


def run(model: DAT, method: str, images: np.ndarray, context: Context) -> Any:
    """What model.method(images, context) returns first, an array or a list of arrays, computed by a team.

    None if it is nothing for a team, which takes plain inference alone, or if there is no team (yet). The first such
    pass starts none: who classifies one image has the answer before a helper would be ready. A Context of a class of
    its own watches the operators, and would miss those of the helpers.
    """
    if type(context) is not Context:
        return None
    if context.gradients or context.training or context.trace is not None or context.local_trace is not None:
        return None
    if current() is not None:
        return None
    _Team.asked += 1
    if _Team.asked == 2:
        _Team.start()
    team = _Team.instance
    if team is None or not team.ready():
        return None
    try:
        with alone(blocking=False) as free:  # the helpers have the other cores
            return team.run(model, method, images, context) if free else None
    except pickle.PicklingError:  # there is something in the model that a helper cannot know
        return None
    except TeamError:  # threads can do it, and all that comes
        _Team.stop()
        return None


def await_helpers(seconds: float = 30.0) -> bool:
    """Wait until the helper processes are ready, if they have been started: whether they are."""
    deadline = time.monotonic() + seconds
    while _Team.instance is not None and time.monotonic() < deadline:
        if _Team.instance.ready():
            return True
        time.sleep(0.01)
    return False


def helper_processes() -> list[int]:
    """The numbers (PID) of the helper processes."""
    return [] if _Team.instance is None else [process.pid for process in _Team.instance.processes]


class _Shared:
    """The memory of a team: a block of counters, the message, the weights, and the results of a pass."""

    def __init__(self, file: int, capacity: int) -> None:
        self.file, self.capacity = file, capacity
        self.memory = mmap(file, capacity)
        self.address = np.frombuffer(self.memory, np.uint8, 1).ctypes.data
        self.control = memoryview(self.memory)[:CONTROL_BYTES].cast("q")
        self.message = memoryview(self.memory)[CONTROL_BYTES : CONTROL_BYTES + MESSAGE_BYTES]
        self.weights = Arena(self.memory, CONTROL_BYTES + MESSAGE_BYTES, capacity // 2)
        self.results = Arena(self.memory, capacity // 2, capacity)

    def make_private(self) -> None:
        """Keep what is written from now on in this process: the same numbers at the same addresses, copied on write."""
        read_and_write, private_at_this_address = 0x3, 0x12
        ctypes.CDLL(None).mmap(
            ctypes.c_void_p(self.address),
            ctypes.c_size_t(self.capacity),
            read_and_write,
            private_at_this_address,
            self.file,
            ctypes.c_long(0),
        )

    def copy(self, array: np.ndarray) -> np.ndarray:
        """A copy among the weights, which stays from one pass to the next."""
        copied = self.weights.empty(array.shape, array.dtype)
        copied[...] = array
        return copied


class _Team:
    """This process and its helpers."""

    instance: _Team | None = None
    memory: _Shared | None = None  # weights lie in it even when the helpers have ended
    asked = 0  # passes that a team could have taken

    @classmethod
    def start(cls) -> None:
        """Start the helpers, if that is possible here."""
        if sys.platform != "linux" or platform.machine() != "x86_64" or thread_count() == 1:
            return
        if not sys.executable or hasattr(sys, "frozen"):  # no Python to run
            return
        try:
            cls.instance = _Team(min(thread_count(), MOST_MEMBERS))
        except OSError:  # so much memory cannot be reserved, or no process started
            return
        cls.memory = cls.instance.shared
        atexit.register(cls.stop)
        os.register_at_fork(after_in_child=cls._leave)

    @classmethod
    def stop(cls) -> None:
        """End the helpers, for good."""
        team, cls.instance = cls.instance, None
        if team is not None:
            for process in team.processes:
                process.kill()
                process.communicate()  # closes the pipe and waits

    @classmethod
    def _leave(cls) -> None:
        """In a forked child: the helpers are not its own, and what it writes to its weights is not for its parent."""
        team, cls.instance = cls.instance, None
        if team is not None:
            for process in team.processes:
                process.returncode = 0  # nothing to wait for
                assert process.stdin is not None
                process.stdin.close()
        if cls.memory is not None:
            cls.memory.make_private()

    def __init__(self, size: int) -> None:
        capacity = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # of addresses: no page is in use yet
        file = os.memfd_create("minidat")
        try:
            os.ftruncate(file, capacity)
            self.shared = _Shared(file, capacity)
        except OSError:
            os.close(file)
            raise
        self.program: _Program | None = None  # once the helpers have told that it is theirs, too
        self._last_message = b""
        command = f"import sys; sys.path[:] = {sys.path!r}; from minidat.runtime.session import serve; serve()"
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-c", command, *map(str, (file, capacity, rank, size))],
                stdin=subprocess.PIPE,  # a byte wakes the helper, the end of the pipe ends it
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[file],
                # the same number of threads, since that decides how operators cut their work
                env={**os.environ, **HELPER_ENVIRONMENT, "MINIDAT_NUM_THREADS": str(thread_count())},
                start_new_session=True,  # Ctrl-C is for this process alone
            )
            for rank in range(1, size)
        ]

    def ready(self) -> bool:
        """Whether all helpers have started, and run the same program as this process."""
        if self.program is None:
            if any(process.poll() is not None for process in self.processes):
                _Team.stop()
                return False
            digests = {self.shared.control[DIGEST + 8 * rank] for rank in self._ranks()}
            if 0 in digests:
                return False
            program = _Program()
            if digests != {program.digest}:
                _Team.stop()
                return False
            self.program = program
        return self.program.unchanged()

    def run(self, model: DAT, method: str, images: np.ndarray, context: Context) -> Any:
        """As the function `run`; raises TeamError if a helper failed, PicklingError if it cannot have the model."""
        shared, control = self.shared, self.shared.control
        if self._busy():  # with a pass that was interrupted
            control[BROKEN] = control[PASS]
            self._await_end()
        if shared.weights.reclaim() > KEPT_BYTES:  # a model has died
            shared.weights.discard()
        images = shared.copy(images)
        message = _encode((model, method, images), shared)
        if message != self._last_message:
            shared.message[: len(message)] = message
            control[LENGTH] = len(message)
            control[MESSAGE] += 1
            self._last_message = message
        member = Member(0, 1 + len(self.processes), shared.results, control[ARRIVALS:], control[PASS] + 1, self._check)
        control[PASS] += 1
        self._wake()
        try:
            with _no_collection():
                result, _ = run_as(member, lambda: getattr(model, method)(images, context))
            member.meet()
            if any(control[TRAIL + 8 * rank] != shared.results.trail for rank in self._ranks()):
                raise TeamError("the members have made different arrays")
            return [np.array(a) for a in result] if isinstance(result, list) else np.array(result)
        except BaseException:
            control[BROKEN] = control[PASS]
            raise
        finally:
            self._await_end()
            shared.results.clear()
            shared.results.discard(KEPT_BYTES)

    def _await_end(self) -> None:
        """Wait until the helpers have done with this pass."""
        looks = 0
        while self._busy():
            looks += 1
            if looks > LOOKS:
                self._check_processes()
                time.sleep(NAP)

    def _busy(self) -> bool:
        return any(self.shared.control[DONE + 8 * rank] != self.shared.control[PASS] for rank in self._ranks())

    def _ranks(self) -> range:
        return range(1, 1 + len(self.processes))

    def _check(self) -> None:
        self._check_processes()
        self._wake()
        if self.shared.control[BROKEN] == self.shared.control[PASS]:
            raise TeamError("a helper process has failed")

    def _check_processes(self) -> None:
        if any(process.poll() is not None for process in self.processes):
            raise TeamError("a helper process has ended")

    def _wake(self) -> None:
        for rank, process in zip(self._ranks(), self.processes, strict=True):
            if self.shared.control[ASLEEP + 8 * rank]:
                assert process.stdin is not None
                try:
                    os.write(process.stdin.fileno(), b".")
                except BrokenPipeError:
                    raise TeamError("a helper process has ended") from None


# --- the message ------------------------------------------------------------------------------------------------------


class _Encoder(pickle.Pickler):
    """Pickles minidat's objects; an array as its place in the shared memory, a parameter as its value alone.

    Values move to the shared memory on the way, if they are not there yet.
    """

    def __init__(self, file: io.BytesIO, shared: _Shared) -> None:
        super().__init__(file, protocol=5)
        self.shared = shared
        self.moved = 0  # bytes that have left the process's own memory

    def reducer_override(self, value: Any) -> Any:
        weights = self.shared.weights
        if type(value) is Parameter:
            if weights.start_of(value.value) is None:
                value.value = self.shared.copy(value.value)
                self.moved += value.value.nbytes
                if self.moved > KEPT_BYTES:
                    _return_free_memory()
                    self.moved = 0
            return _parameter, self._place(value.value)
        if type(value) is np.ndarray and weights.start_of(value) is not None:
            return _array, self._place(value)
        if isinstance(value, (type, FunctionType)) and value.__module__.split(".")[0] not in ("minidat", "numpy"):
            raise pickle.PicklingError(f"{value.__module__} may be another module in another process")
        return NotImplemented

    def _place(self, array: np.ndarray) -> tuple[Any, ...]:
        return array.shape, array.dtype.str, self.shared.weights.start_of(array)


def _return_free_memory() -> None:
    """Let the C library give back to the system what it keeps for the next allocation."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _encode(value: Any, shared: _Shared) -> bytes:
    file = io.BytesIO()
    try:
        _Encoder(file, shared).dump(value)
    except (AttributeError, TypeError) as error:  # what pickle raises, too, for things it does not know
        raise pickle.PicklingError(str(error)) from None
    if file.tell() > MESSAGE_BYTES:
        raise pickle.PicklingError(f"{file.tell()} bytes, more than {MESSAGE_BYTES}")
    return file.getvalue()


_received: _Shared  # in a helper


def _array(shape: tuple[int, ...], dtype: str, start: int) -> np.ndarray:
    return np.ndarray(shape, dtype, _received.memory, start)


def _parameter(*place: Any) -> Parameter:
    value = _array(*place)
    parameter = Parameter(value.shape, lambda rng, shape: value)
    parameter.value = value
    return parameter


class _Program:
    """The functions, classes, methods and constants of the packages that a forward pass uses, as they are now.

    `digest` is made from their names and the constants: the same in all processes in which none has been replaced.
    """

    def __init__(self) -> None:
        self._spaces = []  # (a namespace, the names in it, what they stand for)
        texts = []
        for place, space in _namespaces():
            names = [
                name
                for name, value in space.items()
                if isinstance(value, (type, FunctionType)) or (name.isupper() and not isinstance(value, np.ndarray))
            ]
            for name in names:
                value = space[name]
                what = f"{value.__module__} {value.__qualname__}" if hasattr(value, "__qualname__") else repr(value)
                texts.append(f"{place}.{name} {what}")
            self._spaces.append((space, names, [space[name] for name in names]))
        self.digest = 1 + zlib.crc32("\n".join(sorted(texts)).encode())

    def unchanged(self) -> bool:
        return all(list(map(space.get, names)) == values for space, names, values in self._spaces)


def _namespaces() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(name, content) of the modules, and of the classes in them."""
    for package in ("minidat.ops", "minidat.nn", "minidat.models"):
        path = importlib.import_module(package).__path__
        names = [package] + [f"{package}.{module.name}" for module in pkgutil.iter_modules(path)]
        for module in map(importlib.import_module, names):  # all, whether somebody has already imported them or not
            yield module.__name__, vars(module)
            for name, value in vars(module).items():
                if isinstance(value, type) and value.__module__ == module.__name__:
                    yield f"{module.__name__}.{name}", vars(value)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Arrays die when nothing refers to them any more, at the same point of the program in all processes."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


# --- in a helper process ----------------------------------------------------------------------------------------------


def serve() -> None:
    """Take part in one pass after the other, until the process that started this one ends."""
    global _received
    file, capacity, rank, size = map(int, sys.argv[1:])
    _received = shared = _Shared(file, capacity)
    control, parent = shared.control, os.getppid()
    gc.disable()

    def check() -> None:
        if control[BROKEN] == control[PASS]:
            raise TeamError("another member has failed")
        if os.getppid() != parent:
            raise TeamError("there is nobody to help")

    control[DIGEST + 8 * rank] = _Program().digest
    message = 0
    task: Any = None
    with alone():
        while _next_pass(control, rank):
            try:
                if control[MESSAGE] != message:
                    message = control[MESSAGE]
                    task = pickle.loads(shared.message[: control[LENGTH]])
                    gc.collect()
                model, method, images = task
                member = Member(rank, size, shared.results, control[ARRIVALS:], control[PASS], check)
                run_as(member, lambda: getattr(model, method)(images, Context()))  # noqa: B023
                control[TRAIL + 8 * rank] = shared.results.trail
                member.meet()
            except Exception:  # the same goes wrong for all members, and the first of them will tell
                control[BROKEN] = control[PASS]
            control[DONE + 8 * rank] = control[PASS]


def _next_pass(control: memoryview, rank: int) -> bool:
    """Wait for a pass to begin; False if there will be none."""
    while True:
        for _ in range(LOOKS):
            if control[PASS] != control[DONE + 8 * rank]:
                return True
        control[ASLEEP + 8 * rank] = 1
        if control[PASS] == control[DONE + 8 * rank] and not os.read(0, 4096):
            return False
        control[ASLEEP + 8 * rank] = 0
