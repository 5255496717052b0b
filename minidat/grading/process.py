"""The judge's end of a solution's process: started apart from us, asked within a time limit, ended with all it started.

    judge  --life (pipe), channel (socket)-->  keeper  --fork-->  the solution

The keeper ends everything when it is told to, or when `life` closes: also if the judge itself is killed. Questions and
answers go over the channel alone. See `solution_process`.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from ..errors import ExerciseError, printable
from .attempt import SolutionError
from .solution_process.keeper import END, PATIENCE, SHOW_STACK
from .solution_process.wire import LONGEST_LINE, Message, WireError, decode, encode

START_LIMIT = 60.0  # seconds that Python and NumPy may take to start
STACK_LIMIT = 1.0  # seconds to say where a solution is
LAST_WORDS = 20_000  # bytes of stderr that are kept
BOOT = (
    "import json, sys; settings = json.loads(sys.argv[1]); sys.path += settings['libraries']; "
    "sys.path.insert(0, settings['home']); from solution_process.main import main; main(settings)"
)
HANDED_ON = ("LANG", "LC_ALL", "LC_CTYPE", "PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class SolutionProcess:
    """A context: in it, `ask` puts questions to the process; after it, nothing of the process is left.

    Entering it raises SolutionError if no process can be started, ExerciseError on a system that cannot fork.

    file: of the solution, whose folder is the process's own. time_limit: seconds for all answers together.
    """

    def __init__(self, file: Path, time_limit: float) -> None:
        self.file, self.time_limit = file, time_limit
        self.left = time_limit
        self.started = False
        self.buffer, self.words = bytearray(), bytearray()

    def __enter__(self) -> SolutionProcess:
        if not hasattr(os, "fork"):
            raise ExerciseError("grading needs a system that can fork: Linux, macOS, or WSL on Windows")
        life, self.life = os.pipe()
        self.channel, channel = socket.socketpair()
        try:
            self.keeper = self._start(life, channel.fileno())
        except OSError as error:
            os.close(self.life)
            self.channel.close()
            raise SolutionError(f"Python could not be started: {error.strerror}.") from None
        finally:
            os.close(life)
            channel.close()
        assert self.keeper.stderr is not None
        self.stderr = self.keeper.stderr.fileno()
        self.channel.setblocking(False)
        os.set_blocking(self.stderr, False)
        self.inputs = selectors.DefaultSelector()
        self.inputs.register(self.channel, selectors.EVENT_READ)
        self.inputs.register(self.stderr, selectors.EVENT_READ)
        return self

    def _start(self, life: int, channel: int) -> subprocess.Popen[bytes]:
        settings = {
            "home": str(Path(__file__).parent),
            "libraries": _libraries(),
            "package": str(Path(__file__).parents[1]),
            "folder": str(self.file.parent),
            "seconds": self.time_limit,
            "life": life,
            "channel": channel,
        }
        return subprocess.Popen(
            # -I: no variables of the environment, no folder of ours; -S: no .pth files; -B: nothing is written
            [sys.executable, "-I", "-S", "-B", "-c", BOOT, json.dumps(settings)],
            env={name: os.environ[name] for name in HANDED_ON if name in os.environ} | ONE_THREAD,
            cwd=self.file.parent,
            start_new_session=True,
            pass_fds=(life, channel),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def __exit__(self, *_: object) -> None:
        self._tell_keeper(END)
        os.close(self.life)
        try:
            self.keeper.wait(2 * PATIENCE)
        except subprocess.TimeoutExpired:
            self.keeper.kill()
            self.keeper.wait()
        self.inputs.close()
        self.channel.close()
        assert self.keeper.stderr is not None
        self.keeper.stderr.close()

    def ask(self, message: Message) -> Message:
        """The reply. Raises SolutionError if there is none."""
        if not self.started:  # it says when it has, which is not the solution's time
            self._reply(START_LIMIT)
            self.started = True
        start = time.monotonic()
        try:
            self._send(encode(message))
            return self._reply(self.left)
        finally:
            self.left -= time.monotonic() - start

    def _send(self, data: bytes) -> None:
        self.channel.settimeout(max(self.left, 0.001))
        try:
            self.channel.sendall(data)
        except TimeoutError:
            raise self._too_slow() from None
        except OSError:
            raise self._ended() from None
        finally:
            self.channel.setblocking(False)

    def _reply(self, seconds: float) -> Message:
        deadline = time.monotonic() + seconds
        while b"\n" not in self.buffer:
            if time.monotonic() >= deadline:
                raise self._too_slow()
            if not self._read(deadline - time.monotonic()):
                raise self._ended()
            if len(self.buffer) > LONGEST_LINE:
                raise _no_answer()
        line, _, self.buffer = self.buffer.partition(b"\n")
        try:
            return decode(bytes(line))
        except WireError:
            raise _no_answer() from None

    def _read(self, seconds: float) -> bool:
        """Wait for something to come on channel or stderr, and take it. Whether the channel is open."""
        for key, _ in self.inputs.select(seconds):
            if key.fd == self.stderr:
                data = os.read(self.stderr, 65536)
                self.words = (self.words + data)[-LAST_WORDS:]
                if not data:
                    self.inputs.unregister(self.stderr)
                continue
            try:
                data = self.channel.recv(65536)
            except OSError:
                data = b""
            if not data:
                return False
            self.buffer += data
        return True

    def _too_slow(self) -> SolutionError:
        if not self.started:
            return SolutionError(f"Python did not start within {START_LIMIT:g} seconds.")
        self.words.clear()
        self._tell_keeper(SHOW_STACK)
        deadline = time.monotonic() + STACK_LIMIT
        shown = str(self.file).encode("ascii", "backslashreplace").decode()  # as faulthandler does
        pattern = re.compile(r'File "' + re.escape(shown) + r'", line (\d{1,7}) ')
        line = None
        while line is None and time.monotonic() < deadline and self._read(deadline - time.monotonic()):
            self.buffer.clear()
            match = pattern.search(self.words.decode("utf-8", "replace"))
            line = int(match[1]) if match else None
        reason = f"stopped after {self.time_limit:g} seconds: is there a loop that never ends?"
        return SolutionError(reason, line)

    def _ended(self) -> SolutionError:
        try:
            status = self.keeper.wait(STACK_LIMIT)
        except subprocess.TimeoutExpired:
            return SolutionError("the solution has closed the way to its judge.")
        while self.stderr in self.inputs.get_map() and self._drain():
            pass
        names = {128 + number: number.name for number in signal.Signals}
        how = f"by the signal {names[status]}" if status in names else f"with status {status}"
        words = self.words.decode("utf-8", "replace").strip().splitlines()
        last = f" Its last words: {printable(words[-1][:500])}" if words else ""
        return SolutionError(f"Python ended, {how}, before the solution was graded.{last}")

    def _tell_keeper(self, what: bytes) -> None:
        with suppress(OSError):  # it has ended
            os.write(self.life, what)

    def _drain(self) -> bool:
        """Take what is left on stderr. Whether there was anything."""
        try:
            data = os.read(self.stderr, 65536)
        except BlockingIOError:
            return False
        self.words = (self.words + data)[-LAST_WORDS:]
        return bool(data)


def _no_answer() -> SolutionError:
    return SolutionError("what came back from the solution's process is no answer.")


def _libraries() -> list[str]:
    """Where installed packages are; not the folder that ours lies in, unless it is one of them."""
    numpy = Path(np.__file__).resolve().parents[1]
    names = ("site-packages", "dist-packages")
    return [
        os.path.abspath(path)
        for path in sys.path
        if path and (Path(path).name in names or Path(path).resolve() == numpy)
    ]
