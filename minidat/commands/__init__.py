"""The `minidat` command: one file a sub-command, each thin, calling public functions.

A sub-command's file has `add`, which declares its options, and `run`, which imports what it needs itself: starting up
stays quick.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import warnings
from collections.abc import Sequence

from .. import __version__
from ..errors import MinidatError, printable
from . import bench, classify, convert, detect, download, evaluate, grade, info, segment, train, visualize
from .shared import Parser

COMMANDS = (  # as --help lists them
    classify, detect, segment, visualize, info, convert, download, train, evaluate, bench, grade
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own) and return the exit status.

    0: done; 1: a solution failed (`grade`); 2: bad input or a mistake in the command line, told in one line on stderr
    (after a mistake, as after --help, argparse ends the program itself); 130: interrupted by the user.
    """
    if sys.stderr is None:  # closed by the caller, who does not want to be told
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file name that the terminal cannot show must not stop the program
        sys.stdout.reconfigure(errors="backslashreplace")
    status = 0
    try:
        arguments = _parser().parse_args(argv)
        if sys.stdout is None:
            raise MinidatError("the standard output is closed")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of NumPy's, about numbers that are reported as an error
            status = arguments.run(arguments) or 0
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        _give_up_stdout()
    except MemoryError:
        words = " ".join(map(str, sys.argv[1:] if argv is None else argv))
        print(f"minidat: error: there is not enough memory for: minidat {printable(words)}", file=sys.stderr)
        return 2
    except (MinidatError, OSError) as error:
        reason = str(error)
        if isinstance(error, OSError) and error.filename is None:  # files are named
            reason = f"the standard output cannot be written: {error.strerror or error}"
            _give_up_stdout()
        print(f"minidat: error: {printable(reason)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interruption:
        reason = printable(str(interruption.args[0])) if interruption.args else "interrupted"
        print(f"minidat: {reason}", file=sys.stderr)
        return 130
    return status


def _give_up_stdout() -> None:
    """What is not written yet is lost; Python flushes stdout once more at exit."""
    with contextlib.suppress(OSError):  # not a file at all, as in a notebook
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="minidat",
        description="The Deformable Attention Transformer in readable NumPy: image classification, detection, "
        "segmentation.",
    )
    parser.add_argument("--version", action="version", version=f"minidat {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser
