"""What runs beside a solution, in a process where minidat does not exist: the standard library and NumPy, no more.

The judge (`minidat.grading`) starts it under the name `solution_process`, gives it numbers and takes numbers back.
Nothing in here can tell a right result from a wrong one.

wire.py         messages: a line of JSON, arrays in it as plain bytes
layers.py       the functions that some exercises are given as arguments
calls.py        loading a solution and calling its functions
guard.py        what a solution may not do
keeper.py       the parent of the solution's process: ends all that was started
main.py         limits, then one answer a message
"""
