"""Pictures, labels and data sets: from files to what a model takes, and from logits to names."""

from .datasets import ArrayDataset, Dataset, ImageFolder, open_dataset, split_validation
from .dense_preprocessing import pad_batch, preprocess_detection, preprocess_segmentation
from .detection_dataset import DetectionDataset
from .image import load_image, preprocess, preprocess_batch, seen_part
from .labels import cifar10_labels, imagenet_labels, load_labels
from .segmentation_dataset import SegmentationDataset
from .targets import BoxTargets

__all__ = [
    "ArrayDataset",
    "BoxTargets",
    "Dataset",
    "DetectionDataset",
    "ImageFolder",
    "SegmentationDataset",
    "cifar10_labels",
    "imagenet_labels",
    "load_image",
    "load_labels",
    "open_dataset",
    "pad_batch",
    "preprocess",
    "preprocess_batch",
    "preprocess_detection",
    "preprocess_segmentation",
    "seen_part",
    "split_validation",
]
