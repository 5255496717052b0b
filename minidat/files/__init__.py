"""What several parts of minidat need of files.

atomic          files that appear under their name only when they are complete
reading         opening a file without waiting for ever; texts and JSON that may be anything
shipped         the weights and pictures that come with minidat, by name
pickle_machine  a pickle's content, without executing anything in it
"""
