"""Pictures, labels and data sets: from files to what a model takes, and from logits to names."""

from .augmentation import Augmentation
from .box_augmentation import BoxAugmentation
from .datasets import ArrayDataset, Dataset, split_dataset, split_validation
from .dense_preprocessing import pad_batch, preprocess_detection, preprocess_segmentation
from .detection_dataset import DetectionDataset
from .image import example_image, load_image, preprocess, preprocess_batch, seen_part
from .image_folder import ImageFolder
from .label_augmentation import LabelAugmentation
from .labels import cifar10_labels, imagenet_labels, load_labels
from .masks import Runs, decode_rle, encode_rle, mask_ious, polygons_to_mask, segmentation_to_mask
from .opening import open_dataset
from .segmentation_dataset import SegmentationDataset
from .targets import BoxTargets

__all__ = [
    "ArrayDataset",
    "Augmentation",
    "BoxAugmentation",
    "BoxTargets",
    "Dataset",
    "DetectionDataset",
    "ImageFolder",
    "LabelAugmentation",
    "Runs",
    "SegmentationDataset",
    "cifar10_labels",
    "decode_rle",
    "encode_rle",
    "example_image",
    "imagenet_labels",
    "load_image",
    "load_labels",
    "mask_ious",
    "open_dataset",
    "pad_batch",
    "polygons_to_mask",
    "preprocess",
    "preprocess_batch",
    "preprocess_detection",
    "preprocess_segmentation",
    "seen_part",
    "segmentation_to_mask",
    "split_dataset",
    "split_validation",
]
