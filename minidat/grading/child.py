"""The process that a solution runs in: python -m minidat.grading.child FILE EXERCISE SEED SECONDS FOLDER.

Leaves in FOLDER: `case`, what it is busy with; at the end `report`; or, when the time is over, `stack`, from which one
sees the line that the solution had come to. The watchdog is faulthandler's, which no loop in Python can hold up.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from .grade import grade_here


def main(file: str, exercise: str, seed: str, seconds: str, folder: str) -> None:
    here = Path(folder)
    with open(here / "stack", "w") as stack, open(here / "case", "w", encoding="utf-8") as case:

        def on_case(text: str) -> None:
            case.seek(0)
            case.truncate()
            case.write(text)
            case.flush()

        faulthandler.dump_traceback_later(float(seconds), exit=True, file=stack)
        report = grade_here(file, exercise, seed=int(seed), on_case=on_case)
        faulthandler.cancel_dump_traceback_later()
    unfinished = here / "report.part"
    unfinished.write_text(json.dumps(asdict(report)), "utf-8")
    unfinished.replace(here / "report")


if __name__ == "__main__":
    main(*sys.argv[1:])
    os._exit(0)  # threads that the solution has started do not keep us
