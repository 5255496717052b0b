"""Pictures, labels and data sets: from files to what a model takes, and from logits to names."""

from .datasets import ArrayDataset, Dataset, split_validation
from .image import load_image, preprocess, preprocess_batch, seen_part
from .image_folder import ImageFolder
from .labels import cifar10_labels, imagenet_labels, load_labels
from .opening import open_dataset

__all__ = [
    "ArrayDataset",
    "Dataset",
    "ImageFolder",
    "cifar10_labels",
    "imagenet_labels",
    "load_image",
    "load_labels",
    "open_dataset",
    "preprocess",
    "preprocess_batch",
    "seen_part",
    "split_validation",
]
