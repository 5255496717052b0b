"""Our own files: what is written comes back, and what is damaged or hostile is one clear error."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.extra import numpy as hnp

from minidat.checkpoints import load_model, load_npz, save_npz
from minidat.errors import CheckpointError, ConfigError
from minidat.models import create_model
from tests.checkpoint_files import peak_of, small_config

quick_fixtures = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
LABELS = ["cat", "dog", "tree é"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A whole file, of a model drawn with seed 0."""
    model = create_model(small_config())
    save_npz(tmp_path / "x.npz", model.state_dict(), model.config, LABELS)
    return tmp_path / "x.npz"


def rewrite(path: Path, changes: dict[str, bytes | None], compression: int = zipfile.ZIP_STORED) -> None:
    """Replace (with None: drop) records of the zip, with valid checksums."""
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()} | changes
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in records.items():
            if content is not None:
                archive.writestr(name, content)


def npy(descr: str, shape: str, content: bytes, *, version: int = 1) -> bytes:
    """A .npy file with any header."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    size = len(header).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + header + content


def text(value: object) -> bytes:
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    return npy("'|u1'", f"({len(content)},)", content)


def error_of(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{path}: ")


# --- round trips ------------------------------------------------------------------------------------------------------


def test_a_model_comes_back(path: Path) -> None:
    model, loaded = create_model(small_config()), load_model(path)
    assert loaded.config == model.config
    assert loaded.labels == LABELS
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(loaded.state_dict()[name], value, strict=True)


def test_numpy_reads_it_too(path: Path) -> None:
    with np.load(path, allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["norm.weight"], np.ones(16))
        assert json.loads(archive["labels"].tobytes()) == LABELS
        assert json.loads(archive["config"].tobytes())["name"] == "small"


def test_the_same_model_gives_the_same_bytes(path: Path, tmp_path: Path) -> None:
    checkpoint = load_npz(path)
    save_npz(tmp_path / "y.npz", checkpoint.state, checkpoint.config, checkpoint.labels)
    assert (tmp_path / "y.npz").read_bytes() == path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}  # no trace of when it was written


floats = st.sampled_from([np.float16, np.float32, np.float64])


@quick_fixtures
@given(
    value=hnp.arrays(
        floats, hnp.array_shapes(min_dims=0, min_side=0, max_side=5), elements=st.floats(-100, 100, width=16)
    ),
    stored=st.none() | floats,
    wanted=st.sampled_from([np.float32, np.float64]),
    order=st.sampled_from(["C", "F"]),
)  # fmt: skip
def test_arrays_of_any_shape_and_precision(
    tmp_path: Path, value: np.ndarray, stored: type | None, wanted: type, order: str
) -> None:
    """Numbers that half precision holds survive any way of storing them."""
    value = np.asarray(value, order=order)
    save_npz(tmp_path / "x.npz", {"a": value}, small_config(), dtype=stored)
    with np.load(tmp_path / "x.npz", allow_pickle=False) as archive:
        assert archive["a"].dtype == (stored or value.dtype)
    loaded = load_npz(tmp_path / "x.npz", dtype=wanted).state["a"]
    np.testing.assert_array_equal(loaded, value.astype(wanted), strict=True)


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f2", "|b1", "<i8", ">u2", "|i1"])
def test_any_byte_order(path: Path, dtype: str) -> None:
    """A record of more than one chunk, whose header leaves the numbers unaligned."""
    value = (np.arange(300_000) % 100).astype(dtype)
    rewrite(path, {"a.npy": npy(f"'{dtype}'", "(300000,)", value.tobytes())})
    loaded = load_npz(path, dtype=np.float64).state["a"]
    assert loaded.dtype == (np.float64 if "f" in dtype else value.dtype.newbyteorder("="))
    np.testing.assert_array_equal(loaded, value)


def test_files_of_numpy_itself(path: Path, tmp_path: Path) -> None:
    """An archive by np.savez, plain or compressed, with arrays in Fortran order, is as good."""
    with np.load(path) as archive:
        arrays = {name: np.asfortranarray(archive[name]) for name in archive.files}
    for write in (np.savez, np.savez_compressed):
        write(tmp_path / "y.npz", **arrays)
        model = load_model(tmp_path / "y.npz")
        for name, value in load_model(path).state_dict().items():
            np.testing.assert_array_equal(model.state_dict()[name], value)
            assert model.state_dict()[name].flags.c_contiguous


def test_half_precision_that_overflows(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        save_npz(tmp_path / "x.npz", {"a": np.array([1e6])}, small_config(), dtype=np.float16)
    assert str(caught.value) == f"{tmp_path / 'x.npz'}: a has values too large for float16, expected a wider dtype"
    assert list(tmp_path.iterdir()) == []
    save_npz(tmp_path / "x.npz", {"a": np.array([np.inf])}, small_config(), dtype=np.float16)
    assert load_npz(tmp_path / "x.npz").state["a"][0] == np.inf


def test_no_labels(tmp_path: Path) -> None:
    save_npz(tmp_path / "x.npz", {}, small_config())
    assert load_npz(tmp_path / "x.npz").labels is None


# --- writing ----------------------------------------------------------------------------------------------------------


def test_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        save_npz(tmp_path / "x.pth", {}, small_config())
    assert str(caught.value) == f"{tmp_path / 'x.pth'}: found the suffix '.pth', expected .npz"
    with pytest.raises(CheckpointError) as caught:
        save_npz(tmp_path / "x.npz", {}, small_config(), ["cat"])
    assert str(caught.value) == f"{tmp_path / 'x.npz'}: labels: found 1, expected 3, one for each class"
    with pytest.raises(ConfigError) as caught_config:
        save_npz(tmp_path / "x.npz", {}, small_config(), dtype=np.int8)
    assert str(caught_config.value) == "dtype: found int8, expected float16, float32 or float64"
    with pytest.raises(CheckpointError) as caught:
        save_npz(tmp_path / "no" / "x.npz", {}, small_config())
    assert str(caught.value) == f"{tmp_path / 'no' / 'x.npz'}: cannot be written: No such file or directory"


class Unreadable:
    """An array that fails while it is being written."""

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise OSError(28, "No space left on device")


def test_a_failure_leaves_the_old_file(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match="cannot be written: No space left on device"):
        save_npz(path, {"a": np.ones(1000), "b": Unreadable()}, small_config())  # type: ignore[dict-item]
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["x.npz"]


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    save_npz(tmp_path / "x.npz", {}, small_config())
    (tmp_path / "plain").touch()
    assert (tmp_path / "x.npz").stat().st_mode == (tmp_path / "plain").stat().st_mode


# --- errors -----------------------------------------------------------------------------------------------------------


def test_missing_and_other_files(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    assert error_of(path) == "no such file"
    path.write_bytes(pickle.dumps({"a": 1}))
    assert error_of(path) == "a bare pickle, expected a zip file (.pth or .npz)"
    np.save(tmp_path / "a.npy", np.ones(3))
    assert error_of(tmp_path / "a.npy") == "a single .npy array, expected a zip file (.pth or .npz)"


def test_an_archive_of_something_else(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=np.ones(3))
    assert error_of(tmp_path / "x.npz") == "an archive of arrays, but not of a minidat model: it has no config"


def test_pickled_arrays_are_not_opened(path: Path, tmp_path: Path) -> None:
    class Command:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "victim"),)

    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    np.savez(path, **{**arrays, "norm.bias": np.array([Command()], dtype=object)})
    assert error_of(path) == "norm.bias holds pickled objects, expected numbers: minidat executes nothing"
    assert not (tmp_path / "victim").exists()


def test_truncated_anywhere(path: Path) -> None:
    content = path.read_bytes()
    for length in range(2, len(content), len(content) // 50):
        path.write_bytes(content[:length])
        assert error_of(path).startswith("a cut-off or damaged zip file")


def test_a_flipped_bit_in_any_record(path: Path) -> None:
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()[::20]
    for entry in entries:
        at = content.index(b"\x93NUMPY", entry.header_offset) + entry.file_size - 1
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert error_of(path).startswith(f"the record {entry.filename} is damaged (Bad CRC-32")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (b"", "norm.bias has no plain .npy header: the file is damaged, or not written by NumPy"),
        (b"\x93NUMPY\x01\x00", "norm.bias has no plain .npy header: the file is damaged, or not written by NumPy"),
        (npy("'<f4'", "(16, )", bytes(64))[:-1] + b"x",
         None),  # a harmless change, to see that the others matter
        (npy("'<f4'", "(99999999999, )", bytes(64)),
         "norm.bias declares another shape than its record holds: the file is damaged"),
        (npy("'<f4'", "(17,)", bytes(64)),
         "norm.bias declares another shape than its record holds: the file is damaged"),
        (npy("'<f4'", "(15,)", bytes(64)),
         "norm.bias declares another shape than its record holds: the file is damaged"),
        (npy("'<f4'", "(0, 999999999999999999, 999999999999999999)", b""),
         "norm.bias declares another shape than its record holds: the file is damaged"),
        (npy("'|O'", "(1,)", b"cos\nsystem\n"),
         "norm.bias holds pickled objects, expected numbers: minidat executes nothing"),
        (npy("'<c8'", "(16,)", bytes(128)), "norm.bias has dtype <c8, expected numbers"),
        (npy("'<U4'", "(4,)", bytes(64)), "norm.bias has dtype <U4, expected numbers"),
        (npy("[('a', '<f4')]", "(16,)", bytes(64)),
         "norm.bias has no plain .npy header: the file is damaged, or not written by NumPy"),
        (npy("'<i4'", "(16,)", bytes(64)), "norm.bias has dtype int32, expected floating-point numbers"),
    ],
)  # fmt: skip
def test_bad_headers(path: Path, record: bytes, message: str | None) -> None:
    rewrite(path, {"norm.bias.npy": record})
    if message is None:
        load_model(path)
    else:
        assert error_of(path) == message


def test_later_header_versions(path: Path) -> None:
    rewrite(path, {"norm.bias.npy": npy("'<f4'", "(16,)", bytes(64), version=2)})
    np.testing.assert_array_equal(load_model(path).state_dict()["norm.bias"], np.zeros(16))


def test_the_weights_of_another_model(path: Path) -> None:
    config = small_config(num_classes=5).to_dict()
    rewrite(path, {"config.npy": text(config), "labels.npy": None, "norm.bias.npy": None})
    assert error_of(path) == (
        "the weights do not fit the model: missing norm.bias; head.weight has shape (3, 16), expected (5, 16); "
        "head.bias has shape (3,), expected (5,)"
    )


@pytest.mark.parametrize(
    ("name", "value", "start"),
    [
        ("config", b"{", "config is not JSON: the file is damaged, or not written by minidat"),
        ("config", b"[" * 100_000, "config is not JSON: the file is damaged, or not written by minidat"),
        ("config", [], "its config cannot be used: model config: found list, expected a dict"),
        ("config", {"name": "x"}, "its config cannot be used: model config: "),
        ("labels", ["a"], "its labels are not a list of 3 texts"),
        ("labels", [1, 2, 3], "its labels are not a list of 3 texts"),
        ("labels", {"a": 1}, "its labels are not a list of 3 texts"),
    ],
)
def test_bad_texts(path: Path, name: str, value: object, start: str) -> None:
    rewrite(path, {f"{name}.npy": text(value)})
    assert error_of(path).startswith(start)


def test_an_array_instead_of_a_text(path: Path) -> None:
    rewrite(path, {"config.npy": npy("'<f4'", "(1,)", bytes(4))})
    assert error_of(path) == "config is not JSON: the file is damaged, or not written by minidat"


@pytest.mark.parametrize(
    "change",
    [
        {"num_classes": 10**30},
        {"mlp_ratio": 10**400},
        {"patch_size": 10**18},
        {"image_size": [10**30, 1], "resize_size": 10**31},
    ],
)
def test_an_impossibly_large_model(path: Path, change: dict[str, object]) -> None:
    rewrite(path, {"config.npy": text(small_config().to_dict() | change), "labels.npy": None})
    assert "expected" in error_of(path) or "impossibly large" in error_of(path)


def test_a_hundred_thousand_blocks(path: Path) -> None:
    config = small_config().to_dict()
    config["stages"] = [dict(stage, blocks=["window"] * 25_000) for stage in config["stages"]]
    rewrite(path, {"config.npy": text(config)})
    assert (
        error_of(path) == "its config cannot be used: small: blocks: found 100000, expected at most 1024 in all stages"
    )


def test_an_endless_text(path: Path) -> None:
    rewrite(path, {"labels.npy": text(["x" * 5_000_000])})
    assert error_of(path) == "labels has 5000078 bytes, expected at most 4194304"


# --- fuzz -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("fuzz") / "x.npz"
    model = create_model(small_config())
    save_npz(path, model.state_dict(), model.config, LABELS)
    return path.read_bytes()


BUDGET = 4 << 20  # the interpreter's own objects: zip directory, JSON, the empty model


@settings(quick_fixtures, max_examples=50)
@given(edits=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=6)), min_size=1, max_size=3))
def test_fuzz_bytes(tmp_path: Path, content: bytes, edits: list[tuple[float, bytes]]) -> None:
    path = tmp_path / "x.npz"
    changed = bytearray(content)
    for place, piece in edits:
        at = int(place * len(changed))
        changed[at : at + len(piece)] = piece
    path.write_bytes(changed)
    assert peak_of(lambda: load_model(path)) < 2 * len(content) + BUDGET


def test_a_dtype_that_is_no_text(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    with zipfile.ZipFile(path) as archive:
        name = archive.namelist()[1]
        changed = bytearray(archive.read(name))
    changed[21] = 0x80  # the first character of the dtype
    rewrite(path, {name: bytes(changed)})
    with pytest.raises(CheckpointError, match=r"has dtype .*, expected numbers"):
        load_model(path)


@settings(quick_fixtures, max_examples=50)
@given(
    record=st.integers(0, 1000),
    edits=st.lists(st.tuples(st.integers(0, 160), st.binary(min_size=1, max_size=6)), min_size=1, max_size=3),
)
def test_fuzz_headers_with_valid_checksums(
    tmp_path: Path, content: bytes, record: int, edits: list[tuple[int, bytes]]
) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        name = names[record % len(names)]
        changed = bytearray(archive.read(name))
    for at, piece in edits:
        changed[at : at + len(piece)] = piece
    rewrite(path, {name: bytes(changed)})
    assert peak_of(lambda: load_model(path)) < 2 * len(content) + BUDGET


@settings(quick_fixtures, max_examples=50)
@given(data=st.data())
def test_fuzz_the_config(tmp_path: Path, content: bytes, data: st.DataObject) -> None:
    """Any JSON value in the place of any field."""
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    values = (
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
        | st.lists(st.integers() | st.text(max_size=2), max_size=3)
    )  # fmt: skip
    config = small_config().to_dict()
    stage = config["stages"][data.draw(st.integers(0, 3))]
    place = data.draw(st.sampled_from([config, stage, stage["deformable"] or stage]))
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(values)
    rewrite(path, {"config.npy": text(json.loads(json.dumps(config)))})
    assert peak_of(lambda: load_model(path)) < 2 * len(content) + BUDGET
