"""The authors' names and ours, and what kind of model a file holds."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from minidat.catalog import FAMILIES
from minidat.catalog import get_config as get_dense_config
from minidat.checkpoints import (
    Hints,
    convert,
    convert_state_dict,
    load_model,
    load_npz,
    read_hints,
    recognize_config,
    resize_tables,
    save_npz,
    to_authors_state_dict,
)
from minidat.checkpoints.convert import is_fixed_table
from minidat.data.labels import imagenet_labels
from minidat.errors import CheckpointError, ConfigError
from minidat.models import DAT, DeformableConfig, ModelConfig, StageConfig, create_model, get_config
from tests.checkpoint_files import (
    GOLDEN,
    authors_state,
    keys,
    save_authors_file,
    save_with_config,
    shapes_of,
    shapes_only,
    small_config,
)

PUBLISHED = {
    "dat_tiny_224": "dat_tiny",
    "dat_small_224": "dat_small",
    "dat_base_224": "dat_base",
    "dat_base_384": "dat_base_384",
    "datpp_tiny_224": "datpp_tiny",
    "datpp_small_224": "datpp_small",
    "datpp_base_224": "datpp_base",
    "datplus_tiny_224": "datplus_tiny",
}


def datpp_config(**changes: object) -> ModelConfig:
    """A small DAT++ for 32 x 32 images."""
    stages = tuple(
        StageConfig(
            8,
            2,
            ("neighborhood", "deformable"),
            neighborhood=3,
            deformable=DeformableConfig(groups, kernel, stride, range_factor=None, position_rule="dat++"),
        )
        for groups, kernel, stride in ((1, 9, 8), (2, 7, 4), (1, 5, 2), (2, 3, 1))
    )
    config = ModelConfig(
        "custom",
        (32, 32),
        3,
        stages,
        resize_size=32,
        mlp_ratio=2,
        convolutional_patches=True,
        local_perception=True,
        convolutional_mlp=True,
        table_image_size=(32, 32),
    )
    return dataclasses.replace(config, **changes)


def with_deformable(config: ModelConfig, **changes: object) -> ModelConfig:
    """The config with these changes to the deformable attention of every stage that has it."""
    stages = tuple(
        stage if stage.deformable is None
        else dataclasses.replace(stage, deformable=dataclasses.replace(stage.deformable, **changes))
        for stage in config.stages
    )  # fmt: skip
    return dataclasses.replace(config, stages=stages)


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("golden", [*PUBLISHED, "datpp_base_384"])
def test_published_names_and_shapes(golden: str) -> None:
    ours = convert_state_dict(shapes_only(golden))
    config = get_config(PUBLISHED.get(golden, golden))
    assert {name: value.shape for name, value in ours.items()} == {
        name: parameter.shape for name, parameter in DAT(config).named_parameters()
    }
    theirs = {name: shape for name, shape, kind in keys(golden) if kind == "param"}
    assert {name: value.shape for name, value in to_authors_state_dict(ours).items()} == theirs


@pytest.mark.parametrize("golden", ["dat_tiny_224", "datpp_tiny_224", "datplus_tiny_224"])
def test_every_array_arrives_where_it_belongs(golden: str) -> None:
    """Each array is its own number, so that two of the same shape cannot be mixed up on the way there and back."""
    authors = {name: np.full(shape, i, np.float64) for i, (name, shape, _) in enumerate(keys(golden))}
    ours = convert_state_dict(authors)
    back = to_authors_state_dict(ours)
    assert list(back) != []
    for name, value in back.items():
        assert value.shape == authors[name].shape
        assert value.dtype == np.float64
        assert (value == authors[name]).all()
        assert np.shares_memory(value, authors[name])


def test_norms_alternate_between_the_branches() -> None:
    ours = convert_state_dict({f"stages.2.layer_norms.{i}.norm.bias": np.full(1, i) for i in (0, 1, 10, 11)})
    assert {name: int(value[0]) for name, value in ours.items()} == {
        "stages.2.blocks.0.norm1.bias": 0,
        "stages.2.blocks.0.norm2.bias": 1,
        "stages.2.blocks.5.norm1.bias": 10,
        "stages.2.blocks.5.norm2.bias": 11,
    }


def test_layer_scale() -> None:
    authors = {f"stages.0.layer_scales.{i}.weight": np.full(4, i) for i in range(4)}
    ours = convert_state_dict(authors)
    assert list(ours) == [f"stages.0.blocks.{b}.scale{n}.weight" for b in (0, 1) for n in (1, 2)]
    assert list(to_authors_state_dict(ours)) == list(authors)


def test_data_parallel_prefix() -> None:
    state = {f"module.{name}": value for name, value in shapes_only("dat_tiny_224").items()}
    assert list(convert_state_dict(state)) == list(convert_state_dict(shapes_only("dat_tiny_224")))
    assert read_hints(state) == read_hints(shapes_only("dat_tiny_224"))


def test_unknown_names_are_all_listed() -> None:
    state = {**shapes_only("dat_tiny_224"), "layer4.0.conv1.weight": np.ones(1), "stages.7.attns.0.rpb": np.ones(1)}
    with pytest.raises(CheckpointError) as caught:
        convert_state_dict(state)
    assert str(caught.value) == (
        "not a state dict of the authors' DAT or DAT++: unknown layer4.0.conv1.weight; unknown stages.7.attns.0.rpb"
    )


def test_unknown_names_of_ours_are_all_listed() -> None:
    with pytest.raises(CheckpointError) as caught:
        to_authors_state_dict({"norm.weight": np.ones(1), "fc.weight": np.ones(1), "stages.0.bias": np.ones(1)})
    assert str(caught.value) == "not a state dict of minidat: unknown fc.weight, stages.0.bias"


def test_two_entries_for_one_parameter() -> None:
    state = {"stages.0.attns.0.qkv.weight": np.ones((3, 1)), "stages.0.attns.0.proj_qkv.weight": np.ones((3, 1))}
    with pytest.raises(CheckpointError) as caught:
        convert_state_dict(state)
    assert str(caught.value) == (
        "not a state dict of the authors' DAT or DAT++: "
        "a second entry for stages.0.blocks.0.attention.qkv.weight, stages.0.attns.0.proj_qkv.weight"
    )


@pytest.mark.parametrize(
    ("stage", "shape", "sides", "fixed"),
    [
        (2, (3, 27, 27), set(), False),
        (2, (3, 196, 196), set(), True),
        (0, (3, 3136, 49), set(), True),
        (3, (3, 49, 49), set(), False),  # it could be either: 7 x 7 places, or the table of a 25 x 25 map
        (3, (3, 49, 49), {56}, True),
        (3, (3, 49, 49), {200}, False),
        (3, (3, 49, 49), {56, 200}, False),
        (3, (3, 13, 25), set(), False),
    ],
)
def test_telling_fixed_tables_from_relative_ones(
    stage: int, shape: tuple[int, ...], sides: set[int], fixed: bool
) -> None:
    assert is_fixed_table(f"stages.{stage}.attns.1.rpe_table", shape, sides) is fixed


def test_fixed_tables_with_odd_maps_are_recognized_by_the_masks() -> None:
    """Stage 4's 7 x 7 map: its fixed table, (heads, 49, 49), could be relative; the masks say that the image has 56."""
    stages = [dataclasses.replace(stage, deformable=None, blocks=("window", "shifted_window"))
              for stage in get_config("dat_tiny").stages[:3]]  # fmt: skip
    fixed = DeformableConfig(6, 3, position_encoding="fixed")
    config = dataclasses.replace(
        get_config("dat_tiny"),
        name="custom",
        stages=(*stages, dataclasses.replace(get_config("dat_tiny").stages[3], deformable=fixed)),
        drop_path=0.0,
    )
    state = authors_state(config, shapes_of(config))
    ours = convert_state_dict(state)
    assert ours["stages.3.blocks.1.attention.fixed_position_bias"].shape == (24, 49, 49)
    assert recognize_config(ours, hints=read_hints(state)) == config


# --- recognition ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("golden", PUBLISHED)
@pytest.mark.parametrize("with_buffers", [True, False])
def test_published_models_are_recognized(golden: str, with_buffers: bool) -> None:
    state = shapes_only(golden)
    hints = read_hints(state) if with_buffers else None
    ours = convert_state_dict(state)
    assert recognize_config(ours, hints=hints) == get_config(PUBLISHED[golden])
    ours["head.weight"], ours["head.bias"] = ours["head.weight"][:7], ours["head.bias"][:7]
    assert recognize_config(ours) == get_config(PUBLISHED[golden]).replace(num_classes=7)


def test_datpp_base_384_differs_in_nothing_but_what_is_said() -> None:
    ours = convert_state_dict(shapes_only("datpp_base_384"))
    base, large = get_config("datpp_base"), get_config("datpp_base_384")
    assert recognize_config(ours) == base
    assert recognize_config(ours, image_size=(384, 384)) == large
    assert recognize_config(ours, name="datpp_base_384") == large
    assert recognize_config(ours, name="datpp_base") == base
    assert recognize_config(ours, hints=Hints(image_size=(384, 384))) == large
    assert recognize_config(ours, hints=Hints(image_size=(384, 384)), image_size=(224, 224)) == large
    assert recognize_config(ours, image_size=(320, 256)) == base.replace(image_size=(320, 256))


def test_another_model_than_demanded() -> None:
    ours = convert_state_dict(shapes_only("dat_tiny_224"))
    with pytest.raises(CheckpointError) as caught:
        recognize_config(ours, name="dat_small")
    assert str(caught.value) == "found the weights of dat_tiny, expected those of dat_small"
    with pytest.raises(CheckpointError, match=r"^found the weights of another network, expected those of dat_tiny$"):
        recognize_config(shapes_of(small_config()), name="dat_tiny")


@st.composite
def configs(draw: st.DrawFn) -> ModelConfig:
    """Models of both papers, with everything that the authors' files can tell."""
    is_datpp = draw(st.booleans())
    local = ("neighborhood",) if is_datpp else ("window", "shifted_window")
    convolutional = is_datpp and draw(st.booleans())
    patch = 4 if convolutional else draw(st.sampled_from([2, 4]))
    side = 16 * draw(st.integers(1, 3))  # of the first map
    heads = draw(st.integers(1, 2))
    encoding = draw(st.sampled_from(["relative", "fixed", "depthwise", "none", *(["log_mlp"] if is_datpp else [])]))
    stages = []
    for s in range(4):
        blocks = draw(st.lists(st.sampled_from([*local, "deformable"]), min_size=1, max_size=4))
        blocks[0] = local[0]  # tells the heads
        map_side = side >> s
        windows = [n for n in range(2, 9) if map_side % n == 0]
        deformable = None
        if "deformable" in blocks:
            stride, kernel = (8 >> s, 9 - 2 * s) if is_datpp else (1, draw(st.sampled_from([3, 5, 7])))
            deformable = DeformableConfig(
                draw(st.integers(1, heads)),
                kernel,
                stride,
                None if is_datpp else 2.0,
                "dat++" if is_datpp else "dat",
                encoding,
            )
        window = draw(st.sampled_from(windows)) if not is_datpp else 7
        kernel = draw(st.sampled_from([3, 5, 7])) if is_datpp else 7
        stages.append(StageConfig(4 * heads, heads, tuple(blocks), window, kernel, deformable))
    told = any("shifted_window" in s.blocks for s in stages) or (
        encoding in ("relative", "fixed") and any(s.deformable for s in stages)
    )
    image = (side * patch, side * patch) if told else (224, 224)
    has_tables = encoding in ("relative", "fixed") and any(s.deformable for s in stages)
    return ModelConfig(
        "custom",
        image,
        draw(st.integers(1, 5)),
        tuple(stages),
        resize_size=image[0] if image[0] < 128 else 256 * image[0] // 224,
        patch_size=patch,
        mlp_ratio=draw(st.integers(1, 3)),
        convolutional_patches=convolutional,
        local_perception=is_datpp and draw(st.booleans()),
        convolutional_mlp=is_datpp and draw(st.booleans()),
        layer_scale=1e-5 if is_datpp and draw(st.booleans()) else None,
        table_image_size=image if is_datpp and has_tables else None,
    )


@given(configs())
def test_any_model_is_recognized(config: ModelConfig) -> None:
    """Everything but the range factor is read off the names and shapes of an authors' file."""
    state = authors_state(config, shapes_of(config))
    ours = convert_state_dict(state)
    assert {name: value.shape for name, value in ours.items()} == {
        name: value.shape for name, value in shapes_of(config).items()
    }
    assert recognize_config(ours, hints=read_hints(state)) == config
    assert {name: value.shape for name, value in to_authors_state_dict(ours).items()} == {
        name: value.shape for name, value in state.items() if name.rpartition(".")[2] not in (
            "attn_mask", "relative_position_index")
    }  # fmt: skip


def test_masks_and_tables_tell_the_image_size() -> None:
    config = small_config()
    state = authors_state(config, shapes_of(config))
    ours = convert_state_dict(state)
    hints = read_hints(state)
    assert hints.shifted == {(0, 1), (1, 1)}
    assert hints.patches == 16
    assert recognize_config(ours).image_size == (32, 32)  # by its tables
    for name in [name for name in ours if name.startswith("stages.2.blocks.1.attention.relative")]:
        del ours[name]
    for name in [name for name in ours if name.startswith("stages.3.blocks.1.attention.relative")]:
        del ours[name]
    assert recognize_config(ours, hints=hints).image_size == (32, 32)  # by its masks
    assert recognize_config(ours).image_size == (224, 224)  # by nothing
    assert recognize_config(ours, image_size=(64, 48)).image_size == (64, 48)


def test_small_images_are_not_cropped() -> None:
    config = small_config()
    assert recognize_config(shapes_of(config)).resize_size == 32
    config = small_config(image_size=(256, 256))
    assert recognize_config(shapes_of(config)).resize_size == 292
    assert recognize_config(shapes_of(config), hints=Hints(cropped=False)).resize_size == 256


def test_strides_that_shapes_tell() -> None:
    """A fixed table has stride^2 fewer keys than queries; an even kernel can only be as wide as its stride."""
    larger = datpp_config(image_size=(64, 64), resize_size=64, table_image_size=(64, 64))
    fixed = with_deformable(larger, position_encoding="fixed", stride=2, kernel=3)
    assert recognize_config(convert_state_dict(to_authors_state_dict(shapes_of(fixed)))) == fixed
    even = with_deformable(datpp_config(), position_encoding="none", stride=2, kernel=2)
    assert [stage.deformable.stride for stage in recognize_config(shapes_of(even)).stages if stage.deformable] == [
        2
    ] * 4


def test_settings_of_the_trainer(tmp_path: Path) -> None:
    """What shapes do not tell, the pickled config may."""
    settings = {
        "MODEL": {
            "NAME": "mine",
            "DAT": {
                "drop_path_rate": 0.25,
                "nat_ksizes": [3, 3, 3, 3],
                "strides": [4, 4, 2, 2],
                "offset_range_factor": [-1, 3, 2.5, -1],
            },
        },
        "DATA": {"IMG_SIZE": 64},
        "TEST": {"CROP": False},
    }
    hints = read_hints({}, settings)
    config = recognize_config(shapes_of(with_deformable(datpp_config(), position_encoding="depthwise")), hints=hints)
    assert config.name == "mine"
    assert config.drop_path == 0.25
    assert config.image_size == (64, 64)
    assert config.resize_size == 64
    told = [(stage.deformable.stride, stage.deformable.range_factor) for stage in config.stages if stage.deformable]
    assert told == [(4, None), (4, 3.0), (2, 2.5), (2, None)]


@pytest.mark.parametrize(
    ("golden", "name", "settings"),
    [
        ("dat_base_384", "dat_base_384", {
            "MODEL": {"NAME": "dat_base_384", "DAT": {
                "img_size": 384, "patch_size": 4, "strides": [-1, -1, 1, 1], "offset_range_factor": [-1, -1, 2, 2],
                "no_offs": [False] * 4, "drop_path_rate": 0.5}},
            "DATA": {"IMG_SIZE": 384}, "TEST": {"CROP": True}}),
        ("datpp_base_384", "datpp_base_384", {
            "MODEL": {"NAME": "dat_plus_plus", "DAT": {
                "img_size": 224, "patch_size": 4, "strides": [8, 4, 2, 1], "offset_range_factor": [-1, -1, -1, -1],
                "no_offs": [False] * 4, "drop_path_rate": 0.6, "nat_ksizes": [7, 7, 7, 7]}},
            "DATA": {"IMG_SIZE": 384}, "TEST": {"CROP": False}}),
        ("datpp_base_224", "datpp_base", {
            "MODEL": {"NAME": "dat_plus_plus", "DAT": {
                "img_size": 224, "strides": [8, 4, 2, 1], "offset_range_factor": [-1, -1, -1, -1],
                "nat_ksizes": [7, 7, 7, 7]}},
            "DATA": {"IMG_SIZE": 224}, "TEST": {"CROP": True}}),
    ],
)  # fmt: skip
def test_published_models_with_the_settings_they_were_trained_with(
    golden: str, name: str, settings: dict[str, object]
) -> None:
    state = shapes_only(golden)
    assert recognize_config(convert_state_dict(state), hints=read_hints(state, settings)) == get_config(name)


@pytest.mark.parametrize(
    "settings",
    [
        None,
        3,
        {"MODEL": None, "DATA": []},
        {"MODEL": {"DAT": {"strides": [1, 2], "offset_range_factor": "2222", "no_offs": [1, 1, 1, 1]}, "NAME": 5}},
        {"DATA": {"IMG_SIZE": True}, "MODEL": {"DAT": {"img_size": -3, "patch_size": 10**9, "drop_path_rate": 4.0}}},
    ],
)
def test_settings_of_unexpected_types_are_passed_over(settings: object) -> None:
    assert read_hints({}, settings) == Hints()


def test_offsets_that_are_switched_off(tmp_path: Path) -> None:
    """The authors' DAT++ keeps the network of offsets, but neither uses it nor has a bias table then."""
    config = with_deformable(datpp_config(), position_encoding="none")
    settings = {"MODEL": {"NAME": "custom", "DAT": {"no_offs": [True] * 4}}, "DATA": {"IMG_SIZE": 32}}
    path = save_with_config(tmp_path / "x.pth", settings, create_model(config))
    model = load_model(path)
    expected = with_deformable(config, offsets=False, groups=1)
    assert model.config == dataclasses.replace(expected, table_image_size=None)
    assert not [name for name in model.state_dict() if "offset" in name]


# --- loading ----------------------------------------------------------------------------------------------------------


def test_an_authors_file(tmp_path: Path) -> None:
    model = create_model(small_config(), seed=3)
    loaded = load_model(save_authors_file(tmp_path / "x.pth", model))
    assert loaded.config == dataclasses.replace(model.config, name="custom")
    assert loaded.labels is None
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(loaded.state_dict()[name], value)
    images = np.random.default_rng(0).standard_normal((1, 32, 32, 3)).astype(np.float32)
    np.testing.assert_array_equal(loaded(images), model(images))


def test_kinds_of_content(tmp_path: Path) -> None:
    """The state dict may be called 'state_dict', or be all there is; numbers may be of half precision."""
    model = create_model(small_config())
    state = authors_state(model.config, model.state_dict())
    halves = {name: torch.from_numpy(value).half() for name, value in state.items()}
    for content in (halves, {"state_dict": halves}, {"model": {f"module.{n}": v for n, v in halves.items()}}):
        torch.save(content, tmp_path / "x.pth")
        loaded = load_model(tmp_path / "x.pth").state_dict()
        for name, value in model.state_dict().items():
            assert loaded[name].dtype == np.float32
            np.testing.assert_allclose(loaded[name], value, atol=1e-3)


def test_dtype(tmp_path: Path) -> None:
    path = save_authors_file(tmp_path / "x.pth")
    assert {value.dtype for value in load_model(path, dtype=np.float64).state_dict().values()} == {np.dtype(np.float64)}
    with pytest.raises(ConfigError, match=r"^dtype: found float16, expected float32 or float64$"):
        load_model(path, dtype=np.float16)


def test_labels_of_imagenet(tmp_path: Path) -> None:
    path = save_authors_file(tmp_path / "x.pth", create_model(small_config(num_classes=1000)))
    assert load_model(path).labels == list(imagenet_labels())


def broken(tmp_path: Path, change: object) -> str:
    """The error for an authors' file whose state dict `change` altered, without the path."""
    config = small_config()
    state = authors_state(config, create_model(config).state_dict())
    change(state)
    torch.save(
        {"model": {name: torch.from_numpy(np.array(value)) for name, value in state.items()}}, tmp_path / "x.pth"
    )
    with pytest.raises(CheckpointError) as caught:
        load_model(tmp_path / "x.pth")
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{tmp_path / 'x.pth'}: ")


def test_every_missing_key_is_named(tmp_path: Path) -> None:
    config = small_config()
    names = to_authors_state_dict(shapes_of(config))
    for name in list(names)[::5]:
        message = broken(tmp_path, lambda state, name=name: state.pop(name))
        (ours,) = convert_state_dict({name: names[name]})
        assert ours in message or re.fullmatch(r"stage \d has the blocks .*", message), (name, message)


def test_missing_and_wrong_ones_are_all_listed(tmp_path: Path) -> None:
    def change(state: dict[str, np.ndarray]) -> None:
        del state["cls_norm.norm.bias"], state["stages.1.attns.0.proj_out.bias"]
        state["cls_head.bias"] = state["cls_head.bias"][:2]

    assert broken(tmp_path, change) == (
        "the weights do not fit the model: missing stages.1.blocks.0.attention.projection.bias; missing norm.bias; "
        "head.bias has shape (2,), expected (3,)"
    )


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("stages.0.attns.0.relative_position_bias_table", np.zeros((48, 1)),
         "stages.0.blocks.0.attention.relative_position_bias_table has 48 rows, expected (2 window - 1)^2"),
        ("cls_head.weight", np.zeros((3, 16, 1)), "head.weight has shape (3, 16, 1), expected 2 axes, none of them 0"),
        ("stages.0.layer_norms.0.norm.weight", np.zeros(0),
         "stages.0.blocks.0.norm1.weight has shape (0,), expected 1 axes, none of them 0"),
        ("cls_norm.norm.bias", np.zeros(16, np.int64), "norm.bias has dtype int64, expected floating-point numbers"),
        ("down_projs.0.0.weight", np.zeros((8, 8, 3, 3)),
         "patch embedding and down-sampling are not of one kind, expected plain or DAT++'s convolutional ones "
         "(the CVPR code's 7x7 patches are not supported)"),
        ("stages.2.attns.1.rpe_table", np.zeros((3, 7, 7)), None),
    ],
)  # fmt: skip
def test_wrong_shapes(tmp_path: Path, name: str, value: np.ndarray, message: str | None) -> None:
    found = broken(tmp_path, lambda state: state.update({name: value}))
    assert found == message or message is None


def test_no_model_at_all(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError) as caught:
        load_model(tmp_path / "x.pth")
    assert str(caught.value) == (
        f"{tmp_path / 'x.pth'}: the entry 'epoch' of the weights is an int, expected a tensor: "
        "not a model's checkpoint, or not a safe one"
    )
    torch.save([1], tmp_path / "x.pth")
    with pytest.raises(CheckpointError) as caught:
        load_model(tmp_path / "x.pth")
    assert str(caught.value) == (
        f"{tmp_path / 'x.pth'}: holds a list, expected a dict of weights (model.state_dict()), "
        "or one with such a dict under 'model'"
    )


# --- another image size -----------------------------------------------------------------------------------------------


def interpolate(table: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What the authors' loader does with a table of three axes."""
    return torch.nn.functional.interpolate(torch.from_numpy(table)[None], size, mode="bicubic")[0].numpy()


@pytest.mark.parametrize("image_size", [48, (64, 32), (16, 40)])
def test_relative_tables_are_resized_as_the_authors_do(tmp_path: Path, image_size: int | tuple[int, int]) -> None:
    model = create_model(small_config())
    path = save_authors_file(tmp_path / "x.pth", model)
    loaded = load_model(path, image_size=image_size)
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    assert loaded.config.image_size == size
    state = loaded.state_dict()
    for name, value in model.state_dict().items():
        if name in ("stages.2.blocks.1.attention.relative_position_bias_table",
                    "stages.3.blocks.1.attention.relative_position_bias_table"):  # fmt: skip
            height, width = loaded.config.map_size(int(name[7]))
            value = interpolate(value, (2 * height - 1, 2 * width - 1))
        np.testing.assert_allclose(state[name], value, atol=1e-6)
    images = np.zeros((1, *size, 3), np.float32)
    assert np.isfinite(loaded(images)).all()


def test_fixed_tables_are_resized_on_both_maps(tmp_path: Path) -> None:
    config = with_deformable(small_config(name="custom"), position_encoding="fixed")
    model = create_model(config)
    path = save_authors_file(tmp_path / "x.pth", model)
    assert load_model(path).config == config
    loaded = load_model(path, image_size=(48, 32))
    name = "stages.2.blocks.1.attention.fixed_position_bias"
    table = model.state_dict()[name].reshape(2, 4, 4, 16).transpose(0, 3, 1, 2)  # (heads, keys, H, W)
    table = interpolate(table.reshape(-1, 4, 4), (6, 4)).reshape(2, 4, 4, 24)  # (heads, Hk, Wk, queries)
    table = interpolate(table.transpose(0, 3, 1, 2).reshape(-1, 4, 4), (6, 4)).reshape(2, 24, 24)
    np.testing.assert_allclose(loaded.state_dict()[name], table, atol=1e-6)
    assert np.isfinite(loaded(np.zeros((1, 48, 32, 3), np.float32))).all()


def test_fixed_tables_of_images_that_are_not_square() -> None:
    """Queries and keys on maps of other heights than widths, and fewer keys than queries."""
    stride = {"position_encoding": "fixed", "stride": 2, "kernel": 3}
    old = with_deformable(small_config(image_size=(64, 32)), **stride)
    new = old.replace(image_size=(32, 48))
    name = "stages.2.blocks.1.attention.fixed_position_bias"
    table = create_model(old).state_dict()[name]
    assert table.shape == (2, 8 * 4, 4 * 2)
    found = resize_tables({name: table}, old, new)[name]
    queries = interpolate(table.transpose(0, 2, 1).reshape(-1, 8, 4), (4, 6)).reshape(2, 4, 2, 24)
    expected = interpolate(queries.transpose(0, 3, 1, 2).reshape(-1, 4, 2), (2, 3)).reshape(2, 24, 6)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_tables_of_datpp_stay_as_they_are(tmp_path: Path) -> None:
    model = create_model(datpp_config())
    loaded = load_model(save_authors_file(tmp_path / "x.pth", model), image_size=(64, 40))
    assert loaded.config == dataclasses.replace(model.config, image_size=(64, 40), resize_size=64)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(loaded.state_dict()[name], value)


def test_an_impossible_image_size(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="image_size: found"):
        load_model(save_authors_file(tmp_path / "x.pth"), image_size=0)


# --- converting files -------------------------------------------------------------------------------------------------


def test_convert_an_authors_file(tmp_path: Path) -> None:
    model = create_model(small_config())
    source = save_authors_file(tmp_path / "x.pth", model)
    config = convert(source, tmp_path / "x.npz", labels=["cat", "dog", "tree"])
    loaded = load_model(tmp_path / "x.npz")
    assert loaded.config == config == load_model(source).config
    assert loaded.labels == ["cat", "dog", "tree"]
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(loaded.state_dict()[name], value)


def test_convert_to_another_precision_keeps_the_labels(tmp_path: Path) -> None:
    model = create_model(small_config())
    save_npz(tmp_path / "a.npz", model.state_dict(), model.config, ["cat", "dog", "tree"])
    convert(tmp_path / "a.npz", tmp_path / "b.npz", dtype=np.float16)
    assert load_npz(tmp_path / "b.npz").labels == ["cat", "dog", "tree"]
    assert (tmp_path / "b.npz").stat().st_size < 0.8 * (tmp_path / "a.npz").stat().st_size
    for name, value in load_model(tmp_path / "b.npz").state_dict().items():
        np.testing.assert_array_equal(value, model.state_dict()[name].astype(np.float16))
    convert(tmp_path / "b.npz", tmp_path / "b.npz")  # onto itself
    assert load_npz(tmp_path / "b.npz").labels == ["cat", "dog", "tree"]


def test_convert_writes_nothing_for_a_wrong_model(tmp_path: Path) -> None:
    model = create_model(small_config())
    state = model.state_dict()
    del state["norm.bias"]
    save_npz(tmp_path / "a.npz", state, model.config)
    with pytest.raises(CheckpointError) as caught:
        convert(tmp_path / "a.npz", tmp_path / "b.npz")
    assert str(caught.value) == f"{tmp_path / 'a.npz'}: the weights do not fit the model: missing norm.bias"
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.parametrize("name", ["retinanet_datpp_tiny"])
def test_every_name_of_a_detector_converts_both_ways(name: str) -> None:
    rows = [line.split("\t") for line in (GOLDEN / "dense" / f"{name}.keys.tsv").read_text().splitlines()]
    state = {key: np.broadcast_to(np.float32(0), tuple(map(int, shape.split(",")))) for key, shape, _ in rows}
    ours = convert_state_dict(state)
    model = FAMILIES["retinanet"].network(get_dense_config(name))
    assert {key: value.shape for key, value in ours.items()} == {key: p.shape for key, p in model.named_parameters()}
    back = to_authors_state_dict(ours)
    assert {key: value.shape for key, value in back.items()} == {key: value.shape for key, value in state.items()}
    with pytest.raises(CheckpointError, match=r"mmdetection or mmsegmentation: unknown bbox_head\.fcos\.weight"):
        convert_state_dict({**state, "bbox_head.fcos.weight": np.zeros(1)})
    with pytest.raises(CheckpointError, match=r"not minidat's heads: unknown head\.masks\.weight"):
        to_authors_state_dict({**ours, "head.masks.weight": np.zeros(1)})
