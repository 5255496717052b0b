"""The machine: operators made fast, under the same names, with the same signatures and the same numbers."""
