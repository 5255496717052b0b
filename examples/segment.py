"""Say what each pixel of photographs shows: `python examples/segment.py photo.jpg`. The same as `minidat segment`.

To do it from a program of your own:

    import minidat

    model = minidat.load_model("dat_mini_camvid")
    for name, share in minidat.segment(model, minidat.load_image("photo.jpg")).largest():
        print(name, share)
"""

import sys

from minidat.commands import main

if __name__ == "__main__":
    sys.exit(main(["segment", *sys.argv[1:]]))
