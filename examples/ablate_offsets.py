"""What offsets bring: a small DAT trained on CIFAR-10 with them, and alike without them, where points stay on the grid.

    python examples/ablate_offsets.py DATA OUTPUT [--seeds N] [--resume]

DATA: `cifar-10-python.tar.gz` as published, or a folder or .zip of pictures, {train,test}/<class>/<picture>. OUTPUT: a
folder that gets one for each run, `seed0-with`, `seed0-without`, `seed1-with` and so on. Nothing is chosen by any
picture: each run's weights are those of its end. At the end, a table of the accuracy on the test pictures. The error
after +- of a run is the standard error of a share of so many pictures; that of a difference counts picture by picture,
since both models are asked about the same ones. Interrupt it as you like, and go on with --resume.
"""

import dataclasses
import os
import sys
from argparse import RawDescriptionHelpFormatter

import numpy as np

from minidat import DAT, MinidatError, ModelConfig
from minidat.commands.shared import Parser
from minidat.data.augmentation import Augmentation
from minidat.data.datasets import ArrayDataset, split_validation
from minidat.data.image import preprocess_batch
from minidat.data.opening import open_dataset
from minidat.models.config import DeformableConfig, StageConfig
from minidat.training import Recipe, show_progress, train

VALIDATION = 2500  # of the training pictures, to see how a run goes
BATCH = 250  # of the test

# The smallest model worth the question: its maps of 8 x 8, 4 x 4 and 2 x 2 tokens are where the shipped classifier
# (examples/train_cifar10.py) has its deformable blocks, and it has all parts of that, narrower.
WITH = ModelConfig(
    name="dat_micro_cifar10",
    image_size=(32, 32),
    num_classes=10,
    resize_size=32,
    mlp_ratio=2,
    convolutional_patches=True,
    local_perception=True,
    convolutional_mlp=True,
    stages=(
        StageConfig(32, 2, ("window", "deformable"), window=4, deformable=DeformableConfig(2, kernel=5)),
        StageConfig(64, 4, ("window", "deformable"), window=4, deformable=DeformableConfig(2, kernel=3)),
        StageConfig(96, 6, ("deformable",), deformable=DeformableConfig(3, kernel=3)),
        StageConfig(128, 8, ("window",), window=1),
    ),
)
RECIPE = Recipe(
    epochs=2,
    batch=64,
    learning_rate=1.5e-3,
    warmup_epochs=0.25,
    clip_norm=2.0,
    average_decay=0.998,
    augmentation=Augmentation(operations=0, erasing=0.0, mixup_alpha=None, cutmix_alpha=None),
)


def without_offsets(config: ModelConfig) -> ModelConfig:
    """The same model, but that every sampling point stays on the grid."""
    stages = [
        stage
        if stage.deformable is None
        else dataclasses.replace(stage, deformable=dataclasses.replace(stage.deformable, offsets=False))
        for stage in config.stages
    ]
    return config.replace(name=f"{config.name}_without_offsets", stages=tuple(stages))


def hits(model: DAT, dataset: ArrayDataset) -> np.ndarray:
    """Which pictures are recognized, (N,) booleans."""
    found = []
    for start in range(0, len(dataset), BATCH):
        part = slice(start, start + BATCH)
        logits = model(preprocess_batch(dataset.images[part], model.config))
        found.append(logits.argmax(axis=1) == dataset.labels[part])
    return np.concatenate(found)


def percent(values: np.ndarray) -> str:
    """The mean of values, one for each picture, and its standard error."""
    return f"{100 * values.mean():6.2f} +-{100 * values.std(ddof=1) / len(values) ** 0.5:5.2f} %"


def print_table(results: dict[str, np.ndarray]) -> None:
    """results: what `hits` says of each kind of model, (seeds, N)."""
    with_offsets, without = (results[name].astype(float) for name in ("with", "without"))
    print(f"{'seed':<8}{'with offsets':>17}{'without':>19}{'difference':>19}")
    for seed, (a, b) in enumerate(zip(with_offsets, without, strict=True)):
        print(f"{seed:<8}{percent(a):>17}{percent(b):>19}{percent(a - b):>19}")
    a, b = with_offsets.mean(axis=0), without.mean(axis=0)
    print(f"{'mean':<8}{percent(a):>17}{percent(b):>19}{percent(a - b):>19}")
    differences = 100 * (with_offsets - without).mean(axis=1)
    if len(differences) > 1:
        error = differences.std(ddof=1) / len(differences) ** 0.5
        print(f"from seed to seed, the difference is {differences.mean():.2f} +- {error:.2f} % (standard error)")


def main() -> int:
    parser = Parser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("data", metavar="DATA")
    parser.add_argument("output", metavar="OUTPUT")
    parser.add_argument("--seeds", type=int, default=2, metavar="N")
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    if arguments.seeds < 1:
        parser.error(f"--seeds: found {arguments.seeds}, expected at least 1")
    try:
        dataset, test = (open_dataset(arguments.data, split) for split in ("train", "test"))
        images, labels = dataset.load_all()
        kept, held_out = split_validation(labels, count=VALIDATION)
        training, validation = (ArrayDataset(images[part], labels[part], dataset.classes) for part in (kept, held_out))
        testing = ArrayDataset(*test.load_all(), test.classes)
        results: dict[str, list[np.ndarray]] = {"with": [], "without": []}
        for seed in range(arguments.seeds):
            for kind, config in (("with", WITH), ("without", without_offsets(WITH))):
                folder = os.path.join(arguments.output, f"seed{seed}-{kind}")
                recipe = dataclasses.replace(RECIPE, seed=seed)
                print(f"{folder}:", file=sys.stderr)
                with show_progress() as progress:
                    model = train(
                        config, training, validation, recipe, folder, resume=arguments.resume, progress=progress
                    )
                results[kind].append(hits(model, testing))
        print_table({kind: np.stack(found) for kind, found in results.items()})
    except MinidatError as error:
        print(f"ablate_offsets: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interruption:
        print(f"ablate_offsets: {str(interruption) or 'interrupted'}; go on with --resume", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
