"""Overfit a small Mask R-CNN on sixteen photographs: what learns these by heart has no broken gradient.

    python examples/overfit_coco.py DATA OUTPUT [--resume]

DATA: a folder or .zip of pictures with boxes and masks in COCO's JSON, such as a part of COCO's train2017. Of it, the
first PICTURES that have one to MOST_OBJECTS objects are learned, and nothing else is looked at. OUTPUT: a folder for
the run, with weights, log, learning curve and checkpoints, and for `overfit.jpg`: for some of the pictures, what is
annotated beside what is found. Interrupt it as you like and go on with --resume: the result is the same.

The backbone begins with the weights of the classifier that comes with minidat; all else is random. Model and recipe are
`recipes/coco16_model.json` and `recipes/coco16_recipe.json`, beside this file.
"""

import sys
from argparse import RawDescriptionHelpFormatter
from pathlib import Path

import numpy as np
from PIL import Image

import minidat
from minidat import MinidatError
from minidat.catalog import config_from_dict
from minidat.classification import default_weights
from minidat.commands.shared import Parser
from minidat.data import DetectionDataset
from minidat.data.masks import segmentation_to_mask
from minidat.detection import Detection, MaskRCNN, MaskRCNNConfig
from minidat.errors import ConfigError, DatasetError
from minidat.evaluation import evaluate_detector
from minidat.files.reading import read_json
from minidat.training import Recipe, backbone_weights, default_recipe, show_progress, train
from minidat.visualization import draw_detections

PICTURES, MOST_OBJECTS = 16, 5
RECIPES = Path(__file__).parent / "recipes"
SHOWN, COLUMNS = 8, 2  # pictures on the sheet, pairs in a row
TILE = 240, 320  # (height, width) of each half of a pair
GAP = 8
SCORE_THRESHOLD = 0.5  # of what is drawn


def main() -> int:
    parser = Parser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("data", metavar="DATA")
    parser.add_argument("output", metavar="OUTPUT")
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    try:
        pictures = choose_pictures(DetectionDataset(arguments.data, default_split="train"), PICTURES)
        config, recipe = read_recipe(len(pictures.classes))
        classifier = minidat.load_model(default_weights())
        with show_progress() as progress:
            model = train(
                config,
                pictures,
                pictures,
                recipe,
                arguments.output,
                initial=backbone_weights(classifier, config).weights,
                resume=arguments.resume,
                progress=progress,
            )
        found = evaluate_detector(model, pictures)
        print(f"box AP50 {found['bbox'].ap50:.1%}, mask AP50 {found['segm'].ap50:.1%} on the {len(pictures)} pictures")
        sheet = Path(arguments.output) / "overfit.jpg"
        draw_sheet(model, pictures).save(sheet, quality=70)
        print(f"annotated beside found: {sheet}")
    except MinidatError as error:
        print(f"overfit_coco: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interruption:
        print(f"overfit_coco: {str(interruption) or 'interrupted'}; go on with --resume", file=sys.stderr)
        return 130
    return 0


def choose_pictures(dataset: DetectionDataset, number: int) -> DetectionDataset:
    """The first `number` pictures of a data set with one to MOST_OBJECTS objects. Raises DatasetError if it has fewer
    of them, or no masks."""
    if not dataset.has_masks:
        raise DatasetError(f"{dataset.name}: found objects without a mask, expected one for each")
    fitting = [i for i in dataset.occupied.tolist() if len(dataset.targets(i).boxes) <= MOST_OBJECTS]
    if len(fitting) < number:
        raise DatasetError(
            f"{dataset.name}: found {len(fitting)} pictures with 1 to {MOST_OBJECTS} objects, expected {number}"
        )
    return dataset.subset(fitting[:number])


def read_recipe(num_classes: int) -> tuple[MaskRCNNConfig, Recipe]:
    """The model and the recipe in the files beside this one."""
    config = config_from_dict(read_json(RECIPES / "coco16_model.json", ConfigError)).replace(num_classes=num_classes)
    fields = read_json(RECIPES / "coco16_recipe.json", ConfigError)
    return config, Recipe.from_dict(fields, default_recipe(config))


def draw_sheet(model: MaskRCNN, pictures: DetectionDataset) -> Image.Image:
    """Pairs: the objects that are annotated in a picture, and beside them those that the model finds."""
    shown = without_people(pictures)[:SHOWN]
    rows, height, width = -(-len(shown) // COLUMNS), TILE[0] + GAP, 2 * TILE[1] + 2 * GAP
    sheet = Image.new("RGB", (COLUMNS * width - GAP, rows * height - GAP), "white")
    for place, i in enumerate(shown):
        image, _ = pictures.load(i)
        top, left = place // COLUMNS * height, place % COLUMNS * width
        sheet.paste(_tile(image, annotated(pictures, i), scores=False), (left, top))
        found = minidat.detect(model, image, SCORE_THRESHOLD)
        sheet.paste(_tile(image, found, scores=True), (left + TILE[1], top))
    return sheet


def without_people(pictures: DetectionDataset) -> list[int]:
    """The indices of the pictures that no person is annotated in: nobody has asked the others."""
    names = ({pictures.classes[label] for label in pictures.targets(i).labels} for i in range(len(pictures)))
    return [i for i, present in enumerate(names) if "person" not in present]


def annotated(pictures: DetectionDataset, index: int) -> list[Detection]:
    """The objects of a picture as a detector would answer them, if it were always right and sure."""
    targets, size = pictures.targets(index), pictures.size(index)
    return [
        Detection(pictures.classes[label], 1.0, tuple(box), label, segmentation_to_mask(mask, *size))
        for box, label, mask in zip(targets.boxes.tolist(), targets.labels.tolist(), targets.masks or [], strict=True)
    ]


def _tile(image: np.ndarray, objects: list[Detection], *, scores: bool) -> Image.Image:
    """A picture with its objects, without the legend, inside of TILE."""
    height, width = image.shape[:2]
    drawn = draw_detections(image, objects, scores=scores)
    drawn = drawn.crop((0, 0, drawn.width, round(drawn.width * height / width)))
    drawn.thumbnail((TILE[1] - GAP, TILE[0]), Image.Resampling.LANCZOS)
    tile = Image.new("RGB", (TILE[1], TILE[0]), "white")
    tile.paste(drawn, ((TILE[1] - GAP - drawn.width) // 2, (TILE[0] - drawn.height) // 2))
    return tile


if __name__ == "__main__":
    sys.exit(main())
