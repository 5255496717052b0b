"""Reading `.pth` files: equal to PyTorch where PyTorch reads them, and one clear error where nobody should."""

from __future__ import annotations

import collections
import contextlib
import gc
import os
import pickle
import re
import sys
import zipfile
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from minidat.checkpoints import Placeholder, load_model, read_torch_file
from minidat.checkpoints.torch_file import ELEMENT_TYPES
from minidat.errors import CheckpointError
from minidat.files.pickle_machine import PickleError, PickleMachine
from tests.checkpoint_files import (
    foreign_module,
    peak_of,
    read_record,
    rewrite_zip,
    save_authors_file,
    save_with_config,
)

quick_fixtures = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def save(path: Path, value: object, **options: object) -> Path:
    torch.save(value, path, **options)
    return path


def error_of(path: Path) -> str:
    """The message of the error that reading gives, without the path; it must be one line."""
    with pytest.raises(CheckpointError) as caught:
        read_torch_file(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


# --- values -----------------------------------------------------------------------------------------------------------


def every_bit_pattern(name: str) -> torch.Tensor:
    """All values of an 8- or 16-bit dtype, random bytes of a wider one."""
    dtype = getattr(torch, name)
    if name == "bool":
        return torch.tensor([True, False, True])
    itemsize = ELEMENT_TYPES[name].itemsize
    if itemsize == 1:
        return torch.arange(256, dtype=torch.uint8).view(dtype)
    if itemsize == 2:
        return torch.from_numpy(np.arange(1 << 16, dtype=np.uint16).view(np.uint8)).view(dtype)
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, 1 << 12, np.uint8)).view(dtype)


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("name", ELEMENT_TYPES)
def test_every_dtype(tmp_path: Path, name: str) -> None:
    tensor = every_bit_pattern(name)
    array = read_torch_file(save(tmp_path / "x.pth", tensor))
    if tensor.is_complex():
        expected = tensor.to(torch.complex64) if name == "complex32" else tensor
    else:
        expected = tensor.float() if tensor.is_floating_point() and tensor.itemsize < 4 else tensor
    assert array.dtype == expected.numpy().dtype
    np.testing.assert_array_equal(array, expected.numpy())


@st.composite
def tensors_with_shared_storages(draw: st.DrawFn) -> list[torch.Tensor]:
    """A few tensors, most of them views of each other's storages with any strides, also overlapping and empty."""
    dtypes = st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8])
    bases = [(torch.arange(draw(st.integers(0, 40))) % 100).to(draw(dtypes)) for _ in range(draw(st.integers(1, 3)))]
    tensors = []
    for _ in range(draw(st.integers(1, 6))):
        base = draw(st.sampled_from(bases))
        shape = draw(st.lists(st.integers(0, 4), max_size=4))
        strides = [draw(st.integers(0, 6)) for _ in shape]
        reach = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        room = len(base) - 1 - reach
        if 0 in shape or room < 0:
            tensors.append(base)
        else:
            tensors.append(torch.as_strided(base, shape, strides, draw(st.integers(0, room))))
    return tensors


@quick_fixtures
@given(tensors=tensors_with_shared_storages(), protocol=st.integers(2, 5))
def test_strided_and_shared_storages(tmp_path: Path, tensors: list[torch.Tensor], protocol: int) -> None:
    path = save(tmp_path / "x.pth", tensors, pickle_protocol=protocol)
    arrays, expected = read_torch_file(path), torch.load(path, weights_only=False)
    for array, tensor in zip(arrays, expected, strict=True):
        value = tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
        assert array.shape == tuple(tensor.shape)
        assert array.dtype == value.numpy().dtype
        np.testing.assert_array_equal(array, value.numpy())
    for a, s in zip(arrays, expected, strict=True):  # the same of them share memory
        for b, t in zip(arrays, expected, strict=True):
            shared = s.untyped_storage().data_ptr() == t.untyped_storage().data_ptr()
            if s.numel() and t.numel():
                assert (_memory(a) is _memory(b)) == shared


def _memory(array: np.ndarray) -> np.ndarray:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def test_writing_to_a_view_changes_the_others_and_not_the_file(tmp_path: Path) -> None:
    base = torch.arange(6.0)
    path = save(tmp_path / "x.pth", {"rows": base.view(2, 3), "columns": base.view(2, 3).T})
    content = read_torch_file(path)
    assert content["columns"].strides == (4, 12)
    content["rows"][0, 1] = 100
    assert content["columns"][1, 0] == 100
    assert read_torch_file(path)["rows"][0, 1] == 1


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_nested_containers(tmp_path: Path, protocol: int) -> None:
    shared = [1, 2]
    value = {
        "numbers": [0, 255, 256, 65536, -1, -(2**31), 2**40, -(2**2000), 1.5, float("inf"), True, False, None],
        "texts": ["", "é" * 300, "\ud800", "x" * 70000],
        "bytes": [b"", b"\x00\xff" * 200],
        "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        "sets": [set(), {1, "a"}, frozenset({(1, 2), None})],
        "ordered": collections.OrderedDict([("b", 1), ("a", {"deep": {"deeper": (torch.ones(2), [])}})]),
        "default": collections.defaultdict(list, {3: [4]}),
        "size": torch.Size([2, 3]),
        "twice": [shared, shared],
        7: {},
    }
    content = read_torch_file(save(tmp_path / "x.pth", value, pickle_protocol=protocol))
    inner = content["ordered"]["a"]["deep"].pop("deeper")
    value["ordered"]["a"]["deep"].pop("deeper")
    np.testing.assert_array_equal(inner[0], [1, 1])
    assert inner[1] == []
    assert content == value
    assert list(content["ordered"]) == ["b", "a"]
    assert content["twice"][0] is content["twice"][1]


def test_a_list_that_holds_itself(tmp_path: Path) -> None:
    loop: list[object] = []
    loop.append(loop)
    content = read_torch_file(save(tmp_path / "x.pth", loop))
    assert content[0] is content


def test_parameters_and_state_dicts(tmp_path: Path) -> None:
    module = torch.nn.Conv2d(2, 3, 1)
    decorated = torch.ones(2)
    decorated.remark = "a tensor with an attribute"  # pickled in yet another way
    value = {"state": module.state_dict(), "parameter": module.weight, "decorated": decorated}
    content = read_torch_file(save(tmp_path / "x.pth", value))
    assert list(content["state"]) == ["weight", "bias"]
    np.testing.assert_array_equal(content["state"]["weight"], module.weight.detach().numpy())
    np.testing.assert_array_equal(content["parameter"], module.weight.detach().numpy())
    np.testing.assert_array_equal(content["decorated"], [1, 1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.uint16])
def test_big_endian_files(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = torch.arange(300).to(dtype)
    path = save(tmp_path / "x.pth", tensor)
    word = {torch.complex64: 4}.get(dtype, tensor.itemsize)
    swapped = np.frombuffer(read_record(path, "data/0"), f"u{word}").byteswap().tobytes()
    rewrite_zip(path, {"data/0": swapped, "byteorder": b"big"})
    expected = tensor if tensor.is_complex() or not tensor.is_floating_point() else tensor.float()
    np.testing.assert_array_equal(read_torch_file(path), expected.numpy())


def test_compressed_records_are_read(tmp_path: Path) -> None:
    path = save(tmp_path / "x.pth", torch.arange(1000))
    rewrite_zip(path, {}, compression=zipfile.ZIP_DEFLATED)
    np.testing.assert_array_equal(read_torch_file(path), np.arange(1000))


# --- nothing is executed ----------------------------------------------------------------------------------------------


def test_unknown_classes_become_placeholders(tmp_path: Path) -> None:
    path = save_with_config(tmp_path / "x.pth", {"MODEL": {"NAME": "small", "SIZES": [1, 2]}})
    config = read_torch_file(path)["config"]
    assert isinstance(config, Placeholder)
    assert (config.module, config.name, config.arguments) == ("yacs.config", "CfgNode", ())
    assert config.path == "yacs.config.CfgNode"
    assert config.state["__immutable__"] is True
    assert config.items["MODEL"].items == {"NAME": "small", "SIZES": [1, 2]}
    assert "yacs.config" not in sys.modules


def test_placeholders_keep_arguments_state_and_elements(tmp_path: Path) -> None:
    class Rate:
        def __init__(self, value: float) -> None:
            self.value = value

        def __reduce__(self) -> tuple:
            return Rate, (self.value,), {"seen": 3}, iter(["first"]), iter([("key", "item")])

        def append(self, _: object) -> None: ...

        def __setitem__(self, *_: object) -> None: ...

    with foreign_module("a_scheduler", Rate=Rate):
        path = save(tmp_path / "x.pth", [Rate(0.5), Rate, np.float64(0.25)])
    rate, kind, scalar = read_torch_file(path)
    assert (rate.arguments, rate.state, rate.elements, rate.items) == ((0.5,), {"seen": 3}, ["first"], {"key": "item"})
    assert (kind.path, kind.arguments) == ("a_scheduler.Rate", None)
    assert repr(rate) == "<placeholder for a_scheduler.Rate>"
    assert scalar.name == "scalar"


class Command:
    """A pickle of this runs a command where it is unpickled."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_malicious_pickle_does_not_run(tmp_path: Path, protocol: int) -> None:
    victim = tmp_path / "victim"
    commands = [
        Command(os.system, f"touch {victim}"),
        Command(eval, f"__import__('pathlib').Path({str(victim)!r}).touch()"),
        Command(Path.touch, victim),
    ]
    path = save(tmp_path / "x.pth", {"safe": torch.ones(1), "commands": commands}, pickle_protocol=protocol)
    content = read_torch_file(path)
    assert not victim.exists()
    assert content["commands"][0].arguments == (f"touch {victim}",)
    assert content["commands"][0].name == "system"
    torch.load(path, weights_only=False)  # the files are what they claim to be
    assert victim.exists()


def test_weights_made_by_a_call_are_refused(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    path = save(tmp_path / "x.pth", {"model": {"head.bias": Command(os.mkdir, str(victim))}})
    with pytest.raises(CheckpointError) as caught:
        load_model(path)
    assert str(caught.value) == (
        f"{path}: the entry 'head.bias' of the weights is <placeholder for {os.mkdir.__module__}.mkdir>, "
        "expected a tensor: not a model's checkpoint, or not a safe one"
    )
    assert not victim.exists()


def test_a_malicious_pickle_in_the_place_of_the_model(tmp_path: Path) -> None:
    path = save(tmp_path / "x.pth", Command(os.system, "true"))
    with pytest.raises(CheckpointError, match=r"holds <placeholder for \w+\.system>, expected a dict of weights"):
        load_model(path)


# --- errors -----------------------------------------------------------------------------------------------------------


def test_missing_file(tmp_path: Path) -> None:
    assert error_of(tmp_path / "no.pth") == "no such file"


def test_folder(tmp_path: Path) -> None:
    assert error_of(tmp_path) == "a folder, expected a .pth or .npz file"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty, expected a .pth or .npz file: download or copy it again"),
        (b"a text\n", "starts with b'a text\\n', expected a zip file (.pth or .npz)"),
        (b"\n<!DOCTYPE html><html>", "a web page, expected a zip file (.pth or .npz)"),
        (pickle.dumps([1]), "a bare pickle, expected a zip file (.pth or .npz)"),
    ],
)
def test_files_that_are_no_zip(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    assert error_of(path) == message


def test_format_before_pytorch_1_6(tmp_path: Path) -> None:
    path = save(tmp_path / "x.pth", {"a": torch.ones(2)}, _use_new_zipfile_serialization=False)
    assert error_of(path) == (
        "PyTorch's format from before version 1.6, expected its zip format: "
        "re-save it with torch.save(torch.load(old, map_location='cpu'), new); "
        "if torch.load refuses and you trust the file, add weights_only=False"
    )


@pytest.mark.parametrize("record", ["constants.pkl", "code/__torch__/torch/nn/modules/linear.py"])
def test_torchscript(tmp_path: Path, record: str) -> None:
    path = save(tmp_path / "x.pth", torch.ones(2))
    rewrite_zip(path, {record: b"x"})
    assert error_of(path) == (
        "a TorchScript program, expected a checkpoint: "
        "re-save its weights with torch.save(torch.jit.load(old, map_location='cpu').state_dict(), new)"
    )


def test_another_zip(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("holiday/photo.jpg", b"x")
    assert error_of(path) == "a zip file, but not one that torch.save or minidat wrote"


def test_truncated_anywhere(tmp_path: Path) -> None:
    path = save(tmp_path / "x.pth", {"a": torch.ones(100)})
    content = path.read_bytes()
    for length in range(2, len(content), 13):
        path.write_bytes(content[:length])
        assert error_of(path).startswith("a cut-off or damaged zip file")


@pytest.mark.parametrize("record", ["data.pkl", "data/0"])
def test_a_flipped_bit(tmp_path: Path, record: str) -> None:
    path = save(tmp_path / "x.pth", {"a": torch.ones(100)})
    content, part = bytearray(path.read_bytes()), read_record(path, record)
    content[content.index(part) + len(part) // 2] ^= 16
    path.write_bytes(content)
    assert error_of(path) == (
        f"the record x/{record} is damaged (Bad CRC-32 for file 'x/{record}'): download or copy the file again"
    )


def test_a_missing_storage(tmp_path: Path) -> None:
    path = save(tmp_path / "x.pth", torch.ones(100))
    rewrite_zip(path, {"data/0": None})
    assert error_of(path) == "the record x/data/0 is missing: the file is damaged, download or copy it again"


def test_a_storage_of_another_size(tmp_path: Path) -> None:
    path = save(tmp_path / "x.pth", torch.ones(100))
    rewrite_zip(path, {"data/0": bytes(396)})
    assert error_of(path) == ("storage '0' has 396 bytes, expected 400: the file is damaged, download or copy it again")


def test_a_zip_bomb(tmp_path: Path) -> None:
    path = save(tmp_path / "x.pth", torch.ones(100))
    rewrite_zip(path, {"data/1": bytes(50 << 20)}, compression=zipfile.ZIP_DEFLATED)
    assert error_of(path) == (
        f"its records claim to hold more than its {path.stat().st_size} bytes can: damaged, or a zip bomb"
    )


def test_overlapping_records_are_refused(tmp_path: Path) -> None:
    """A directory that lists the same bytes many times over."""
    path = save(tmp_path / "x.pth", torch.ones(10_000))
    with zipfile.ZipFile(path, "a") as archive:
        entry = archive.getinfo("x/data/0")
        for i in range(1, 50):
            alias = zipfile.ZipInfo(f"x/data/{i}")
            alias.header_offset, alias.CRC = entry.header_offset, entry.CRC
            alias.file_size = alias.compress_size = entry.file_size
            archive.filelist.append(alias)
        archive._didModify = True
    assert error_of(path).startswith("its records claim to hold more")


def test_an_encrypted_zip(tmp_path: Path) -> None:
    path = save(tmp_path / "x.pth", torch.ones(10))
    rewrite_zip(path, {})
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        for match in re.finditer(re.escape(signature), bytes(content)):
            content[match.start() + offset] |= 1
    path.write_bytes(content)
    assert error_of(path).startswith("an encrypted zip file, expected a plain one")


def test_unsupported_tensors(tmp_path: Path) -> None:
    conjugated = torch.ones(2, dtype=torch.complex64).conj()
    assert error_of(save(tmp_path / "x.pth", conjugated)) == (
        "a conjugated or negated view: minidat does not read that, re-save the plain tensors with torch.save"
    )
    bits = torch.zeros(2, dtype=torch.uint8).view(torch.bits8)
    assert error_of(save(tmp_path / "x.pth", bits)).startswith("a tensor of type <placeholder for torch.bits8>: ")


def test_a_tensor_beyond_its_storage(tmp_path: Path) -> None:
    path = save(tmp_path / "x.pth", torch.arange(5))
    program = read_record(path, "data.pkl")
    assert program.count(b"K\x05\x85") == 1  # the shape, (5,)
    rewrite_zip(path, {"data.pkl": program.replace(b"K\x05\x85", b"K\x06\x85")})
    assert re.fullmatch(
        r"data.pkl is damaged or not by PyTorch \(a tensor that reaches element 5 of a storage of 5 at byte \d+\): "
        r"download or copy it again",
        error_of(path),
    )


def test_an_unknown_compression(tmp_path: Path) -> None:
    path = save(tmp_path / "x.pth", torch.ones(10))
    rewrite_zip(path, {}, compression=zipfile.ZIP_BZIP2)
    assert error_of(path) == "the record x/data.pkl has an unknown compression, expected none or deflate"


def test_byteorder_must_be_known(tmp_path: Path) -> None:
    path = save(tmp_path / "x.pth", torch.ones(10))
    rewrite_zip(path, {"byteorder": b"middle"})
    assert error_of(path) == "byteorder: found b'middle', expected little or big"


# --- the pickle machine -----------------------------------------------------------------------------------------------


def run(program: bytes) -> object:
    return PickleMachine(program, {}, lambda identity: identity).run()


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b"", "a value that goes on beyond the end of the pickle at byte 0"),
        (b"\x80\x06.", "pickle protocol 6, expected at most 5, at byte 0"),
        (b"I1\n.", "unknown instruction or memo entry 73 at byte 0"),  # protocol 0
        (b"\x82\x01.", "unknown instruction or memo entry 130 at byte 0"),  # an extension registry's code
        (b"h\x00.", "unknown instruction or memo entry 0 at byte 0"),
        (b".", "an empty stack at byte 0"),
        (b"X\xff\xff\xff\xffab.", "a value that goes on beyond the end of the pickle at byte 0"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fab.", "a value that goes on beyond the end of the pickle at byte 0"),
        (b"\x8b\xff\xff\xff\x7fab.", "a value that goes on beyond the end of the pickle at byte 0"),
        (b"}]]s.", "a key that is a list, expected a text or a number, at byte 3"),
        (b"})\x85\x85]s.", "a key that is a tuple, expected a text or a number, at byte 5"),
        (b"}K\x01a.", "elements for a dict at byte 3"),
        (b"](K\x01K\x02u.", "items for a list at byte 6"),
        (b"}(K\x01u.", "items for a dict at byte 4"),
        (b"])R.", "a call of a list with a tuple at byte 2"),
        (b"cos\nsystem\n]R.", "a call of <placeholder for os.system> with a list at byte 12"),
        (b"K\x01K\x02\x93.", "a class called an int, an int at byte 4"),
        (b"cos\n", "subsection not found at byte 0"),
        (b"ccollections\nOrderedDict\n(K\x01tR.", "an int, expected a list at byte 29"),
    ],
)
def test_damaged_pickles(program: bytes, message: str) -> None:
    with pytest.raises(PickleError) as caught:
        run(program)
    assert str(caught.value) == message


def test_deep_nesting_neither_recurses_nor_overflows() -> None:
    depth = 50_000
    assert type(run(b"]" * depth + b"a" * (depth - 1) + b".")) is list
    assert type(run(b")" + b"\x85" * depth + b".")) is tuple
    nested = run(b"cos\nsystem\n" * 100 + b"b" * 99 + b".")
    assert isinstance(nested, Placeholder)


def test_a_program_without_end_is_stopped() -> None:
    with pytest.raises(PickleError, match="more memory or time than its 2,000,000 bytes are worth"):
        run(b"(" * 2_000_000)


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner)
    | st.sets(st.integers() | st.text()),
    max_leaves=20,
), st.integers(2, 5))  # fmt: skip
def test_plain_values_survive(value: object, protocol: int) -> None:
    assert run(pickle.dumps(value, protocol)) == value


@given(st.binary(max_size=60))
def test_random_programs_end_or_fail_cleanly(program: bytes) -> None:
    with contextlib.suppress(PickleError):
        run(program)


# --- memory, and damaged files ----------------------------------------------------------------------------------------


BUDGET = 4 << 20  # the interpreter's own objects: zip directory, pickle values, config


def test_weights_are_held_once(tmp_path: Path) -> None:
    path = save(tmp_path / "x.pth", {str(i): torch.ones(1 << 20) for i in range(6)})
    assert peak_of(lambda: read_torch_file(path)) < path.stat().st_size + BUDGET
    path = save(tmp_path / "x.pth", {str(i): torch.ones(1 << 20, dtype=torch.float16) for i in range(6)})
    assert peak_of(lambda: read_torch_file(path)) < 2 * path.stat().st_size + 2 * BUDGET  # float32 in the end


def test_what_is_not_selected_is_not_read(tmp_path: Path) -> None:
    path = save(tmp_path / "x.pth", {"model": torch.arange(1000), "optimizer": torch.arange(100_000)})
    content = bytearray(path.read_bytes())
    storage = read_record(path, "data/1")
    content[content.index(storage) + 5] ^= 1  # reading the optimizer would notice
    path.write_bytes(content)
    model = read_torch_file(path, select=lambda value: value["model"])
    np.testing.assert_array_equal(model, np.arange(1000))
    assert error_of(path).startswith("the record x/data/1 is damaged")


def test_tensors_cannot_be_larger_than_the_file(tmp_path: Path) -> None:
    path = save(tmp_path / "x.pth", torch.ones(1).expand(10**15))
    assert error_of(path).startswith("data.pkl is damaged or not by PyTorch (tensors that are much larger together")


@pytest.fixture(scope="module")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("fuzz")
    return save_with_config(folder / "small.pth", {"DATA": {"IMG_SIZE": 32}}).read_bytes()


@st.composite
def mutations(draw: st.DrawFn) -> list[tuple[str, float, bytes]]:
    """Edits of a file: (kind, place as a fraction, bytes)."""
    kinds = st.sampled_from(["replace", "insert", "cut"])
    return draw(st.lists(st.tuples(kinds, st.floats(0, 1), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4))


def mutated(content: bytes, edits: list[tuple[str, float, bytes]]) -> bytes:
    for kind, place, piece in edits:
        at = int(place * len(content))
        if kind == "replace":
            content = content[:at] + piece + content[at + len(piece) :]
        elif kind == "insert":
            content = content[:at] + piece + content[at:]
        else:
            content = content[:at] + content[at + len(piece) * 50 :]
    return content


@quick_fixtures
@given(edits=mutations())
def test_fuzz_bytes_of_a_file(tmp_path: Path, small_file: bytes, edits: list[tuple[str, float, bytes]]) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(mutated(small_file, edits))
    assert peak_of(lambda: load_model(path)) < 2 * len(small_file) + BUDGET


@settings(quick_fixtures, max_examples=60)
@given(edits=mutations())
def test_fuzz_the_pickle_with_valid_checksums(
    tmp_path: Path, small_file: bytes, edits: list[tuple[str, float, bytes]]
) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(small_file)
    rewrite_zip(path, {"data.pkl": mutated(read_record(path, "data.pkl"), edits)})
    assert peak_of(lambda: load_model(path)) < 2 * len(small_file) + BUDGET


@settings(quick_fixtures, max_examples=60)
@given(place=st.floats(0, 1), sizes=st.lists(st.integers(0, 2**33), min_size=1, max_size=3))
def test_fuzz_numbers_of_the_pickle(tmp_path: Path, small_file: bytes, place: float, sizes: list[int]) -> None:
    """Shapes, strides, offsets and counts that are wrong, in a pickle that is otherwise whole."""
    path = tmp_path / "x.pth"
    path.write_bytes(small_file)
    program = read_record(path, "data.pkl")
    numbers = [match.start() for match in re.finditer(rb"K.", program)]
    at = numbers[int(place * (len(numbers) - 1))]
    replacement = b"0".join(b"\x8a\x05" + size.to_bytes(5, "little") for size in sizes)  # each but the last is popped
    rewrite_zip(path, {"data.pkl": program[:at] + replacement + program[at + 2 :]})
    assert peak_of(lambda: load_model(path)) < 2 * len(small_file) + BUDGET


def test_an_unchanged_file_passes_the_fuzzers_checks(tmp_path: Path, small_file: bytes) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(small_file)
    assert load_model(path).config.image_size == (32, 32)
    assert peak_of(lambda: load_model(path)) < 2 * len(small_file) + BUDGET


def test_a_file_that_failed_is_closed(tmp_path: Path) -> None:
    """An open file would be reported as a ResourceWarning, which is an error here."""
    path = save_authors_file(tmp_path / "x.pth")
    rewrite_zip(path, {"data/0": b""})
    with pytest.raises(CheckpointError):
        load_model(path)
    gc.collect()
