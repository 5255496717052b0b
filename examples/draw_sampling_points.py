"""Draw where the deformable attention of a model looks: python examples/draw_sampling_points.py IMAGE OUT.png

One panel for each deformable block of the third stage, for the query in the middle of the map (marked by a square).
"""

import sys

from PIL import Image

import minidat
from minidat.classification import default_weights
from minidat.visualization import draw_sampling_points


def main(image_path: str, output_path: str) -> None:
    model = minidat.load_model(default_weights())
    image = minidat.load_image(image_path)
    context = minidat.Context(trace={})
    model.forward(minidat.preprocess(image, model.config)[None], context)

    panels = []
    for path, record in context.trace.items():
        if path.startswith("stages.2."):
            rows, columns = record.map_size
            panels.append(draw_sampling_points(image, record, query=(rows // 2, columns // 2), side=400))
    picture = Image.new("RGB", (sum(p.width for p in panels) + 8 * (len(panels) - 1), panels[0].height), "white")
    left = 0
    for panel in panels:
        picture.paste(panel, (left, 0))
        left += panel.width + 8
    picture.save(output_path)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
