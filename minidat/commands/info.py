"""`minidat info`: the models: parameters, GFLOPs, accuracy."""

from __future__ import annotations

import argparse
from typing import Any

from .shared import print_json


def add(commands: Any) -> None:
    command = commands.add_parser(
        "info",
        help="the models: parameters, GFLOPs, accuracy",
        description="A table of the published models, or one of them part by part.",
    )
    command.add_argument("name", nargs="?", metavar="NAME", help="one model, such as dat_tiny (default: all)")
    command.add_argument("--json", action="store_true", help="print a list of objects for programs")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from ..info import describe_all, describe_model, format_model, format_models

    models = [describe_model(arguments.name)] if arguments.name else describe_all()
    if arguments.json:
        print_json(models)
    else:
        print(format_model(models[0]) if arguments.name else format_models(models))
