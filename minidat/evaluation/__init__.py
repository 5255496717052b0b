"""How good a model is: accuracy on a data set, and the confusion matrix as a picture."""

from .accuracy import ClassResult, Evaluation, evaluate, format_evaluation
from .confusion import check_picture_path, draw_confusion_matrix, save_picture

__all__ = [
    "ClassResult",
    "Evaluation",
    "check_picture_path",
    "draw_confusion_matrix",
    "evaluate",
    "format_evaluation",
    "save_picture",
]
