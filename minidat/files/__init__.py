"""What several parts of minidat need of files.

atomic          files that appear under their name only when they are complete
pickle_machine  a pickle's content, without executing anything in it
"""
