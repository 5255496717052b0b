"""The graded exercises: every reference solution passes, every stub fails, and each mistake is told by its name.

A wrong solution is the reference solution of tests/exercise_solutions with one piece of it replaced.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from minidat import classify, example_image, load_model
from minidat.commands import main
from minidat.errors import ExerciseError
from minidat.evaluation import evaluate_detections
from minidat.grading import find_exercise, format_report, grade_file, list_exercises
from minidat.grading.cases import Case, growing_cases, simplify
from minidat.grading.checking import right_answers
from minidat.grading.diagnosis import Evidence, diagnose, equal, size_pattern
from minidat.grading.exercise import Function, call_by_names
from minidat.grading.exercises import average_precision, neighborhood
from minidat.grading.grade import Report, judge, load_exercise, read_submission
from minidat.grading.solution_process.calls import Solution
from minidat.grading.solution_process.wire import decode, encode
from minidat.nn import BatchNorm, Context, Parameter
from minidat.nn.initializers import constant
from minidat.ops import box_iou, neighborhood_attention
from minidat.training import AdamW

TESTS = Path(__file__).parent
SOLUTIONS = TESTS / "exercise_solutions"
STUBS = TESTS.parent / "examples" / "exercises"

PIXELS_FIRST = "cut = cut.transpose(0, 1, 3, 5, 2, 4)  # (B, H/p, W/p, C, p, p)"
NORMED = "normalized * (g * normalized).mean(axis=-1, keepdims=True)"
SUM_P_D = "(p * d_output).sum(axis=-1, keepdims=True)"
D_SCORES = "d_scores = p * (d_p - (p * d_p).sum(axis=-1, keepdims=True))"
MASK = "np.where(numbers[:, :, None] == numbers[:, None, :], 0.0, -100.0)"
ADD_AT = "np.add.at(d_x, (rows, columns), (weight_y * weight_x * inside)[:, None] * d_output)"
GRID = 'np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)'
SPLIT = "tokens.reshape(len(tokens), heads, channels // heads).swapaxes(0, 1)"
FIRST = "np.clip(np.arange(size) - kernel // 2, 0, size - kernel)"

# (exercise, piece of the reference solution, what stands in its place, what the message must say)
WRONG = [
    ("patches", PIXELS_FIRST, "cut = cut.transpose(0, 1, 3, 2, 4, 5)", "bring both into the same order"),
    ("patches", PIXELS_FIRST, "cut = cut.transpose(0, 1, 3, 5, 4, 2)", "y and x are swapped inside each patch"),
    (
        "patches",
        "cut = images.reshape(batch, height // patch, patch, width // patch, patch, channels)\n    " + PIXELS_FIRST,
        "cut = images.reshape(batch, height // patch, width // patch, patch, patch, channels)\n"
        "    cut = cut.transpose(0, 1, 2, 5, 3, 4)",
        "cut in memory order",
    ),
    ("patches", ".T + bias", ".T", "the bias is missing"),
    ("linear", "d_rows.T @ rows", "rows.T @ d_rows", "d_weight is transposed: its axes are (inputs, outputs)"),
    ("linear", "d_rows.sum(axis=0)", "d_output.sum(axis=0)", "the sum over axis 0 (tokens) is missing"),
    ("linear", "d_rows.sum(axis=0)", "d_output", "the sum over axis 0 (batch) and axis 1 (tokens) is missing"),
    ("linear", "d_rows.sum(axis=0)", "d_rows.mean(axis=0)", "d_bias is the mean over the rows"),
    ("linear", "d_rows.sum(axis=0)", "d_rows.sum()", "d_bias is summed over axis 0 (outputs), which should stay"),
    ("linear", "d_output @ weight\n", "d_output @ weight.T\n", "the weight is transposed"),
    ("linear", "return d_x, d_weight, d_bias", "return d_x, d_weight", "expected (d_x, d_weight, d_bias)"),
    ("linear", "d_rows.T @ rows", "d_output[0].T @ x[0]", "only the first element of the batch counts"),
    ("layer_norm", "g = d_output * weight", "g = d_output", "the weight is missing"),
    ("layer_norm", "g - g.mean(axis=-1, keepdims=True)", "g.copy()", "the term mean(g) is missing"),
    ("layer_norm", "d_x -= " + NORMED, "pass", "the term normalized * mean(g * normalized) is missing"),
    ("layer_norm", "d_x -= " + NORMED, "d_x += " + NORMED, "the sign of the term with normalized is wrong"),
    ("layer_norm", "        d_x /= std\n", "", "the division by the standard deviation is missing"),
    ("layer_norm", "d_x /= std", "d_x /= std**2", "First difference"),
    (
        "layer_norm",
        "(d_output * normalized).sum(axis=0)",
        "d_output * normalized",
        "the sum over axis 0 (rows) is missing",
    ),
    ("layer_norm", "(d_output * normalized).sum(axis=0)", "(d_output * x).sum(axis=0)", "d_weight is made of x"),
    ("layer_norm", "return d_x, d_weight, d_bias", "return d_x, d_bias, d_weight", "d_weight and d_bias are mixed up"),
    ("layer_norm", "g - g.mean(axis=-1, keepdims=True)", "g - g.mean(axis=-1)", "keepdims=True"),
    ("softmax", f"p * (d_output - {SUM_P_D})", "d_output * p * (1 - p)", "only the diagonal of the Jacobian"),
    ("softmax", f"p * (d_output - {SUM_P_D})", "d_output * p", "the term of the denominator"),
    ("softmax", SUM_P_D, "(p * d_output).sum()", "the sum goes over all rows"),
    ("softmax", SUM_P_D, "d_output.sum(axis=-1, keepdims=True)", "the sum is that of d_output"),
    ("softmax", f"p * (d_output - {SUM_P_D})", f"p * ({SUM_P_D} - d_output)", "d_x has the wrong sign"),
    ("attention", "scale * query @ key", "query @ key", "the scale is missing"),
    ("attention", "d_query = scale * d_scores @ key", "d_query = d_scores @ key", "so d_query = scale * d_scores key"),
    ("attention", D_SCORES, "d_scores = p * d_p", "the backward of the softmax is incomplete"),
    ("attention", D_SCORES, "d_scores = d_p", "the backward of the softmax is missing"),
    (
        "attention",
        "d_key = scale * d_scores.swapaxes(-1, -2)",
        "d_key = scale * d_scores",
        "d_scores is not transposed",
    ),
    ("attention", "d_value = p.swapaxes(-1, -2)", "d_value = p", "the probabilities are not transposed"),
    (
        "attention",
        "scores.max(axis=-1, keepdims=True))\n    p = exponentials / exponentials.sum(axis=-1, keepdims=True)",
        "scores.max(axis=-2, keepdims=True))\n    p = exponentials / exponentials.sum(axis=-2, keepdims=True)",
        "the softmax goes over the queries",
    ),
    ("attention", "return d_query, d_key, d_value", "return d_key, d_query, d_value", "d_query and d_key are mixed up"),
    ("windows", "return x.swapaxes(2, 3).reshape(-1, window", "return x.reshape(-1, window", "cut in memory order"),
    (
        "windows",
        "x.swapaxes(2, 3).reshape(-1, window",
        "x.transpose(0, 1, 3, 4, 2, 5).reshape(-1, window",
        "tokens within",
    ),
    (
        "windows",
        "x.swapaxes(2, 3).reshape(-1, window",
        "x.transpose(0, 3, 1, 2, 4, 5).reshape(-1, window",
        "the windows are",
    ),
    (
        "windows",
        "x.swapaxes(2, 3).reshape(-1, window",
        "x.transpose(0, 3, 1, 4, 2, 5).reshape(-1, window",
        "y and x are",
    ),
    ("windows", "x.swapaxes(2, 3).reshape(-1, height", "x.reshape(-1, height", "joined in memory order"),
    (
        "windows",
        "windows.reshape(-1, height // window, width // window",
        "windows.reshape(-1, width // window, height // window",
        "H / w, the rows of windows, comes first",
    ),
    ("shifted_mask", MASK, MASK.replace("0.0, -100.0", "-100.0, 0.0"), "the mask is inverted"),
    ("shifted_mask", MASK, MASK.replace("-100.0", "100.0"), "the sign is wrong"),
    ("shifted_mask", MASK, "numbers[:, :, None] == numbers[:, None, :]", "True or 1 where two tokens may look"),
    ("shifted_mask", MASK, "numbers[:, :, None] != numbers[:, None, :]", "True or 1 where two tokens may not look"),
    ("shifted_mask", MASK, MASK.replace("-100.0", "-np.inf"), "minus infinity"),
    (
        "shifted_mask",
        "3 * regions(height)[:, None] + regions(width)",
        "regions(height)[:, None] + regions(width)",
        "added",
    ),
    ("shifted_mask", "3 * regions(height)[:, None]", "0 * regions(height)[:, None]", "only the columns are told apart"),
    ("shifted_mask", "+ regions(width)", "+ 0 * regions(width)", "only the rows are told apart"),
    (
        "shifted_mask",
        "line[-window:-shift] = 1\n        line[-shift:] = 2",
        "line[:shift] = 1",
        "the region that was rolled around is put first",
    ),
    ("bilinear", "positions[:, 0] + 1", "positions[:, 1] + 1", "both coordinates are made of positions[:, 1]"),
    (
        "bilinear",
        "height, width, channels = x.shape",
        "positions = positions[:, ::-1]\n    height, width, channels = x.shape",
        "y and x are swapped",
    ),
    (
        "bilinear",
        "* (height - 1)\n    px = (positions[:, 1] + 1) / 2 * (width - 1)",
        "* height - 0.5\n    px = (positions[:, 1] + 1) / 2 * width - 0.5",
        "taken for the edges of the map",
    ),
    (
        "bilinear",
        "* (height - 1)\n    px = (positions[:, 1] + 1) / 2 * (width - 1)",
        "* height\n    px = (positions[:, 1] + 1) / 2 * width",
        "positions are scaled by n",
    ),
    ("bilinear", "weight_y * weight_x * inside", "weight_y * weight_x", "outside the map there are zeros"),
    ("bilinear", "((0, 1 - fy), (1, fy))", "((0, fy), (1, 1 - fy))", "the weights of y are exchanged"),
    ("bilinear", "weight_y * weight_x * inside", "weight_x * weight_x * inside", "the weight of x stands where"),
    ("bilinear", "((0, 1 - fy), (1, fy))", "((0, 1 - fx), (1, fx))", "the weight of x stands where that of y should"),
    ("bilinear", "((0, 1 - fx), (1, fx))", "((0, 1 - fy), (1, fy))", "the weight of y stands where that of x should"),
    ("bilinear", "fy, fx = py - y0, px - x0", "fx, fy = py - y0, px - x0", "the weights of y and x are swapped"),
    ("bilinear", "fy, fx = py - y0, px - x0", "fy, fx = 1 - py + y0, 1 - px + x0", "the weights are exchanged"),
    (
        "bilinear",
        "fy, fx = py - y0, px - x0",
        "fy, fx = 0 * py, 0 * px",
        "only the pixel above and to the left is read",
    ),
    (
        "bilinear_backward",
        ADD_AT,
        ADD_AT.replace("np.add.at(d_x, (rows, columns), ", "d_x[rows, columns] += (")[:-1] + ")",
        "np.add.at",
    ),
    (
        "bilinear_backward",
        "        d_positions *= np.array([height - 1, width - 1]) / 2\n",
        "",
        "the factor (n - 1) / 2 is missing",
    ),
    (
        "bilinear_backward",
        "np.array([height - 1, width - 1]) / 2",
        "np.array([height - 1, width - 1])",
        "positions run from -1 to 1",
    ),
    ("bilinear_backward", "return d_x, d_positions", "return d_x, d_positions[:, ::-1]", "y and x are swapped"),
    ("bilinear_backward", "slope_y * weight_x", "slope_y * weight_y", "multiplied by the weight of its own axis"),
    ("bilinear_backward", "slope_y * weight_x", "slope_y", "a slope is not multiplied by the other weight"),
    (
        "bilinear_backward",
        ADD_AT,
        ADD_AT.replace("weight_y * weight_x", "weight_x * weight_x"),
        "the weight of x stands where that of y should",
    ),
    ("bilinear_backward", ADD_AT, ADD_AT.replace(" * inside", ""), "the mask `inside` is forgotten"),
    ("bilinear_backward", "return d_x, d_positions", "return d_x, -d_positions", "d_positions has the wrong sign"),
    ("bilinear_backward", "sum(axis=1) * inside", "sum(axis=1)", "the mask `inside` is forgotten"),
    (
        "reference_points",
        GRID,
        GRID.replace("rows, columns", "columns, rows").replace('"ij"', '"xy"'),
        "y and x are swapped",
    ),
    ("reference_points", ', indexing="ij"', "", "np.meshgrid has the rows first"),
    (
        "reference_points",
        "(np.arange(height) + 0.5) / height * 2 - 1\n    columns = (np.arange(width) + 0.5) / width * 2 - 1",
        "np.linspace(-1, 1, height)\n    columns = np.linspace(-1, 1, width)",
        "the first and last points lie at -1 and 1",
    ),
    (
        "reference_points",
        "(np.arange(height) + 0.5) / height * 2 - 1\n    columns = (np.arange(width) + 0.5) / width * 2 - 1",
        "(np.arange(height) + 0.5) / height\n    columns = (np.arange(width) + 0.5) / width",
        "the points lie in [0, 1]",
    ),
    ("reference_points", "np.tanh(offsets)", "offsets", "the tanh is missing"),
    ("reference_points", " / np.array([height, width])", "", "the division by the number of points is missing"),
    ("reference_points", "np.array([height, width])", "np.array([width, height])", "y and x are swapped in the reach"),
    (
        "deformable",
        "sampled = bilinear(x, positions)",
        "sampled = bilinear(x, positions[:, ::-1])",
        "y and x are swapped",
    ),
    (
        "deformable",
        "sampled = bilinear(x, positions)",
        "sampled = x.reshape(-1, channels)",
        "keys and values come from the",
    ),
    ("deformable", " / np.sqrt(channels // heads)", "", "the scale is missing"),
    ("deformable", "np.sqrt(channels // heads)", "np.sqrt(channels)", "the scale is that of all channels"),
    ("deformable", SPLIT, "tokens.reshape(heads, len(tokens), channels // heads)", "not split into heads, or not as"),
    ("deformable", "merged @ output_weight.T", "merged", "the output weight is missing"),
    ("deformable", "sampled @ key_weight.T", "sampled @ value_weight.T", "wrong"),
    ("product_grid", "row_hats = np.maximum(0, 1 - np.abs", "row_hats = (1 - np.abs", "wrong"),
    (
        "product_grid",
        "row_hats @ table @ column_hats.swapaxes(1, 2)",
        "(row_hats @ table @ column_hats.swapaxes(1, 2)).swapaxes(1, 2)",
        "output is transposed",
    ),
    (
        "product_grid",
        "    return row_hats",
        "    row_hats = 1 - np.abs(rows[..., None] - np.arange(len(table)))\n"
        "    column_hats = 1 - np.abs(columns[..., None] - np.arange(table.shape[1]))\n    return row_hats",
        "max(0, ...) is missing",
    ),
    (
        "product_grid",
        "    row_hats = ",
        "    rows, columns = np.round(rows), np.round(columns)\n    row_hats = ",
        "only the nearest entry of the table is read",
    ),
    (
        "residual_block",
        "d_x = d_output + norm2_backward",
        "d_x = norm2_backward",
        "of the second branch (mlp) is missing",
    ),
    (
        "residual_block",
        "d_x = d_x + norm1_backward",
        "d_x = norm1_backward",
        "of the first branch (attention) is missing",
    ),
    (
        "residual_block",
        "attention_backward(d_x)",
        "attention_backward(d_output)",
        "the attention branch is given d_output",
    ),
    ("residual_block", "norm2_backward(mlp_backward(d_output))", "mlp_backward(norm2_backward(d_output))", "wrong"),
    (
        "residual_block",
        "d_x = d_output + norm2_backward(mlp_backward(d_output))\n",
        "d_output += norm2_backward(mlp_backward(d_output))\n        d_x = d_output\n",
        "modifies its argument d_output",
    ),
    (
        "residual_block",
        "d_x = d_x + norm1_backward(attention_backward(d_x))",
        "d_x = d_x",
        "the attention branch is missing",
    ),
    (
        "adamw",
        "    mean = beta1 * mean +",
        "    gradient, weight_decay = gradient + weight_decay * weight, 0\n    mean = beta1 * mean +",
        "the weight decay goes through the gradient",
    ),
    ("adamw", "corrected_mean = mean / (1 - beta1**step)", "corrected_mean = mean", "the bias correction of the mean"),
    ("adamw", "corrected_square = square / (1 - beta2**step)", "corrected_square = square", "correction of the square"),
    ("adamw", "np.sqrt(corrected_square) + eps", "np.sqrt(corrected_square + eps)", "eps is inside the square root"),
    ("adamw", "np.sqrt(corrected_square) + eps", "corrected_square + eps", "the square root is missing"),
    ("adamw", "learning_rate * weight_decay * weight", "weight_decay * weight", "not multiplied by the learning rate"),
    ("adamw", "beta1 * mean + (1 - beta1)", "(1 - beta1) * mean + beta1", "beta1 and 1 - beta1 are exchanged"),
    ("adamw", "(1 - beta2) * gradient**2", "(1 - beta2) * gradient", "the gradient is not squared"),
    ("adamw", "square = beta2 * square +", "square *= beta2\n    square = square +", "modifies its argument square"),
    ("neighborhood", FIRST, "np.maximum(np.arange(size) - kernel // 2, 0)", "at the first border only"),
    ("neighborhood", FIRST, "np.arange(size) - kernel // 2", "windows reach beyond the border"),
    ("neighborhood", FIRST, "np.clip(np.arange(size), 0, size - kernel)", "windows begin at their query"),
    (
        "neighborhood",
        f"first = {FIRST}\n        return first[:, None] + np.arange(kernel)",
        "first = np.arange(size) - kernel // 2\n        return (first[:, None] + np.arange(kernel)).clip(0, size - 1)",
        "it is seen several times",
    ),
    ("neighborhood", "rows * width + columns", "rows * height + columns", "a row has `width` pixels"),
    ("neighborhood", "rows * width + columns", "(rows * width + columns).swapaxes(2, 3)", "listed column by column"),
    ("focal_loss", "-sign * logits", "-logits", "p is the sigmoid everywhere"),
    ("focal_loss", "np.where(yes, alpha, 1 - alpha)", "alpha", "alpha weighs every entry"),
    ("focal_loss", "np.where(yes, alpha, 1 - alpha)", "np.where(yes, 1 - alpha, alpha)", "alpha and 1 - alpha are ex"),
    ("focal_loss", "-a * (1 - p) ** gamma * np.log(p)", "-a * np.log(p)", "the factor (1 - p)^gamma is missing"),
    ("focal_loss", "-a * (1 - p) ** gamma * np.log(p)", "-a * p**gamma * np.log(p)", "the factor is p^gamma"),
    (
        "focal_loss",
        "    p = 1 / (1 + np.exp(-sign * logits))\n",
        "    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)\n    p = np.where(yes, p, 1 - p)\n",
        "a softmax over the classes",
    ),
    ("focal_loss", "gamma * p * np.log(p) - (1 - p)", "-(1 - p)", "(1 - p)^gamma is taken for a constant"),
    ("focal_loss", "gamma * p * np.log(p) - (1 - p)", "gamma * p * np.log(p)", "only the factor (1 - p)^gamma is diff"),
    ("focal_loss", "d_output * sign * a", "d_output * a", "the sign is the same everywhere"),
    ("focal_loss", "d_output * sign * a", "sign * a", "the factor d_output is missing"),
    ("nms", "<= threshold", "< threshold", "boxes are dropped whose IoU equals the threshold"),
    ("nms", "argsort(-scores)", "argsort(scores)", "it begins with the lowest score"),
    ("nms", "np.array(kept)", "np.sort(kept)", "listed in their own order"),
    ("nms", "np.array(kept)", "boxes[kept]", "the boxes themselves are returned"),
    (
        "nms",
        "np.array(kept)",
        "np.array([i for n, i in enumerate(np.argsort(-scores)) if not any("
        "iou(boxes[j], boxes[[i]])[0] > threshold for j in np.argsort(-scores)[:n])])",
        "because of another that was dropped itself",
    ),
    (
        "nms",
        "        candidates = rest[iou(boxes[best], boxes[rest]) <= threshold]",
        "        kept.extend(rest[iou(boxes[best], boxes[rest]) <= threshold])\n        break",
        "only the very best box drops others",
    ),
    ("box_iou", "np.maximum(ends - starts, 0)", "ends - starts", "the sides of the intersection are not clipped"),
    ("box_iou", "* (ends > starts)", "", "the mask of the clip is forgotten"),
    ("box_iou", "area(others)[0] - intersection", "area(others)[0]", "the union counts the intersection twice"),
    ("box_iou", " - intersection[:, None] * d_u)", ")", "the union is taken for a constant"),
    (
        "box_iou",
        "d_i = d_edges * np.concatenate([box[:, :2] == starts, box[:, 2:] == ends], axis=1)",
        "d_i = d_edges",
        "all four edges move the intersection",
    ),
    ("box_iou", "d_union.append(area(box)[1] - d_i)", "d_union.append(-d_i)", "the way through the box's own area"),
    ("box_iou", "return d_boxes, d_others", "return d_others, d_boxes", "d_boxes and d_others are mixed up"),
    ("box_iou", "iou - (enclosure - union) / enclosure", "iou", "this is the plain IoU"),
    ("box_iou", "(enclosure - union) / enclosure", "(enclosure - union)", "C - U is not divided by C"),
    ("box_iou", " - union[:, None] * d_enclosure", "", "C, the area of the box around both, is taken for a constant"),
    ("box_iou", "d_iou + scale * (enclosure", "d_iou + 0 * scale * (enclosure", "this is the gradient of the IoU"),
    ("average_precision", "np.where(free, ious[detection], -1)", "ious[detection]", "Pascal VOC's rule"),
    (
        "average_precision",
        "right[detection], free[best] = True, False",
        "right[detection] = True",
        "found several times",
    ),
    (
        "average_precision",
        "for detection in np.argsort(-scores)",
        "for detection in range(len(scores))",
        "detections choose in the order of the list",
    ),
    ("average_precision", ">= threshold", "> threshold", "an overlap that equals the threshold is not enough"),
    ("average_precision", "np.maximum.accumulate(precision[::-1])[::-1]", "precision", "precision is taken as it is"),
    ("average_precision", "np.linspace(0, 1, 101)", "np.linspace(0, 1, 11)", "the mean over 11 recalls"),
    (
        "average_precision",
        "np.append(best, 0)[places].mean()",
        "(np.diff(recall, prepend=0) * best).sum()",
        "the exact area under the curve of the best precisions",
    ),
    ("average_precision", "right[np.argsort(-scores)]", "right", "detections are not sorted by score"),
    ("average_precision", "found / total", "found / max(right.sum(), 1)", "recall is counted among the objects"),
    ("roi_align", "start - 0.5 + bin_size", "start + bin_size", "half a pixel is missing"),
    ("roi_align", "int(np.ceil(bin_size))", "1", "each bin has one sample, in its center"),
    ("roi_align", ".mean(axis=1)", ".sum(axis=1)", "the samples of a bin are added up"),
    ("roi_align", ".clip(0, length - 1)", "", "samples beyond the center of a border pixel fade to zero"),
    ("roi_align", "for x1, y1, x2, y2 in boxes", "for y1, x1, y2, x2 in boxes", "y and x are swapped"),
    ("roi_align", "for x1, y1, x2, y2 in boxes", "for x1, y1, x2, y2 in np.round(boxes)", "wrong"),
    ("roi_align", "d_x += np.einsum", "d_x = np.einsum", "only the last box counts"),
    ("roi_align", '"ir,rsc,js->ijc"', '"ir,rsc,js->jic"', "output is transposed"),
    ("batch_norm", "pixels = (0, 1, 2)", "pixels = (1, 2)", "wrong"),
    (
        "batch_norm",
        "    std = np.sqrt(x.var(axis=pixels) + eps)\n    normalized = (x - x.mean(axis=pixels)) / std",
        "    std = np.sqrt(x.var(axis=(1, 2), keepdims=True) + eps)\n"
        "    normalized = (x - x.mean(axis=(1, 2), keepdims=True)) / std",
        "that is instance norm",
    ),
    (
        "batch_norm",
        "    std = np.sqrt(x.var(axis=pixels) + eps)\n    normalized = (x - x.mean(axis=pixels)) / std",
        "    std = np.sqrt(x.var(axis=-1, keepdims=True) + eps)\n"
        "    normalized = (x - x.mean(axis=-1, keepdims=True)) / std",
        "that is layer norm",
    ),
    (
        "batch_norm",
        "np.sqrt(x.var(axis=pixels) + eps)",
        "np.sqrt(x.var(axis=pixels, ddof=1) + eps)",
        "divided by n - 1",
    ),
    ("batch_norm", "np.sqrt(x.var(axis=pixels) + eps)", "np.sqrt(x.var(axis=pixels)) + eps", "eps is added to the st"),
    (
        "batch_norm",
        "        d_x = g - g.mean(axis=pixels)\n        d_x -= normalized * (g * normalized).mean(axis=pixels)\n",
        "        d_x = g\n",
        "mean and variance are taken for constants, as in inference",
    ),
    (
        "batch_norm",
        "        d_x -= normalized * (g * normalized).mean(axis=pixels)\n",
        "",
        "the term normalized * mean(g * normalized) is missing",
    ),
    ("batch_norm", ", ddof=1)", ")", "what is remembered is the unbiased one"),
    (
        "batch_norm",
        "(1 - momentum) * mean + momentum * x",
        "momentum * mean + (1 - momentum) * x",
        "are exchanged: most",
    ),
    (
        "softmax",
        SUM_P_D,
        "(p * d_output).sum(axis=0, keepdims=True)",
        "the sum goes over the wrong axis, down the rows",
    ),
    ("attention", D_SCORES, D_SCORES.replace("axis=-1", "axis=-2"), "the sum in the backward of the softmax goes over"),
    ("deformable", "merged @ output_weight.T", "merged @ output_weight", "output_weight is transposed"),
    (
        "deformable",
        "x.reshape(-1, channels) @ query_weight.T",
        "x.reshape(-1, channels) @ query_weight",
        "query_weight is transposed",
    ),
    (
        "deformable",
        "softmax(scores) @",
        "softmax(scores.swapaxes(1, 2)).swapaxes(1, 2) @",
        "the softmax goes over the p",
    ),
    (
        "deformable",
        "softmax(scores) @",
        "softmax(scores.swapaxes(0, 2)).swapaxes(0, 2) @",
        "the softmax goes over the h",
    ),
    (
        "product_grid",
        "    return row_hats",
        "    row_hats = 1 - np.abs(rows[..., None] - np.arange(len(table)))\n    return row_hats",
        "max(0, ...) is missing in the row hats",
    ),
    (
        "deformable_backward",
        "d_merged = d_rows @ output_weight",
        "d_merged = d_rows @ output_weight.T",
        "the output weight is transposed: output = merged W^T, so d_merged = d_output W",
    ),
    (
        "deformable_backward",
        "d_key @ key_weight + d_value @ value_weight",
        "d_value @ value_weight",
        "the way through the keys is missing",
    ),
    (
        "deformable_backward",
        "d_key @ key_weight + d_value @ value_weight",
        "d_key @ key_weight",
        "the way through the values is missing",
    ),
    ("deformable_backward", "d_x + (d_query", "(d_query", "the way through the samples is missing"),
    (
        "deformable_backward",
        "d_x = d_x + (d_query @ query_weight).reshape(x.shape)",
        "pass",
        "through the queries is m",
    ),
    ("deformable_backward", "d_rows.T @ merged", "merged.T @ d_rows", "d_output_weight is transposed"),
    (
        "deformable_backward",
        "(merge_heads(part) for part in parts)",
        "(part.reshape(part.shape[1], -1) for part in parts)",
        "the heads' gradients are not put back side by side",
    ),
    ("offset_network", " * (1 - squashed**2)", "", "the derivative of the tanh, 1 - tanh^2, is missing"),
    ("offset_network", "* range_factor / np.array([rows, columns]) * (1", "* (1", "the reach is missing"),
    (
        "offset_network",
        "np.array([rows, columns]) * (1",
        "np.array([columns, rows]) * (1",
        "y and x are swapped in the r",
    ),
    (
        "offset_network",
        "gelu_backward(d_offsets @ projection)",
        "d_offsets @ projection",
        "the backward of the GELU is m",
    ),
    (
        "offset_network",
        "d_convolved * conv_weight[:, dy, dx]",
        "d_convolved * conv_weight[:, 2 - dy, 2 - dx]",
        "the kernel is flipped",
    ),
    ("offset_network", "d_padded[1:-1, 1:-1]", "d_padded[:-2, :-2]", "the padding is cut off at one end only"),
    ("offset_network", "d_conv_weight[:, dy, dx] = ", "d_conv_weight[:, dx, dy] = ", "d_conv_weight is transposed"),
    ("capstone", "key.swapaxes(-1, -2) + bias", "key.swapaxes(-1, -2)", "the bias is missing"),
    (
        "capstone",
        "scale * query @ key.swapaxes(-1, -2) + bias",
        "scale * (query @ key.swapaxes(-1, -2) + bias)",
        "the bias is scaled too",
    ),
    ("capstone", "np.tanh(offsets)", "offsets", "the tanh is missing"),
    ("capstone", "return x.swapaxes(2, 3).reshape(-1, window", "return x.reshape(-1, window", "cut in memory order"),
    (
        "capstone",
        "    return x @ weight.T + bias\n",
        "    return x @ weight.T + bias * (x.shape[-1] < 100)\n",
        "Each function is right by itself, but not in the network: call",
    ),
]


def graded(path: Path, seed: int = 0) -> Report:
    """Judged on what the solution answers in this process: quicker, and the same answers."""
    solution = Solution()
    return judge(
        read_submission(path), lambda message: decode(encode(solution.answer(decode(encode(message))))), seed=seed
    )


@pytest.fixture
def file(tmp_path):
    """Writes a solution."""

    def write(text: str, name: str = "linear.py") -> Path:
        path = tmp_path / name
        path.write_text(text, "utf-8")
        return path

    return write


# --- every exercise ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list_exercises())
def test_the_reference_solution_passes(name: str) -> None:
    for seed in (0, 1):
        report = graded(SOLUTIONS / f"{name}.py", seed)
        assert report.passed, format_report(report)


@pytest.mark.parametrize("name", list_exercises())
def test_the_stub_fails_and_says_that_it_is_not_written_yet(name: str) -> None:
    path = STUBS / f"{name}.py"
    report = graded(path)
    assert not report.passed
    assert not any(report.checks.values())
    assert "is not written yet: line" in report.message
    line = int(re.search(r"line (\d+)", report.message)[1])
    assert "raise NotImplementedError" in path.read_text("utf-8").splitlines()[line - 1]


@pytest.mark.parametrize("name", list_exercises())
def test_hints_come_in_three_stages_and_only_when_asked_for(name: str) -> None:
    for function in load_exercise(name).functions:
        assert all(len(text) > 50 for text in vars(function.hints).values())
        assert function.hints.formula not in function.hints.where + function.hints.idea
    report = graded(STUBS / f"{name}.py")
    assert report.function == load_exercise(name).functions[0].name
    hints = load_exercise(name).functions[0].hints
    shown = [format_report(report), *(format_report(report, hint=stage) for stage in (1, 2, 3))]
    for stage, text in enumerate((hints.where, hints.idea, hints.formula), start=1):
        words = " ".join(text.split())
        told = [words in " ".join(report.split()) for report in shown]
        assert told == [number == stage for number in range(4)]


def test_a_hint_is_about_the_function_that_failed_and_none_comes_after_passing(file) -> None:
    solution = (SOLUTIONS / "windows.py").read_text("utf-8")
    passed = graded(SOLUTIONS / "windows.py")
    assert passed.function == passed.hint(1) == ""
    assert format_report(passed, hint=3) == format_report(passed)
    half = graded(file(solution.replace("x.swapaxes(2, 3).reshape(-1, height", "x.reshape(-1, height"), "windows.py"))
    partition, reverse = load_exercise("windows").functions
    assert half.function == "window_reverse"
    assert half.hint(2) == reverse.hints.stage(2) != partition.hints.stage(2)
    assert graded(file("1 +", "windows.py")).hint(1) == partition.hints.stage(1)
    with pytest.raises(ExerciseError, match=r"hint: found 4, expected 1 \(where to look\), 2"):
        half.hint(4)


@pytest.mark.parametrize(
    ("name", "piece", "instead", "words"), WRONG, ids=[f"{i}-{row[0]}" for i, row in enumerate(WRONG)]
)
def test_a_wrong_solution_fails_and_its_mistake_is_named(name, piece, instead, words, file) -> None:
    solution = (SOLUTIONS / f"{name}.py").read_text("utf-8")
    assert solution.count(piece) == 1, f"{piece!r} is not, or not just once, in the reference solution"
    report = graded(file(solution.replace(piece, instead), f"{name}.py"))
    assert not report.passed
    assert words in report.message, report.message


def test_every_exercise_has_two_wrong_solutions_at_least() -> None:
    counts = Counter(name for name, *_ in WRONG)
    assert {name for name in list_exercises() if counts[name] < 2} == set()


def every_mistake() -> list:
    return [
        pytest.param(function, i, id=f"{name}-{function.name}-{i}")
        for name in list_exercises()
        for function in load_exercise(name).functions
        for i in range(len(function.mistakes))
    ]


@pytest.mark.parametrize(("function", "index"), every_mistake())
def test_every_described_mistake_is_told_from_the_others(function: Function, index: int) -> None:
    """Whoever gets exactly what a description of a mistake gives is told that one, not one before it in the list."""
    mistake = function.mistakes[index]
    evidence = []
    for case in growing_cases(function, seed=0):
        try:
            with np.errstate(all="ignore"):  # it may be infinite
                got = np.asarray(call_by_names(mistake.result, case.values))
        except ValueError:  # shapes that only fit if two sizes are the same
            continue
        expected = right_answers(function, case)
        evidence.append(Evidence(case, got, expected[mistake.of], expected))
    assert len(evidence) >= 5
    assert not all(equal(e.got, e.expected) for e in evidence), "this is no mistake"
    assert diagnose(function, mistake.of, evidence) == mistake.text


def test_the_exercise_adamw_is_our_optimizer() -> None:
    function = load_exercise("adamw").functions[0]
    for case in growing_cases(function, seed=3):
        parameter = Parameter(case.arrays["weight"].shape, constant(0.0))
        parameter.value, parameter.grad = case.arrays["weight"].copy(), case.arrays["gradient"]
        s = case.settings
        optimizer = AdamW(
            {"w": parameter},
            decay=["w"],
            weight_decay=s["weight_decay"],
            betas=(s["beta1"], s["beta2"]),
            eps=s["eps"],
        )
        state = {"first_moment.w": case.arrays["mean"], "second_moment.w": case.arrays["square"]}
        optimizer.load_state_dict({"steps": np.array(s["step"] - 1, np.int64), **state})
        optimizer.step(s["learning_rate"])
        state = optimizer.state_dict()
        weight, mean, square = function.reference(*case.arrays.values(), **s)
        np.testing.assert_allclose(parameter.value, weight, rtol=1e-12)
        np.testing.assert_allclose(state["first_moment.w"], mean, rtol=1e-12)
        np.testing.assert_allclose(state["second_moment.w"], square, rtol=1e-12)


@pytest.mark.parametrize(("height", "width", "kernel"), [(3, 3, 3), (5, 4, 3), (6, 7, 5), (2, 3, 1)])
def test_the_exercise_neighborhood_has_the_keys_of_our_operator(height: int, width: int, kernel: int) -> None:
    """The output at one query depends on the values of its window alone."""
    query, key, value = np.random.default_rng(0).standard_normal((3, 1, height, width, 1, 2))
    bias = np.zeros((1, 2 * kernel - 1, 2 * kernel - 1))
    _, backward = neighborhood_attention(query, key, value, bias, kernel=kernel, scale=1.0)
    indices = neighborhood.reference(height, width, kernel)
    for y in range(height):
        for x in range(width):
            d_output = np.zeros_like(query)
            d_output[0, y, x] = 1
            d_value = backward(d_output)[2]
            assert indices[y, x].tolist() == np.flatnonzero(d_value[0, ..., 0, 0]).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_the_exercise_average_precision_is_our_evaluation(seed: int) -> None:
    """Both functions together, on boxes in one picture, are the AP50 of `evaluate_detections`."""
    rng = np.random.default_rng(seed)
    objects, detections = (
        np.concatenate([rng.uniform(0, 40, (n, 2)), rng.uniform(10, 40, (n, 2))], axis=1) for n in (6, 12)
    )
    detections[:8] = objects[[0, 0, 1, 2, 3, 3, 4, 5]] + rng.normal(0, 2, (8, 4))
    scores = rng.random(len(detections))
    corners, others = (np.concatenate([b[:, :2], b[:, :2] + b[:, 2:]], axis=1) for b in (detections, objects))
    ious, _ = box_iou(corners[:, None], others)
    right = average_precision.match(ious, scores, threshold=0.5)
    annotations = [
        {"id": n + 1, "image_id": 1, "category_id": 1, "bbox": box, "area": 100}
        for n, box in enumerate(objects.tolist())
    ]
    results = [
        {"image_id": 1, "category_id": 1, "bbox": box, "score": score}
        for box, score in zip(detections.tolist(), scores.tolist(), strict=True)
    ]
    truth = {"images": [{"id": 1}], "annotations": annotations, "categories": [{"id": 1}]}
    assert 2 <= right.sum() <= len(objects)
    ap = average_precision.reference(scores, right, total=len(objects))
    assert ap == pytest.approx(evaluate_detections(truth, results).ap50, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_the_exercise_batch_norm_remembers_what_our_layer_does(seed: int) -> None:
    function = load_exercise("batch_norm").functions[1]
    for case in growing_cases(function, seed)[-5:]:
        x, mean, variance = case.arrays.values()
        layer = BatchNorm(x.shape[-1], momentum=case.settings["momentum"])
        layer.running_mean.value, layer.running_var.value = mean, variance
        for parameter in (layer.weight, layer.bias):
            parameter.value = np.ones(x.shape[-1])
        layer.forward(x, Context(training=True))
        expected = function.reference(x, mean, variance, **case.settings)
        np.testing.assert_allclose(layer.running_statistics, expected, rtol=1e-12)


@pytest.mark.parametrize("name", list_exercises())
def test_stubs_and_solutions_have_the_same_functions(name: str) -> None:
    stub, solution = (
        {
            node.name: (ast.unparse(node.args), ast.get_docstring(node))
            for node in ast.parse((folder / f"{name}.py").read_text("utf-8")).body
            if isinstance(node, ast.FunctionDef)
        }
        for folder in (STUBS, SOLUTIONS)
    )
    assert stub.items() <= solution.items()  # a solution may have helpers
    exercise = load_exercise(name)
    assert {function.name for function in exercise.functions} <= set(stub)


@pytest.mark.parametrize("name", list_exercises())
def test_every_stub_names_its_exercise_its_chapter_and_how_to_check_it(name: str) -> None:
    text = (STUBS / f"{name}.py").read_text("utf-8")
    assert text.startswith(f"# minidat exercise: {name}\n")
    assert f"docs/pages/tutorial/{load_exercise(name).chapter}.md" in text
    assert f"minidat grade examples/exercises/{name}.py" in text
    assert "--hint 1 (where to look), --hint 2 (the idea) or --hint 3 (the formula)" in text


# --- the capstone -----------------------------------------------------------------------------------------------------


CAPSTONE = (SOLUTIONS / "capstone.py").read_text("utf-8")


def in_the_network(text: str) -> str:
    """The reference solution, with lines that run in its linear layer for arrays that only the network has."""
    start = "    return x @ weight.T + bias\n"
    return CAPSTONE.replace(start, f"    if x.size > 1000:\n        {text}\n{start}")


def test_the_operators_of_a_solution_classify_a_photograph_in_a_process_of_their_own() -> None:
    report = grade_file(SOLUTIONS / "capstone.py", time_limit=300)
    assert report.passed, format_report(report)
    label, probability, *_ = report.remark.removeprefix("Your operators classify the photograph of a horse: ").split()
    best = classify(load_model("dat_mini_cifar10"), example_image("horse"))[0]
    assert (label, float(probability)) == (best.label, pytest.approx(100 * best.probability, abs=0.05))
    assert report.remark in format_report(report)


def test_every_function_of_the_capstone_works_in_the_network() -> None:
    """The network asks for each of the eight, after the cases of each by itself."""
    solution, asked = Solution(), Counter()

    def ask(message: dict) -> dict:
        asked[message.get("function")] += 1
        return decode(encode(solution.answer(decode(encode(message)))))

    assert judge(read_submission(SOLUTIONS / "capstone.py"), ask, seed=1).remark.startswith(
        "Your operators classify the photograph of a cat: cat "
    )
    for function in load_exercise("capstone").functions:
        assert asked[function.name] > len(growing_cases(function, seed=1))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "return x @ weight.T",
            "call 1 of linear, with x (1, 256, 64), weight (192, 64), bias (192,), differs from the",
        ),
        ("return 0 * (x @ weight.T)", "differs from the right result by up to"),
        ("return np.nan * (x @ weight.T)", "differs from the right result by up to nan"),
        ("return x @ weight.T[:, :-1]", "has the shape (1, 256, 191), expected (1, 256, 192)"),
        ("return x @ weight", "ValueError: matmul"),
        ("return None", "linear returned None (is there a `return`?) for output"),
    ],
)
def test_what_goes_wrong_in_the_network_alone_is_told_with_the_call(line: str, words: str, file) -> None:
    report = graded(file(in_the_network(line), "capstone.py"))
    assert [name for name, passed in report.checks.items() if not passed] == ["the photograph"]
    assert words in report.message, report.message
    assert report.function == "linear"
    assert "Hint 1 of 3" in report.hint(1)


def test_the_logits_are_compared_too(file, monkeypatch) -> None:
    monkeypatch.setattr("minidat.grading.borrowed.equal", lambda got, expected: True)
    report = graded(file(in_the_network("return 0.999 * (x @ weight.T + bias)"), "capstone.py"))
    assert report.checks["the photograph"] is False
    assert "The photograph of a horse has other logits than by minidat's own operators" in report.message


def test_a_solution_that_ends_in_the_network_has_not_passed(file) -> None:
    report = grade_file(file(in_the_network("import os; os._exit(0)"), "capstone.py"), time_limit=300)
    assert [name for name, passed in report.checks.items() if not passed] == ["the photograph"]
    assert (
        "Python ended, with status 0, before the solution was graded. It was busy with the photograph."
        in report.message
    )


def test_a_backward_that_nobody_asks_for_is_ignored(file) -> None:
    text = CAPSTONE.replace("return x @ weight.T + bias", "return x @ weight.T + bias, lambda d_output: None")
    assert graded(file(text, "capstone.py")).passed


# --- the parts --------------------------------------------------------------------------------------------------------


def test_cases_grow_and_a_seed_gives_the_same_ones() -> None:
    function = load_exercise("layer_norm").functions[0]
    cases, again, other = (growing_cases(function, seed) for seed in (0, 0, 1))
    assert [case.sizes for case in cases[:3]] == [
        {"rows": 1, "channels": 1},
        {"rows": 1, "channels": 2},
        {"rows": 2, "channels": 1},
    ]
    same = [np.array_equal(a.arrays["x"], b.arrays["x"]) for a, b in zip(cases, again, strict=True)]
    assert all(same)
    assert not all(np.array_equal(a.arrays["x"], b.arrays["x"]) for a, b in zip(cases, other, strict=False))


def test_a_counter_example_keeps_only_the_numbers_that_matter() -> None:
    case = Case({}, {"x": np.array([[3.0, -2.0], [2.0, 5.0]]), "y": np.array([2.0, 7.0])})
    simple = simplify(case, lambda c: c.arrays["x"][1, 0] > 0.5 and c.arrays["y"].sum() > 5, frozenset())
    assert simple.arrays["x"].tolist() == [[0, 0], [1, 0]]
    assert simple.arrays["y"].tolist() == [0, 7]
    kept = simplify(case, lambda c: True, frozenset({"x"}))
    assert kept.arrays["x"].tolist() == [[3, -2], [2, 5]]
    assert kept.arrays["y"].tolist() == [0, 0]


def test_sizes_that_tell_right_from_wrong() -> None:
    sizes = [{"rows": r, "columns": c} for r in (1, 2, 3) for c in (1, 2, 3)]
    assert size_pattern([(s, s["rows"] == 1) for s in sizes]) == "It is right whenever rows is 1, and wrong otherwise."
    square = size_pattern([(s, s["rows"] == s["columns"]) for s in sizes])
    assert square == "It is right whenever rows and columns are the same, and wrong otherwise."
    assert size_pattern([(s, False) for s in sizes]) is None
    assert size_pattern([(s, s["rows"] + s["columns"] == 4) for s in sizes]) is None


def test_infinities_and_nan_are_equal_to_nothing_finite() -> None:
    for number in (np.inf, -np.inf, np.nan):
        assert not equal(np.array([1.0, number]), np.array([1.0, 2.0]))
        assert not equal(np.array([1.0, 2.0]), np.array([1.0, number]))


def test_a_right_backward_of_a_wrong_forward_is_recognized(file) -> None:
    """Finite differences are those of the student's own forward."""
    solution = (SOLUTIONS / "linear.py").read_text("utf-8")
    forward = solution.replace("output = x @ weight.T + bias", "output = x @ weight.T + 2 * bias")
    report = graded(file(forward.replace("d_rows.sum(axis=0)", "2 * d_rows.sum(axis=0)")))
    assert report.checks["finite differences"]
    assert not report.checks["output"]
    assert "Your backward is the derivative of your forward" in report.message
    assert not graded(file(forward)).checks["finite differences"]


def test_a_counter_example_shows_shapes_values_and_the_first_difference(file) -> None:
    solution = (SOLUTIONS / "softmax.py").read_text("utf-8")
    report = graded(file(solution.replace("p * (d_output - ", "p * (d_output + "), "softmax.py"))
    assert report.checks == {
        "output": True,
        "d_x": False,
        "finite differences": False,
        "arguments unchanged": True,
    }
    for part in (
        "d_x, the gradient of x, is wrong. The smallest case in which it is:",
        "x        = [[0]]   shape (1, 1)",
        "d_output = [[1]]   shape (1, 1)",
        "expected d_x = [[0]]   shape (1, 1)",
        "got d_x      = [[2]]   shape (1, 1)",
        "First difference at [0, 0]: expected 0, got 2; finite differences of your own forward give 0.",
        "It seems that a sign is wrong: the sum is subtracted.",
    ):
        assert part in report.message


def test_a_shape_is_told_with_the_names_of_its_axes(file) -> None:
    solution = (SOLUTIONS / "linear.py").read_text("utf-8")
    message = graded(file(solution.replace("d_rows.T @ rows", "rows.T @ d_rows"))).message
    assert "has the shape (1, 2) = (inputs, outputs), expected (2, 1) = (outputs, inputs)" in message


# --- solutions that do not even run -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def linear(x, weight, bias)\n    return x", "line 1:\n    def linear(x, weight, bias)\nSyntaxError: "),
        ("def linear(x, weight, bias):\nreturn x", "line 2:\n    return x\nIndentationError: "),
        ("x = 1\n\x00", "SyntaxError: "),
        ("# -*- coding: klingon -*-\n", "SyntaxError: "),
        ("import numpi\n", "line 1, in <module>:\n    import numpi\nModuleNotFoundError: No module named 'numpi'"),
        ("import sys\nsys.exit(3)", "line 2, in <module>:\n    sys.exit(3)\nSystemExit: 3"),
        ("from minidat.ops import linear", "line 1 imports minidat.ops: the exercise is to do it with NumPy alone"),
        ("def f():\n    import torch", "line 2 imports torch"),
        ("", "there is no function linear in the file: found none"),
        ("def liner(x): pass\ndef other(): pass", "found liner, other; is liner meant to be it? Its name must stay"),
        ("def linear(x, weight): pass", "TypeError: linear() takes 2 positional arguments but 3 were given"),
        (
            "def linear(x, weight, bias): pass",
            "linear returned None (is there a `return`?), expected (output, backward)",
        ),
        (
            "def linear(x, weight, bias): return x",
            "linear returned an array of shape (1, 1, 1), expected (output, backward)",
        ),
        (
            "def linear(x, w, b):\n    return x @ w.T + b, lambda d: d",
            "backward returned an array of shape (1, 1, 1), expected (d_x",
        ),
        (
            "def linear(*a):\n    return 'no', lambda d: d",
            "linear returned a str for output, expected an array of numbers",
        ),
        (
            "def linear(x, weight, bias):\n    y = weigth\n",
            "line 2, in linear:\n    y = weigth\nNameError: name 'weigth'",
        ),
        ("def linear(x, weight, bias):\n    exit()\n", "line 2, in linear:\n    exit()\n"),
        ("def linear(*a):\n    return linear(*a)\n", "RecursionError"),
        ("def linear(*a):\n    return [[1, 2], [3]], lambda d: (1, 2, 3)\n", "linear returned a list for output"),
        (
            "def linear(x, weight, bias):\n    x /= 0\n    return x @ weight.T + bias, lambda d: (d, d, d)",
            "The output is wrong",
        ),
    ],
)
def test_what_goes_wrong_is_told_with_the_line(text: str, words: str, file) -> None:
    report = graded(file(text))
    assert not report.passed
    assert words in report.message, report.message


def test_only_what_is_printed_in_the_case_in_question_is_shown(file) -> None:
    solution = (SOLUTIONS / "linear.py").read_text("utf-8").replace("d_rows.T @ rows", "rows.T @ d_rows")
    report = graded(
        file(solution.replace("    output = ", "    print('weight', weight.shape, '\\x1b[2J')\n    output = "))
    )
    assert report.printed == "weight (2, 1) \x1b[2J\n"
    assert "  | weight (2, 1) ?[2J" in format_report(report)
    endless = "def linear(*a):\n    print('a lot ' * 100000)\n"
    assert len(graded(file(endless)).printed) == 2000


def test_a_solution_may_import_its_neighbor_and_leaves_no_trace(file, tmp_path) -> None:
    file("from numpy import *\n", "helper.py")
    file("raise RuntimeError\n", "random.py")  # must not hide the standard library's
    path = file("import random\nimport helper\n" + (SOLUTIONS / "linear.py").read_text("utf-8"))
    assert grade_file(path).passed
    assert sorted(p.name for p in tmp_path.iterdir()) == ["helper.py", "linear.py", "random.py"]


def test_a_solution_that_ends_python_is_told_so(file) -> None:
    report = grade_file(file("import os\ndef linear(*a):\n    os._exit(7)\n"))
    assert not report.passed
    assert "Python ended, with status 7, before" in report.message
    assert "It was busy with linear with x (1, 1, 1), weight (1, 1), bias (1,)" in report.message


# --- which exercise it is ---------------------------------------------------------------------------------------------


def test_the_marker_says_which_exercise_it_is_or_else_the_name(file) -> None:
    assert find_exercise(file("", "softmax.py")) == "softmax"
    assert find_exercise(file("\n# minidat exercise: linear\n", "softmax.py")) == "linear"
    assert find_exercise(file("# minidat exercise: linear", "ada (1).py")) == "linear"
    with pytest.raises(ExerciseError, match=r"no exercise has its name; expected a line `# minidat exercise: NAME`"):
        find_exercise(file("", "homework.py"))
    with pytest.raises(ExerciseError, match=r"its marker names the exercise 'liner'; expected .* patches, linear"):
        find_exercise(file("# minidat exercise: liner", "linear.py"))


# --- the command ------------------------------------------------------------------------------------------------------


def test_grade_passes(capsys) -> None:
    assert main(["grade", str(SOLUTIONS / "linear.py"), "--seed", "5"]) == 0
    output = capsys.readouterr()
    assert output.out.endswith("linear.py: linear (chapter 02-linear): passed, all 6 checks\n")
    assert output.err == ""


def test_grade_several_files_as_text_and_json(capfd, file) -> None:
    """Whatever a solution prints, in whatever way, does not reach the output."""
    noise = (
        "import os, sys\nprint('{')\nos.write(1, b'noise')\nsys.__stdout__.write('noise')\nsys.__stderr__.write('no')\n"
    )
    wrong = file(noise + (SOLUTIONS / "softmax.py").read_text("utf-8").replace("d_x = p *", "d_x = -p *"), "softmax.py")
    files = [str(SOLUTIONS / "adamw.py"), str(wrong)]
    assert main(["grade", *files]) == 1
    text = capfd.readouterr().out
    assert "noise" not in text
    assert "softmax (chapter 04-attention): FAILED, 2 of 4 checks passed\n  ok    output\n  FAIL  d_x\n" in text
    assert text.endswith("\n1 of 2 files passed\n")

    assert main(["grade", *files, "--json"]) == 1
    first, second = json.loads(capfd.readouterr().out)
    assert first["passed"]
    assert first["message"] == ""
    assert (second["file"], second["exercise"], second["chapter"]) == (str(wrong), "softmax", "04-attention")
    assert (second["passed"], second["checks_passed"], second["checks_total"]) == (False, 2, 4)
    assert second["checks"]["d_x"] is False
    assert "d_x has the wrong sign" in second["message"]
    assert "hint" not in second

    assert main(["grade", *files, "--json", "--hint", "2"]) == 1
    first, second = json.loads(capfd.readouterr().out)
    assert (first["hint"], second["function"]) == ("", "softmax")
    assert second["hint"].startswith("Hint 2 of 3, the idea: The derivative is")


def test_an_endless_loop_is_stopped_and_its_line_is_told(capsys, file) -> None:
    path = file("def linear(x, weight, bias):\n    while x.size:\n        pass\n")
    assert main(["grade", str(path), "--limit", "1", "--json"]) == 1
    (report,) = json.loads(capsys.readouterr().out)
    assert not report["passed"]
    assert (report["checks_passed"], report["checks_total"]) == (0, 6)
    assert "stopped after 1 seconds: is there a loop that never ends?" in report["message"]
    assert "It was busy with linear with x (1, 1, 1)" in report["message"]
    assert re.search(r"It had come to line (2:\n    while x.size:|3:\n    pass)$", report["message"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.py"], "nowhere.py: No such file or directory; expected a file such as exercises/linear.py"),
        (["homework.py"], "homework.py: no exercise has its name; expected a line `# minidat exercise: NAME` with one"),
        (["linear.py", "homework.py"], "homework.py: no exercise has its name"),
        (["linear.py", "--seed", "-1"], "seed: found -1, expected a number of at least 0"),
        (["linear.py", "--limit", "0"], "time limit: found 0.0, expected seconds above 0"),
        (["linear.py", "--limit", "nan"], "time limit: found nan, expected seconds above 0"),
        (["."], ".: Is a directory; expected a file"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(arguments, message, capsys, file, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    file("", "linear.py"), file("", "homework.py")
    assert main(["grade", *arguments]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"minidat: error: {message}")
    assert output.err.count("\n") == 1


def test_grading_starts_without_scipy_and_torch() -> None:
    code = (
        "import sys; from minidat.grading import grade_file, find_exercise; find_exercise(sys.argv[1]); "
        "sys.exit(any(m in sys.modules for m in ('scipy', 'torch', 'hypothesis')))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(STUBS / "linear.py")]).returncode == 0
