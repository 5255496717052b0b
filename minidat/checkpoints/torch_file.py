"""Read a PyTorch `.pth` file without PyTorch, and without executing anything in it.

Such a file is a zip of `<name>/data.pkl`, a pickle that describes the object saved, and one uncompressed record
`<name>/data/<key>` for each storage, the flat memory that tensors are views of. The pickle is interpreted by
`PickleMachine`; a tensor is a call of `torch._utils._rebuild_tensor_v2` on a storage, an offset, a shape and strides.

Format: torch/serialization.py and torch/_utils.py of PyTorch 1.6 to 2.13.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import CheckpointError
from ..files.pickle_machine import (
    ALLOWANCE,
    ALLOWANCE_PER_BYTE,
    PickleError,
    PickleMachine,
    Placeholder,
    describe,
)
from .archive import Archive, PathLike, one_line

MAX_PICKLE_BYTES = 64 << 20  # the description alone, without the storages: 0.1 MB for dat_base
MAX_TENSOR_BYTES_PER_FILE_BYTE = 8  # tensors may overlap, but a few bytes may not pose as terabytes
MAX_DIMENSIONS = 64  # NumPy's limit
RECORDS = ("data.pkl", "byteorder", "version", ".format_version", ".storage_alignment", ".data/serialization_id")


@dataclass(frozen=True)
class ElementType:
    """How the numbers of one PyTorch dtype lie in a file, and what they become.

    stored: the NumPy type of their bytes (of their parts, for complex numbers of half precision); result: the type of
    the array; decode: turns an array of `stored` into one of `result`, None where they are the same.
    """

    stored: np.dtype
    result: np.dtype
    itemsize: int
    decode: Callable[[np.ndarray], np.ndarray] | None = None


def _plain(dtype: str) -> ElementType:
    return ElementType(np.dtype(dtype), np.dtype(dtype), np.dtype(dtype).itemsize)


def _eight_bit_float(exponent_bits: int, bias: int, *, special: str) -> ElementType:
    """One of the 8-bit formats of arXiv 2209.05433 (OCP FP8), decoded by a table of its 256 values.

    special: "ieee": the highest exponent means infinity and NaN; "nan": only all ones is NaN; "unsigned zero": only
    minus zero is NaN.
    """
    codes = np.arange(256)
    mantissa_bits = 7 - exponent_bits
    exponents = codes >> mantissa_bits & (1 << exponent_bits) - 1
    fractions = (codes & (1 << mantissa_bits) - 1) / (1 << mantissa_bits)
    magnitudes = np.where(exponents == 0, 2 * fractions, 1 + fractions) * 2.0 ** (exponents - bias)
    if special == "ieee":
        magnitudes[exponents == (1 << exponent_bits) - 1] = np.nan
        magnitudes[(exponents == (1 << exponent_bits) - 1) & (fractions == 0)] = np.inf
    elif special == "nan":
        magnitudes[codes & 127 == 127] = np.nan
    else:
        magnitudes[128] = np.nan
    table = np.where(codes < 128, magnitudes, -magnitudes).astype(np.float32)
    return ElementType(np.dtype(np.uint8), np.dtype(np.float32), 1, lambda stored: table[stored])


def _decode_bfloat16(stored: np.ndarray) -> np.ndarray:
    """bfloat16 is the upper half of a float32."""
    return (stored.astype(np.uint32) << 16).view(np.float32)


def _decode_scale(stored: np.ndarray) -> np.ndarray:
    """float8_e8m0fnu: a bare power of two."""
    return np.where(stored == 255, np.nan, 2.0 ** (stored.astype(np.float64) - 127)).astype(np.float32)


FLOAT32 = np.dtype(np.float32)
ELEMENT_TYPES: dict[str, ElementType] = {
    "float64": _plain("float64"),
    "float32": _plain("float32"),
    "float16": ElementType(np.dtype(np.float16), FLOAT32, 2, lambda stored: stored.astype(np.float32)),
    "bfloat16": ElementType(np.dtype(np.uint16), FLOAT32, 2, _decode_bfloat16),
    "float8_e4m3fn": _eight_bit_float(4, 7, special="nan"),
    "float8_e4m3fnuz": _eight_bit_float(4, 8, special="unsigned zero"),
    "float8_e5m2": _eight_bit_float(5, 15, special="ieee"),
    "float8_e5m2fnuz": _eight_bit_float(5, 16, special="unsigned zero"),
    "float8_e8m0fnu": ElementType(np.dtype(np.uint8), FLOAT32, 1, _decode_scale),
    "complex128": _plain("complex128"),
    "complex64": _plain("complex64"),
    "complex32": ElementType(
        np.dtype(np.float16),
        np.dtype(np.complex64),
        4,
        lambda stored: stored.astype(np.float32).view(np.complex64),
    ),
    "bool": _plain("bool"),
    **{f"{sign}int{bits}": _plain(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
UNTYPED = ElementType(np.dtype(np.uint8), np.dtype(np.uint8), 1)
STORAGE_TYPES: dict[str, ElementType] = {
    "DoubleStorage": ELEMENT_TYPES["float64"],
    "FloatStorage": ELEMENT_TYPES["float32"],
    "HalfStorage": ELEMENT_TYPES["float16"],
    "BFloat16Storage": ELEMENT_TYPES["bfloat16"],
    "ComplexDoubleStorage": ELEMENT_TYPES["complex128"],
    "ComplexFloatStorage": ELEMENT_TYPES["complex64"],
    "LongStorage": ELEMENT_TYPES["int64"],
    "IntStorage": ELEMENT_TYPES["int32"],
    "ShortStorage": ELEMENT_TYPES["int16"],
    "CharStorage": ELEMENT_TYPES["int8"],
    "ByteStorage": ELEMENT_TYPES["uint8"],
    "BoolStorage": ELEMENT_TYPES["bool"],
    "UntypedStorage": UNTYPED,
}


def read_torch_file(path: PathLike, *, select: Callable[[Any], Any] | None = None) -> Any:
    """What `torch.save` wrote to `path`, with NumPy arrays for tensors. Nothing in the file is imported or called.

    Dicts (ordered ones too), lists, tuples, sets, texts and numbers come back as such. Tensors become arrays of the
    same type, but every floating-point type narrower than 32 bits becomes float32. Tensors that share a storage are
    views of the same array, with the strides they had: writing to one changes the others, never the file. Anything
    else, such as a class, an optimizer or a `yacs` config, becomes an inert `Placeholder`.

    `select` picks what is returned out of all there is, before any tensor is read: it sees shapes and types, but no
    numbers yet. Tensors it leaves out take no time and no memory: a file with an optimizer is three times as large as
    its model. Each storage read is held once.

    Raises CheckpointError for a file that is missing, no zip (also PyTorch's format before 1.6), TorchScript, cut off,
    damaged (checksums are verified), or that declares more than it can hold.
    """
    with Archive(path) as archive:
        prefix = _prefix(archive)
        archive.refuse_unknown(lambda name: name in _known(prefix) or name.startswith(f"{prefix}data/"))
        storages = _Storages(archive, prefix)
        program = archive.read(prefix + "data.pkl", limit=MAX_PICKLE_BYTES)
        machine = PickleMachine(
            program,
            storages.functions(),
            storages.find,
            allowance=ALLOWANCE + ALLOWANCE_PER_BYTE * min(len(program), archive.file_bytes),
        )
        try:
            content = machine.run()
        except PickleError as error:
            raise archive.error(f"data.pkl is damaged or not by PyTorch ({error}): download or copy it again") from None
        if select is not None:
            content = select(content)
        del machine  # its memo refers to every tensor, but those that only it knows need not be read
        storages.fill()
    return content


def _known(prefix: str) -> set[str]:
    """The names of what torch.save writes beside the storages."""
    return {prefix + name for name in RECORDS}


def _prefix(archive: Archive) -> str:
    """The folder inside the zip that holds data.pkl, with its slash. Raises CheckpointError if there is no such one."""
    folders = [name[: -len("data.pkl")] for name in archive if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(folders) != 1:
        raise archive.error("a zip file, but not one that torch.save or minidat wrote")
    if folders[0] + "constants.pkl" in archive or any(name.startswith(folders[0] + "code/") for name in archive):
        raise archive.error(
            "a TorchScript program, expected a checkpoint: "
            "re-save its weights with torch.save(torch.jit.load(old, map_location='cpu').state_dict(), new)"
        )
    return folders[0]


@dataclass(eq=False)
class _Storage:
    """One storage: its record, its type (its tensors' one, if it is untyped itself), and a weak link to its array."""

    record: str
    file_bytes: int
    element: ElementType
    array: Callable[[], np.ndarray | None] = lambda: None


class _Storages:
    """The storages of one file. Their arrays are allocated when a tensor needs them, and filled after all is known."""

    def __init__(self, archive: Archive, prefix: str) -> None:
        self.archive = archive
        self.prefix = prefix
        self.known: dict[str, _Storage] = {}
        self.tensor_bytes = 0
        record = prefix + "byteorder"
        order = archive.read(record, limit=16) if record in archive else b"little"
        if order not in (b"little", b"big"):
            raise archive.error(f"byteorder: found {order!r}, expected little or big")
        self.swapped = (order == b"little") != np.dtype("<i4").isnative

    def functions(self) -> dict[tuple[str, str], Callable[..., Any]]:
        """What PyTorch calls to make a tensor, with the arguments after the storage as its pickles give them."""

        def from_type(function: Any, kind: Any, arguments: Any, state: Any) -> Any:
            if not isinstance(function, Placeholder) or (function.module, function.name) not in functions:
                return Placeholder("torch._tensor", "_rebuild_from_type_v2", (function, kind, arguments, state))
            return functions[function.module, function.name](*arguments)

        functions: dict[tuple[str, str], Callable[..., Any]] = {
            ("torch._utils", "_rebuild_tensor"): self.tensor,
            ("torch._utils", "_rebuild_tensor_v2"): self.tensor_v2,
            ("torch._utils", "_rebuild_tensor_v3"): self.tensor_v3,
            ("torch._utils", "_rebuild_parameter"): lambda data, needs_gradient, hooks: data,
            ("torch._utils", "_rebuild_parameter_with_state"): lambda data, needs_gradient, hooks, state: data,
            ("torch._tensor", "_rebuild_from_type_v2"): from_type,
        }
        return functions

    def find(self, identity: Any) -> _Storage:
        """The storage of a persistent id, ("storage", type, key, device, number of elements)."""
        match identity:
            case ("storage", Placeholder(name=name), str(key), _, int(count)):
                pass
            case _:
                raise ValueError(f"{describe(identity)} instead of the name of a storage")
        if name not in STORAGE_TYPES:
            raise self.unsupported(f"a storage of type {name[:40]!a}")
        element, record = STORAGE_TYPES[name], f"{self.prefix}data/{key}"
        file_bytes = self.archive.size(record)
        if count * element.itemsize != file_bytes:
            raise self.archive.error(
                f"storage {key[:40]!a} has {file_bytes} bytes, expected {count * element.itemsize}: "
                "the file is damaged, download or copy it again"
            )
        storage = self.known.setdefault(key, _Storage(record, file_bytes, element))
        if storage.element is not element and element is not UNTYPED:
            raise self.unsupported(f"storage {key[:40]!a} with tensors of two types")
        return storage

    def unsupported(self, what: str) -> CheckpointError:
        return self.archive.error(f"{what}: minidat does not read that, re-save the plain tensors with torch.save")

    def tensor_v2(
        self, storage: Any, offset: Any, shape: Any, strides: Any, gradient: Any, hooks: Any, metadata: Any = None
    ) -> np.ndarray:
        if metadata:
            raise self.unsupported("a conjugated or negated view")
        return self.tensor(storage, offset, shape, strides)

    def tensor_v3(
        self,
        storage: Any,
        offset: Any,
        shape: Any,
        strides: Any,
        gradient: Any,
        hooks: Any,
        dtype: Any,
        metadata: Any = None,
    ) -> np.ndarray:
        """An untyped storage's tensor brings its type along."""
        element = ELEMENT_TYPES.get(dtype.name) if isinstance(dtype, Placeholder) else None
        if element is None:
            raise self.unsupported(f"a tensor of type {describe(dtype)}")
        if not isinstance(storage, _Storage) or storage.file_bytes % element.itemsize:
            raise ValueError("a tensor of something else than a storage of its type")
        if storage.element not in (UNTYPED, element):
            raise self.unsupported("a storage with tensors of two types")
        storage.element = element
        return self.tensor_v2(storage, offset, shape, strides, gradient, hooks, metadata)

    def tensor(self, storage: Any, offset: Any, shape: Any, strides: Any) -> np.ndarray:
        """A view of the storage; `strides` and `offset` are counted in elements."""
        if not isinstance(storage, _Storage) or storage.element is UNTYPED:
            raise ValueError("a tensor of something else than a storage of its type")
        if len(shape) != len(strides) or len(shape) > MAX_DIMENSIONS:
            raise ValueError("a tensor with another number of strides than axes, or too many")
        numbers = (offset, *shape, *strides)
        if not all(type(number) is int and 0 <= number < 2**62 for number in numbers):
            raise ValueError("a tensor with sizes that are not whole positive numbers")
        count = storage.file_bytes // storage.element.itemsize
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        if 0 in shape:
            return np.empty(shape, storage.element.result)
        if last >= count:
            raise ValueError(f"a tensor that reaches element {last} of a storage of {count}")
        self.tensor_bytes += math.prod(shape) * storage.element.itemsize
        if self.tensor_bytes > MAX_TENSOR_BYTES_PER_FILE_BYTE * self.archive.file_bytes:
            raise ValueError("tensors that are much larger together than the file")
        array = storage.array()
        if array is None:
            array = np.empty(count, storage.element.result)
            storage.array = weakref.ref(array)
        itemsize = array.itemsize
        return np.ndarray(shape, array.dtype, array, offset * itemsize, [stride * itemsize for stride in strides])

    def fill(self) -> None:
        """Read the storages that a tensor still refers to into their arrays."""
        for storage in self.known.values():
            array = storage.array()
            if array is None:
                continue
            element = storage.element
            if element.decode is None:
                self.archive.read_into(storage.record, array)
                if self.swapped:
                    array.byteswap(inplace=True)
                continue
            position = 0
            for chunk in self.archive.chunks(storage.record):
                stored = np.frombuffer(chunk, element.stored)
                decoded = element.decode(stored.byteswap() if self.swapped else stored)
                array[position : position + len(decoded)] = decoded
                position += len(decoded)


def model_part(content: Any, path: PathLike) -> dict[str, np.ndarray]:
    """The model's weights in what `read_torch_file` returned: under 'model', under 'state_dict', or the whole of it.

    Raises CheckpointError if there is no dict of names and arrays there: also where a weight would have had to be made
    by calling something.
    """
    state = content
    if isinstance(content, dict):
        state = content.get("model", content.get("state_dict", content))
    if not isinstance(state, dict) or not state:
        raise CheckpointError(
            f"{path}: holds {describe(state)}, expected a dict of weights (model.state_dict()), or one with such a "
            "dict under 'model'"
        )
    for name, value in state.items():
        if type(name) is not str or not isinstance(value, np.ndarray):
            entry = f"'{one_line(name)}'" if type(name) is str else describe(name)
            raise CheckpointError(
                f"{path}: the entry {entry} of the weights is {describe(value)}, expected a tensor: "
                "not a model's checkpoint, or not a safe one"
            )
    return state
