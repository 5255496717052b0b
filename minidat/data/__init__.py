"""Pictures and labels: from files to what a model takes, and from logits to names."""

from .image import load_image, preprocess
from .labels import cifar10_labels, imagenet_labels, load_labels

__all__ = ["cifar10_labels", "imagenet_labels", "load_image", "load_labels", "preprocess"]
