"""Find the objects in photographs: `python examples/detect.py photo.jpg --weights FILE`. The same as `minidat detect`.

To do it from a program of your own:

    import minidat

    model = minidat.load_model("retinanet_datpp_tiny.npz")
    for found in minidat.detect(model, minidat.load_image("photo.jpg")):
        print(found.label, found.score, found.box)
"""

import sys

from minidat.commands import main

if __name__ == "__main__":
    sys.exit(main(["detect", *sys.argv[1:]]))
