"""The graded exercises of the course: `minidat grade FILE` runs a student's function and explains its first failure.

exercises/      one small description an exercise: what to write, the right answer, typical mistakes
exercise.py     the words such a description is made of
cases.py        inputs from tiny to larger ones, and the simplification of a counter-example
attempt.py      one call of a student's function
checking.py     all calls, the checks, the explanation of a failure
diagnosis.py    which mistake would give exactly the student's numbers
grade.py        files and processes: a solution is a program, run with a time limit in a process of its own
"""

from .grade import Report, find_exercise, format_report, grade_file, list_exercises

__all__ = ["Report", "find_exercise", "format_report", "grade_file", "list_exercises"]
