"""`minidat bench`: time and memory of a model, beside PyTorch's."""

from __future__ import annotations

import argparse
from typing import Any

from .shared import print_json


def add(commands: Any) -> None:
    command = commands.add_parser(
        "bench",
        help="time and memory of a model, beside PyTorch's",
        description="Measure inference, or a training step, on random images; beside the PyTorch transcription in the "
        "project's tests, if both are there. Takes up to a minute or two.",
    )
    command.add_argument("model", metavar="MODEL", help="such as dat_tiny; `minidat info` lists all")
    command.add_argument("--batch", type=int, default=1, metavar="N", help="images at once (default: 1)")
    command.add_argument("--train", action="store_true", help="a training step: forward, loss, backward")
    command.add_argument("--plain", action="store_true", help="also what each operator takes in the textbook")
    command.add_argument("--threads", type=int, metavar="N", help="for NumPy and PyTorch alike (default: all cores)")
    command.add_argument("--json", action="store_true", help="print one object for programs")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from ..benchmark import format_benchmark, run_benchmark

    result = run_benchmark(
        arguments.model,
        batch=arguments.batch,
        train=arguments.train,
        plain=arguments.plain,
        threads=arguments.threads,
    )
    if arguments.json:
        print_json(result)
    else:
        print(format_benchmark(result))
