"""The `minidat` command: one file a sub-command, each thin, calling public functions.

A sub-command's file has `add`, which declares its options, and `run`, which imports what it needs itself: starting up
stays quick.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence

from .. import __version__
from ..errors import MinidatError
from . import bench, classify, convert, download, evaluate, grade, info, train, visualize
from .shared import Parser

COMMANDS = (classify, visualize, info, convert, download, train, evaluate, bench, grade)  # as --help lists them


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own) and return the exit status.

    0: done; 1: a solution failed (`grade`); 2: bad input or a mistake in the command line, told in one line on stderr
    (after a mistake, as after --help, argparse ends the program itself); 130: interrupted by the user.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file name that the terminal cannot show must not stop the program
        sys.stdout.reconfigure(errors="backslashreplace")
    status = 0
    try:
        arguments = _parser().parse_args(argv)
        status = arguments.run(arguments) or 0
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes stdout once more at exit
    except (MinidatError, OSError, MemoryError) as error:
        reason = " ".join(str(error).split()) or "not enough memory"
        print(f"minidat: error: {reason}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interruption:
        print(f"minidat: {interruption.args[0] if interruption.args else 'interrupted'}", file=sys.stderr)
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="minidat", description="The Deformable Attention Transformer in readable NumPy: image classification."
    )
    parser.add_argument("--version", action="version", version=f"minidat {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser
