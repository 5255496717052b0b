"""`minidat grade`: check solutions of the course's exercises."""

from __future__ import annotations

import argparse
from typing import Any

from .shared import print_json


def add(commands: Any) -> None:
    command = commands.add_parser(
        "grade",
        help="check solutions of the course's exercises",
        description="Check solutions of the course's exercises (the stubs are in examples/exercises), and explain what "
        "is wrong by the smallest example in which it is. A solution is a program: it is executed, with your rights, "
        "in a process of its own. Exit status: 0 if all passed, 1 if one failed, 2 if a file is no exercise.",
    )
    command.add_argument(
        "files", nargs="+", metavar="FILE", help="a completed stub; a line `# minidat exercise: NAME`, or else the "
        "file's name, says of which exercise",
    )  # fmt: skip
    command.add_argument("--json", action="store_true", help="print a list of objects for programs, one for each file")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="of the numbers in the examples (default: 0)")
    command.add_argument(
        "--limit", type=float, default=20, metavar="SECONDS", help="the time that a file is given (default: 20)"
    )
    command.add_argument(
        "--hint", type=int, choices=(1, 2, 3), help="where a file fails, add help with its first failure: 1 where to "
        "look, 2 the idea, 3 the formula",
    )  # fmt: skip
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from ..grading import Report, format_report, grade, read_submission

    submissions = [read_submission(path) for path in arguments.files]  # before the work, not after it
    reports: list[Report] = []
    for submission in submissions:
        report = grade(submission, seed=arguments.seed, time_limit=arguments.limit)
        if not arguments.json:
            print(("\n" if reports else "") + format_report(report, hint=arguments.hint), flush=True)
        reports.append(report)
    passed = sum(report.passed for report in reports)
    if arguments.json:
        print_json([report.to_dict(hint=arguments.hint) for report in reports])
    elif len(reports) > 1:
        print(f"\n{passed} of {len(reports)} files passed")
    return 0 if passed == len(reports) else 1
