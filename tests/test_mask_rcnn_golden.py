"""mask_rcnn_datpp_tiny with the formula weights equals the authors' code, from the maps to the masks; its cascade has
the authors' parameters."""

from typing import Any

import numpy as np
import pytest

import minidat
from minidat.catalog import get_config
from minidat.checkpoints import convert_state_dict
from minidat.checkpoints.convert import to_authors_state_dict
from minidat.detection.proposals import choose_proposals
from minidat.detection.regions import pool_regions, region_levels

from .golden.dense import formula_state, load_recording
from .golden.formula_weights import sample
from .test_retinanet_golden import assert_recorded

NAME, CASCADE = "mask_rcnn_datpp_tiny", "cascade_mask_rcnn_datpp_tiny"
PARAMETERS = {NAME: 44_781_700, CASCADE: 81_436_998}
IMAGES = np.random.default_rng(1234).standard_normal((1, 3, 224, 288)).transpose(0, 2, 3, 1)
CONTEXT = minidat.Context()


@pytest.fixture(scope="module")
def recording() -> dict[str, np.ndarray]:
    return load_recording(NAME)


@pytest.fixture(scope="module")
def model() -> Any:
    model = minidat.create_model(NAME, dtype=np.float64)
    model.load_state_dict(convert_state_dict(formula_state(NAME)))
    return model


@pytest.fixture(scope="module")
def levels(model: Any) -> list[np.ndarray]:
    return model.levels(IMAGES, CONTEXT)[0]


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_parameter_has_its_place(name: str) -> None:
    authors = formula_state(name)
    model = minidat.create_model(name, dtype=np.float64)
    model.load_state_dict(convert_state_dict(authors))
    assert model.parameter_count() == PARAMETERS[name]
    back = to_authors_state_dict(model.state_dict())
    assert {key for key in authors if not key.endswith("num_batches_tracked")} == set(back)
    assert all(np.array_equal(value, authors[key]) for key, value in back.items())


def test_parameters_of_the_parts(model: Any, recording: dict[str, np.ndarray]) -> None:
    assert model.parameter_count() == recording["param_count"]
    parts = {"backbone": model.backbone, "neck": model.pyramid, "rpn_head": model.proposals, "roi_head": model.regions}
    for key, part in parts.items():
        assert part.parameter_count() == recording[f"param_count/{key}"]


@pytest.mark.parametrize("family", ["mask_rcnn", "cascade_mask_rcnn"])
@pytest.mark.parametrize("backbone", ["dat_tiny", "dat_small", "dat_base", "datpp_tiny", "datpp_small", "datpp_base"])
def test_every_backbone_has_its_detectors(family: str, backbone: str) -> None:
    config = get_config(f"{family}_{backbone}")
    assert minidat.catalog.config_from_dict(minidat.catalog.config_to_dict(config)) == config
    assert config.backbone.replace(drop_path=0.0) == get_config(backbone).replace(drop_path=0.0)
    assert config.strides == (4, 8, 16, 32, 64)


def test_maps_and_proposals_equal_the_recording(
    model: Any, levels: list[np.ndarray], recording: dict[str, np.ndarray]
) -> None:
    for i, level in enumerate(levels):
        assert_recorded(level, recording, f"fpn.{i}")
    (logits, deltas), _ = model.proposals.forward(levels, CONTEXT)
    anchors = model.anchors(levels)
    for i in range(5):
        assert logits[i].shape == (*levels[i].shape[:3], 3, 1)
        assert deltas[i].shape == (*levels[i].shape[:3], 3, 4)
        assert_recorded(logits[i][..., 0], recording, f"rpn_cls_score.{i}")
        assert_recorded(deltas[i].reshape(*levels[i].shape[:3], 12), recording, f"rpn_bbox_pred.{i}")
        assert len(anchors[i]) == recording[f"anchors.{i}/count"]
        np.testing.assert_allclose(anchors[i][:6], recording[f"anchors.{i}/first6"], rtol=0, atol=1e-5)
        np.testing.assert_allclose(anchors[i][-6:], recording[f"anchors.{i}/last6"], rtol=0, atol=1e-5)
    flat_logits, flat_deltas = [x.reshape(-1) for x in logits], [x.reshape(-1, 4) for x in deltas]
    boxes, scores = choose_proposals(flat_logits, flat_deltas, anchors, (224, 288), CONTEXT, per_level=1000, count=1000)
    found = np.concatenate([boxes, scores[:, None]], axis=1)
    assert found.shape == (int(recording["proposals/count"]), 5)
    np.testing.assert_allclose(found[:200], recording["proposals/first200"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(sample(found), recording["proposals/vals"], rtol=0, atol=1e-9)
    (few, _) = choose_proposals(flat_logits, flat_deltas, anchors, (224, 288), CONTEXT, per_level=1000, count=7)
    assert np.array_equal(few, boxes[:7])


def test_region_heads_equal_the_recording(
    model: Any, levels: list[np.ndarray], recording: dict[str, np.ndarray]
) -> None:
    boxes, images = recording["roi_boxes"], np.zeros(10, int)
    assert np.array_equal(region_levels(boxes), recording["roi_levels"])
    regions, _ = pool_regions(levels, model.config.strides, boxes, images, 7, CONTEXT)
    assert_recorded(regions, recording, "bbox_feats")
    for n, region in enumerate(regions):
        np.testing.assert_allclose(region[..., 0], recording[f"bbox_feats_c0.{n}"], rtol=0, atol=1e-9)
    (logits, deltas), _ = model.regions.forward_boxes(levels, boxes, images, CONTEXT)
    np.testing.assert_allclose(logits, recording["cls_score_full"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(sample(deltas.reshape(10, 320)), recording["bbox_pred/vals"], rtol=0, atol=1e-9)
    rows = recording["decoded_cls3/rows"]
    moved = model.regions.move(boxes[rows], deltas[rows, 3], (224, 288))
    np.testing.assert_allclose(moved, recording["decoded_cls3"], rtol=0, atol=1e-5)

    regions, _ = pool_regions(levels, model.config.strides, boxes, images, 14, CONTEXT)
    assert_recorded(regions, recording, "mask_feats")
    masks, _ = model.regions.forward_masks(levels, boxes, images, CONTEXT)
    assert_recorded(masks, recording, "mask_pred")
    np.testing.assert_allclose(masks[..., 7], recording["mask_pred_cls7"], rtol=0, atol=1e-6)  # float32


@pytest.mark.parametrize("rescaled", [False, True])
def test_detections_equal_the_recording(rescaled: bool, model: Any, recording: dict[str, np.ndarray]) -> None:
    """Boxes, scores, classes and masks, the masks' areas to the pixel."""
    key, size = ("det_thr0.05_rescaled", (187, 230)) if rescaled else ("det_thr0.05", (224, 288))
    settings = {"scale_factors": [recording["scale_factor"]], "picture_sizes": [size]} if rescaled else {}
    (found,) = model.detect(IMAGES, [(224, 288)], score_threshold=0.05, **settings)
    assert np.array_equal(found.scores, np.sort(found.scores)[::-1])
    by_class = np.lexsort([-found.scores, found.labels])
    boxes = np.concatenate([found.boxes, found.scores[:, None]], axis=1)[by_class]
    np.testing.assert_allclose(boxes, recording[f"{key}/bboxes_by_class"], rtol=0, atol=1e-9)
    assert np.array_equal(found.labels[by_class], recording[f"{key}/labels_by_class"])
    assert found.masks.shape == (100, *size)
    assert found.masks.dtype == bool
    masks = found.masks[by_class]
    assert np.array_equal(masks.sum(axis=(1, 2)), recording[f"{key}/mask_area"])
    assert np.array_equal(np.packbits(masks[:4].ravel()), recording[f"{key}/masks_first4_packed"])
