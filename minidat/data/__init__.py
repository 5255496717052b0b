"""Pictures, labels and data sets: from files to what a model takes, and from logits to names."""

from .datasets import ArrayDataset, Dataset, ImageFolder, open_dataset, split_validation
from .image import load_image, preprocess, preprocess_batch, seen_part
from .labels import cifar10_labels, imagenet_labels, load_labels
from .masks import Runs, decode_rle, encode_rle, mask_ious, polygons_to_mask, segmentation_to_mask

__all__ = [
    "ArrayDataset",
    "Dataset",
    "ImageFolder",
    "Runs",
    "cifar10_labels",
    "decode_rle",
    "encode_rle",
    "imagenet_labels",
    "load_image",
    "load_labels",
    "mask_ious",
    "open_dataset",
    "polygons_to_mask",
    "preprocess",
    "preprocess_batch",
    "seen_part",
    "segmentation_to_mask",
    "split_validation",
]
