"""How good a model is: accuracy, average precision and mean IoU on a data set; the confusion matrix as a picture."""

from .accuracy import ClassResult, Evaluation, evaluate, format_evaluation
from .average_precision import ClassPrecision, DetectionMetrics, evaluate_detections, format_detection_metrics
from .confusion import check_picture_path, draw_confusion_matrix, save_picture
from .segmentation import SegmentationMetrics, format_segmentation_metrics

__all__ = [
    "ClassPrecision",
    "ClassResult",
    "DetectionMetrics",
    "Evaluation",
    "SegmentationMetrics",
    "check_picture_path",
    "draw_confusion_matrix",
    "evaluate",
    "evaluate_detections",
    "format_detection_metrics",
    "format_evaluation",
    "format_segmentation_metrics",
    "save_picture",
]
