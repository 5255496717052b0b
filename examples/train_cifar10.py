"""Train a small DAT on CIFAR-10, from random weights: how the classifier in `weights/` was made.

    python examples/train_cifar10.py DATA OUTPUT [--resume]

DATA: `cifar-10-python.tar.gz` as published, or a folder or .zip of pictures, train/<class>/<picture>. Only its training
images are read; VALIDATION of them are kept for validation. OUTPUT: a folder for three runs, `first`, `second` and
`third`, each with its weights, log, learning curve and checkpoints. Each goes on from the weights of the one before:
the second with the learning rate raised once more, the third, a short one, with images that are hardly changed.
Interrupt it as you like, with Ctrl-C or worse, and go on with --resume: the result is the same.
"""

import dataclasses
import os
import sys
from argparse import RawDescriptionHelpFormatter

from minidat import MinidatError, ModelConfig
from minidat.commands.shared import Parser
from minidat.data.augmentation import Augmentation
from minidat.data.datasets import ArrayDataset, split_validation
from minidat.data.opening import open_dataset
from minidat.models.config import DeformableConfig, StageConfig
from minidat.training import Recipe, show_progress, train

VALIDATION = 2500

# Two convolutions make a map of 16 x 16 from an image; the stages work on 16 x 16, 8 x 8, 4 x 4 and 2 x 2 tokens. The
# convolutional parts are those of DAT++, which learn far more from few images; the offsets are bounded, as in DAT.
MODEL = ModelConfig(
    name="dat_mini_cifar10",
    image_size=(32, 32),
    num_classes=10,
    resize_size=32,
    patch_size=2,
    mlp_ratio=2,
    convolutional_patches=True,
    local_perception=True,
    convolutional_mlp=True,
    drop_path=0.05,
    stages=(
        StageConfig(64, 2, ("window",), window=8),
        StageConfig(128, 4, ("window", "deformable"), window=8, deformable=DeformableConfig(2, kernel=5, stride=2)),
        StageConfig(192, 6, ("deformable", "deformable"), deformable=DeformableConfig(3, kernel=3)),
        StageConfig(256, 8, ("deformable",), deformable=DeformableConfig(4, kernel=3)),
    ),
)
FIRST = Recipe(
    epochs=24,
    batch=128,
    learning_rate=1.5e-3,
    warmup_epochs=1,
    clip_norm=2.0,
    augmentation=Augmentation(operations=1, magnitude=5.0, mixup_alpha=None, cutmix_alpha=None),
    workers=2,
)
SECOND = dataclasses.replace(FIRST, learning_rate=1e-3, seed=1)
THIRD = dataclasses.replace(
    FIRST,
    epochs=3,
    learning_rate=4e-4,
    warmup_epochs=0.25,
    augmentation=Augmentation(operations=0, erasing=0.0, mixup_alpha=None, cutmix_alpha=None),
    seed=2,
)


def main() -> int:
    parser = Parser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("data", metavar="DATA")
    parser.add_argument("output", metavar="OUTPUT")
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    try:
        dataset = open_dataset(arguments.data, "train")
        images, labels = dataset.load_all()
        kept, held_out = split_validation(labels, count=VALIDATION)
        training, validation = (ArrayDataset(images[part], labels[part], dataset.classes) for part in (kept, held_out))
        weights = None
        for name, recipe in (("first", FIRST), ("second", SECOND), ("third", THIRD)):
            folder = os.path.join(arguments.output, name)
            with show_progress() as progress:
                model = train(
                    MODEL,
                    training,
                    validation,
                    recipe,
                    folder,
                    initial=weights,
                    resume=arguments.resume,
                    progress=progress,
                )
            weights = model.state_dict()
    except MinidatError as error:
        print(f"train_cifar10: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interruption:
        print(f"train_cifar10: {str(interruption) or 'interrupted'}; go on with --resume", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
