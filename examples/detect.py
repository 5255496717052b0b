"""Find the objects in a picture: `python examples/detect.py examples/images/blood_cells.jpg`, as `minidat detect`.

To do it from a program of your own:

    import minidat

    model = minidat.load_model("dat_mini_bccd")
    for found in minidat.detect(model, minidat.example_image("blood_cells")):
        print(found.label, found.score, found.box)
"""

import sys

from minidat.commands import main

if __name__ == "__main__":
    sys.exit(main(["detect", *sys.argv[1:]]))
