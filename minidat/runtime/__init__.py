"""How work is shared among cores: threads, cutting work into parts, and the processes of a `Session`.

It knows no operator and no model.
"""
