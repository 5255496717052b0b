"""Say what is in photographs: `python examples/classify.py examples/images/horse.jpg`. The same as `minidat classify`.

To do it from a program of your own:

    import minidat

    model = minidat.load_model("dat_tiny.npz")
    for prediction in minidat.classify(model, minidat.load_image("photo.jpg")):
        print(prediction.label, prediction.probability)
"""

import sys

from minidat.commands import main

if __name__ == "__main__":
    sys.exit(main(["classify", *sys.argv[1:]]))
