"""The graded exercises of the course: `minidat grade FILE` runs a student's function and explains its first failure.

exercises/      one small description an exercise: what to write, the right answer, typical mistakes
exercise.py     the words such a description is made of
cases.py        inputs from tiny to larger ones, and the simplification of a counter-example
attempt.py      one call of a student's function: the question and its reply
checking.py     all calls, the checks, the explanation of a failure
diagnosis.py    which mistake would give exactly the student's numbers
borrowed.py     the shipped model with a solution's operators in it, for the capstone
grade.py        files and reports
process.py      the process that a solution runs in, seen from the judge
solution_process/  what is in that process: it computes, and never judges
"""

from .grade import Report, Submission, find_exercise, format_report, grade, grade_file, list_exercises, read_submission

__all__ = [
    "Report",
    "Submission",
    "find_exercise",
    "format_report",
    "grade",
    "grade_file",
    "list_exercises",
    "read_submission",
]
