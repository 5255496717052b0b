"""How much of a model's offsets depends on the picture, and how good it is without that part.

    python examples/measure_offsets.py WEIGHTS DATA [--split NAME] [--pictures N]

WEIGHTS: a classifier, detector or segmentor with deformable blocks; DATA: what `minidat evaluate` takes, with pictures
of one size; N: how many of them, spread over the data set (default: all). A first table has the parts of the squared
offsets of each deformable block (`minidat.visualization.offset_shares`), and how much one vector a group explains that
may differ from picture to picture. A second one has the model's figure (accuracy, box AP, mean IoU) with the offsets as
they are, with the mean over these pictures in their place, of each point or of each group, and with none. It was not
trained for that: the fall says what the model makes of the offsets, not what a model without them would reach.
"""

import dataclasses
import sys
from argparse import RawDescriptionHelpFormatter

import numpy as np

from minidat import Context, MinidatError, load_model
from minidat.commands.shared import Parser
from minidat.data.datasets import ArrayDataset
from minidat.data.dense_preprocessing import preprocess_detection, preprocess_segmentation
from minidat.data.detection_dataset import DetectionDataset
from minidat.data.image import preprocess_batch
from minidat.data.opening import open_dataset
from minidat.data.segmentation_dataset import SegmentationDataset
from minidat.detection import Detector
from minidat.evaluation import evaluate_detector, evaluate_segmentor
from minidat.segmentation import Segmentor
from minidat.visualization import offset_shares

BATCH = 250  # small pictures at once


class Trace(dict):
    """The records of deformable attention without the attention, which takes much memory: lists, one for each path."""

    def __setitem__(self, path, record):
        without = dataclasses.replace(record, attention=record.attention[..., :0])
        super().__setitem__(path, [*self.get(path, []), without])


def open_data(model, arguments):
    """The data set, cut down to --pictures."""
    if isinstance(model, Detector):
        dataset = DetectionDataset(arguments.data, arguments.split, default_split="val")
    elif isinstance(model, Segmentor):
        dataset = SegmentationDataset(arguments.data, arguments.split, default_split="val")
    else:
        dataset = open_dataset(arguments.data, arguments.split, default_split="test")
    count = min(arguments.pictures or len(dataset), len(dataset))
    chosen = np.linspace(0, len(dataset) - 1, count).round().astype(int).tolist()
    if isinstance(model, Detector | Segmentor):
        return dataset.subset(chosen)
    return ArrayDataset(np.stack(dataset.load_many(chosen)), dataset.labels[chosen], dataset.classes)


def batches(model, dataset):
    """What the network is given, (B, h, w, 3) at a time."""
    if isinstance(dataset, ArrayDataset):
        for start in range(0, len(dataset), BATCH):
            yield preprocess_batch(dataset.images[start : start + BATCH], model.config)
        return
    for index in range(len(dataset)):
        image, _ = dataset.load(index)
        if isinstance(model, Detector):
            yield preprocess_detection(image, scale=model.config.resize_size).pixels[None]
        else:
            yield preprocess_segmentation(image, scale=model.config.resize_size)[None]


def figures(model, dataset):
    """Right or wrong for each picture, 1 or 0; of a detector or segmentor one number, the box AP or mean IoU."""
    if isinstance(model, Detector):
        return np.array([evaluate_detector(model, dataset)["bbox"].as_dict()["AP"]])
    if isinstance(model, Segmentor):
        return np.array([evaluate_segmentor(model, dataset).mean_iou])
    answers = np.concatenate([model(pixels).argmax(axis=1) for pixels in batches(model, dataset)])
    return (answers == dataset.labels).astype(float)


def freeze(model, path, positions):
    """Let a deformable block read at these points, (groups, Hk, Wk, 2), whatever the picture."""
    module = dict(model.named_modules())[path]
    module._positions = lambda query, context: (np.repeat(positions[None], len(query), axis=0), None)


def measure(model, dataset):
    """Print the parts of the offsets of each block. Returns its records, by its path."""
    trace = Trace()
    for pixels in batches(model, dataset):
        part = model.backbone if isinstance(model, Detector | Segmentor) else model
        part.forward(pixels, Context(trace=trace))
    print(f"{'block':<22}{'map':>9}{'points':>9}{'length':>8}", end="")
    print(f"{'constant':>10}{'place':>7}{'content':>9}{'own constant':>14}  content by group")
    for path, records in trace.items():
        shares = offset_shares(records)
        own = np.mean([offset_shares([one]).constant for record in records for one in single(record)])
        name = path.removeprefix("backbone.").removesuffix(".attention")
        sizes = (" x ".join(map(str, size)) for size in (records[0].map_size, records[0].positions.shape[2:4]))
        parts = f"{shares.constant:>10.1%}{shares.place:>7.1%}{shares.content:>9.1%}{own:>14.1%}"
        groups = "/".join(f"{content:.0%}" for content in shares.groups[:, 2])
        print(f"{name:<22}{next(sizes):>9}{next(sizes):>9}{shares.length:>8.2f}{parts}  {groups}", flush=True)
    return trace


def single(record):
    """The record of each picture of a batch."""
    for positions in record.positions:
        yield dataclasses.replace(record, positions=positions[None])


def compare(model, dataset, trace):
    """Print the model's figure with the offsets as they are, and with others."""
    own = figures(model, dataset)
    print(f"\noffsets as they are       {own.mean():.2%}", flush=True)
    for kind in ("mean of each point", "mean of each group", "none"):
        for path, records in trace.items():
            reference = records[0].reference
            mean = np.concatenate([record.positions for record in records]).mean(axis=0) - reference
            if kind == "mean of each group":
                mean = np.broadcast_to(mean.mean(axis=(1, 2), keepdims=True), mean.shape)
            freeze(model, path, (reference + (0 * mean if kind == "none" else mean)).astype(reference.dtype))
        found = figures(model, dataset)
        error = (found - own).std(ddof=1) / len(own) ** 0.5 if len(own) > 1 else None
        note = "" if error is None else f" +- {error:.2%} (standard error, picture by picture)"
        print(f"{kind:<26}{found.mean():.2%}, a difference of {(found - own).mean():.2%}{note}", flush=True)


def main() -> int:
    parser = Parser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("weights", metavar="WEIGHTS")
    parser.add_argument("data", metavar="DATA")
    parser.add_argument("--split", metavar="NAME")
    parser.add_argument("--pictures", type=int, metavar="N")
    arguments = parser.parse_args()
    if arguments.pictures is not None and arguments.pictures < 1:
        parser.error(f"--pictures: found {arguments.pictures}, expected at least 1")
    try:
        model = load_model(arguments.weights)
        dataset = open_data(model, arguments)
        print(f"{model.config.name} on {len(dataset)} pictures of {arguments.data}")
        compare(model, dataset, measure(model, dataset))
    except MinidatError as error:
        print(f"measure_offsets: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
