"""Interpret a pickle without executing anything: Python's pickle protocols 2 to 5, as data.

A pickle is a program for a small stack machine, and two of its instructions import and call what the file names: that
is how opening a downloaded `.pth` can run somebody's command. This machine has the same stack and memo, but importing
only writes a name down and calling only pairs that name with its arguments. What it does not know becomes a
`Placeholder`.

The instructions are those of the tables in CPython's Lib/pickletools.py. Sizes are checked before anything is
allocated, nothing recurses, and only plain values are hashed. A few bytes can ask for much, by repeating a call that
copies its argument or a key that takes long to hash, so there is a budget: every instruction, copy and hash is paid for
by the bytes it makes or looks at, and a pickle may spend no more than a multiple of its own size.
"""

from __future__ import annotations

import struct
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

HIGHEST_PROTOCOL = 5

# The budget, in bytes. A checkpoint with its optimizer spends some 25 times its pickle.
ALLOWANCE, ALLOWANCE_PER_BYTE = 8 << 20, 64
INSTRUCTION, CALL, ENTRY = 32, 256, 96  # an entry of a dict or a set


class PickleError(Exception):
    """A pickle that is damaged or uses something this machine leaves out. The message says what and where."""


@dataclass(eq=False, repr=False, slots=True)
class Placeholder:
    """A class or function that a pickle names, or an object it would have made with one. Inert: nothing is imported.

    arguments: None for the class or function itself, else what it would have been called with; state: what would have
    become the object's attributes; items and elements: what the pickle stores in the object as in a dict or a list.
    """

    module: str
    name: str
    arguments: tuple[Any, ...] | None = None
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)
    elements: list[Any] = field(default_factory=list)

    @property
    def path(self) -> str:
        """The dotted name, shortened and printable: `yacs.config.CfgNode`."""
        return ascii(f"{self.module}.{self.name}"[:80])[1:-1]

    def __repr__(self) -> str:
        return f"<placeholder for {self.path}>"


Function = Callable[..., Any]


class PickleMachine:
    """Runs one pickle: `PickleMachine(data, functions, persistent_load).run()` is what it describes.

    functions: what stands in for the (module, name) pairs that may be called; they get the pickle's arguments, which
    may be anything, and answer wrong ones with ValueError or TypeError. persistent_load: turns a persistent id into an
    object. `run` raises PickleError for anything that is not a whole, well-formed pickle, and for one that `spent` more
    than its `allowance`.
    """

    def __init__(
        self,
        data: bytes,
        functions: Mapping[tuple[str, str], Function],
        persistent_load: Callable[[Any], Any],
        *,
        allowance: int | None = None,
    ) -> None:
        self.data = data
        self.functions = functions
        self.persistent_load = persistent_load
        self.position = 0
        self.stack: list[Any] = []
        self.outer_stacks: list[list[Any]] = []  # those below each mark
        self.memo: dict[int, Any] = {}
        self.allowance = ALLOWANCE + ALLOWANCE_PER_BYTE * len(data) if allowance is None else allowance
        self.spent = 0
        self.hashes: Counter[int] = Counter()  # of keys: equal ones make a dict slow

    def run(self) -> Any:
        start = 0
        try:
            while True:
                start = self.position
                self.spend(INSTRUCTION)
                opcode = self.take(1)[0]
                if opcode == STOP:
                    return self.stack.pop()
                OPERATIONS[opcode](self)
        except KeyError as error:
            what = f"unknown instruction or memo entry {error}"
        except IndexError:
            what = "an empty stack"
        except (ValueError, TypeError, OverflowError, AttributeError, RecursionError, struct.error) as error:
            what = str(error)
        raise PickleError(f"{' '.join(what.split())[:200]} at byte {start}")

    # --- the budget ---

    def spend(self, amount: int) -> None:
        self.spent += amount
        if self.spent > self.allowance:
            raise ValueError(f"a program that takes more memory or time than its {len(self.data):,} bytes are worth,")

    def spend_on(self, values: tuple[Any, ...]) -> None:
        """Pay for a look at a tuple and at each value in it, but not at what those contain."""
        self.spend(size(values))
        self.spend(sum(map(size, values)))

    def key(self, key: Any) -> Any:
        """`key`, if hashing it is safe (a tuple nested a million times would overflow the stack), and paid for."""
        parts = key if type(key) is tuple else (key,)
        self.spend(ENTRY)
        self.spend_on(parts)
        if not all(part is None or type(part) in (str, bytes, int, float, bool, Placeholder) for part in parts):
            raise ValueError(f"a key that is {describe(key)}, expected a text or a number,")
        if type(key) is not str:  # nobody can choose a text's hash
            self.hashes[hash(key)] += 1
            self.spend(8 * self.hashes[hash(key)])
        return key

    # --- reading the program ---

    def take(self, count: int) -> bytes:
        """The next `count` bytes. Checked first: a size in a damaged file may be anything."""
        end = self.position + count
        if end > len(self.data):
            raise ValueError("a value that goes on beyond the end of the pickle")
        piece = self.data[self.position : end]
        self.position = end
        return piece

    def number(self, size: int) -> int:
        """An unsigned little-endian integer of `size` bytes."""
        return int.from_bytes(self.take(size), "little")

    def line(self) -> str:
        end = self.data.index(b"\n", self.position)
        return self.take(end + 1 - self.position)[:-1].decode("utf-8")

    # --- the stack ---

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        return self.stack.pop()

    def create(self, container: Any) -> None:
        self.spend(sys.getsizeof(container))
        self.push(container)

    def mark(self) -> None:
        self.spend(sys.getsizeof([]))
        self.outer_stacks.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[Any]:
        """The values above the last mark; the stack below it is the current one again."""
        values = self.stack
        self.stack = self.outer_stacks.pop()
        return values

    # --- what the less trivial instructions do ---

    def stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        self.push(reference(module, name))

    def call(self) -> None:
        """REDUCE, and NEWOBJ, which differs only in how Python would make the object."""
        arguments, function = self.pop(), self.pop()
        self.push(self.called(function, arguments))

    def call_with_keywords(self) -> None:
        keywords, arguments, function = self.pop(), self.pop(), self.pop()
        made = self.called(function, arguments)
        if keywords and isinstance(made, Placeholder):
            made.state = keywords
        self.push(made)

    def called(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, Placeholder) or not isinstance(arguments, tuple):
            raise ValueError(f"a call of {describe(function)} with {describe(arguments)}")
        self.spend(CALL)
        self.spend_on(arguments)
        names = (function.module, function.name)
        if function.arguments is None and names in PLAIN_FUNCTIONS:
            return PLAIN_FUNCTIONS[names](self, *arguments)
        if function.arguments is None and names in self.functions:
            return self.functions[names](*arguments)
        return Placeholder(*names, arguments)

    def build(self) -> None:
        """Set an object's attributes. Those of dicts and arrays (a state dict's `_metadata`) are dropped."""
        state = self.pop()
        if isinstance(self.stack[-1], Placeholder):
            self.stack[-1].state = state

    def set_items(self, keys_and_values: list[Any]) -> None:
        target = self.stack[-1]
        items = target.items if isinstance(target, Placeholder) else target
        if not isinstance(items, dict) or len(keys_and_values) % 2:
            raise ValueError(f"items for {describe(target)}")
        for key, value in zip(keys_and_values[::2], keys_and_values[1::2], strict=True):
            items[self.key(key)] = value

    def append_elements(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, set):
            target.update(map(self.key, values))
            return
        elements = target.elements if isinstance(target, Placeholder) else target
        if not isinstance(elements, list):
            raise ValueError(f"elements for {describe(target)}")
        elements.extend(values)

    def load_persistent(self) -> None:
        """BINPERSID: the object that stands outside of the pickle under a name, or a tuple of names."""
        identity = self.pop()
        self.spend(CALL)
        self.spend_on(identity if isinstance(identity, tuple) else (identity,))
        self.push(self.persistent_load(identity))

    def check_protocol(self) -> None:
        protocol = self.number(1)
        if protocol > HIGHEST_PROTOCOL:
            raise ValueError(f"pickle protocol {protocol}, expected at most {HIGHEST_PROTOCOL},")


def describe(value: Any) -> str:
    """What a value is, without printing it: it may be endless."""
    if isinstance(value, Placeholder):
        return repr(value)
    kind = type(value).__name__
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def size(value: Any) -> int:
    """The bytes that copying or hashing a value goes through, what its elements contain apart."""
    if isinstance(value, (str, bytes)):
        return len(value)
    if isinstance(value, (list, tuple, dict, set, frozenset)):
        return 8 * len(value)
    return value.bit_length() // 8 if type(value) is int else 0


def reference(module: Any, name: Any) -> Placeholder:
    if type(module) is not str or type(name) is not str:
        raise ValueError(f"a class called {describe(module)}, {describe(name)}")
    return Placeholder(module, name)


# --- functions that only put plain values together; the machine takes what they spend ---


def _ordered_dict(machine: PickleMachine, pairs: Any = ()) -> dict[Any, Any]:
    return {machine.key(key): value for key, value in _sequence(pairs)}


def _default_dict(machine: PickleMachine, factory: Any = None) -> dict[Any, Any]:
    return {}


def _set(machine: PickleMachine, values: Any = ()) -> set[Any]:
    return set(map(machine.key, _sequence(values)))


def _frozen_set(machine: PickleMachine, values: Any = ()) -> frozenset[Any]:
    return frozenset(_set(machine, values))


def _size(machine: PickleMachine, values: Any = ()) -> tuple[Any, ...]:
    return tuple(_sequence(values))


def _empty_bytes(machine: PickleMachine) -> bytes:
    """How protocol 2 writes b""."""
    return b""


def _encode(machine: PickleMachine, text: Any, encoding: Any = "utf-8") -> bytes:
    """How protocol 2 writes other bytes."""
    if type(text) is not str or encoding not in ("latin1", "utf-8"):
        raise ValueError(f"bytes made of {describe(text)}")
    return text.encode(encoding)


def _sequence(values: Any) -> Any:
    if type(values) not in (list, tuple):
        raise ValueError(f"{describe(values)}, expected a list")
    return values


PLAIN_FUNCTIONS: dict[tuple[str, str], Function] = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("collections", "defaultdict"): _default_dict,
    ("builtins", "set"): _set,
    ("__builtin__", "set"): _set,
    ("builtins", "frozenset"): _frozen_set,
    ("__builtin__", "frozenset"): _frozen_set,
    ("torch", "Size"): _size,
    ("__builtin__", "bytes"): _empty_bytes,
    ("_codecs", "encode"): _encode,
}

# --- the instructions: opcode -> what it does. Comments give pickletools' names. ---

STOP = ord(".")


def _text(size: int) -> Callable[[PickleMachine], None]:
    return lambda machine: machine.push(machine.take(machine.number(size)).decode("utf-8", "surrogatepass"))


def _old_text(size: int) -> Callable[[PickleMachine], None]:
    return lambda machine: machine.push(machine.take(machine.number(size)).decode("latin-1"))


def _bytes(size: int) -> Callable[[PickleMachine], None]:
    return lambda machine: machine.push(machine.take(machine.number(size)))


def _signed(size: int) -> Callable[[PickleMachine], None]:
    return lambda machine: machine.push(int.from_bytes(machine.take(size), "little", signed=True))


def _unsigned(size: int) -> Callable[[PickleMachine], None]:
    return lambda machine: machine.push(machine.number(size))


def _long(size: int) -> Callable[[PickleMachine], None]:
    return lambda machine: machine.push(int.from_bytes(machine.take(machine.number(size)), "little", signed=True))


def _constant(value: Any) -> Callable[[PickleMachine], None]:
    return lambda machine: machine.push(value)


def _last(count: int) -> Callable[[PickleMachine], None]:
    """TUPLE1 to TUPLE3: a tuple of the last values."""

    def operation(machine: PickleMachine) -> None:
        values = [machine.pop() for _ in range(count)]
        machine.push(tuple(reversed(values)))

    return operation


def _remember(size: int) -> Callable[[PickleMachine], None]:
    return lambda machine: machine.memo.update({machine.number(size): machine.stack[-1]})


def _recall(size: int) -> Callable[[PickleMachine], None]:
    return lambda machine: machine.push(machine.memo[machine.number(size)])


def _dict(machine: PickleMachine) -> None:
    values = machine.pop_mark()
    machine.create({})
    machine.set_items(values)


def _append_one(machine: PickleMachine) -> None:
    value = machine.pop()
    machine.append_elements([value])


def _set_one(machine: PickleMachine) -> None:
    value, key = machine.pop(), machine.pop()
    machine.set_items([key, value])


def _discard(machine: PickleMachine) -> None:
    """POP drops the last value, or a mark with nothing above it."""
    if machine.stack:
        machine.pop()
    else:
        machine.pop_mark()


OPERATIONS: dict[int, Callable[[PickleMachine], Any]] = {
    0x80: PickleMachine.check_protocol,  # PROTO
    0x95: lambda machine: machine.take(8),  # FRAME: only a hint for readers that buffer
    # plain values
    ord("N"): _constant(None),  # NONE
    0x88: _constant(True),  # NEWTRUE
    0x89: _constant(False),  # NEWFALSE
    ord("J"): _signed(4),  # BININT
    ord("K"): _unsigned(1),  # BININT1
    ord("M"): _unsigned(2),  # BININT2
    0x8A: _long(1),  # LONG1
    0x8B: _long(4),  # LONG4
    ord("G"): lambda machine: machine.push(struct.unpack(">d", machine.take(8))[0]),  # BINFLOAT
    0x8C: _text(1),  # SHORT_BINUNICODE
    ord("X"): _text(4),  # BINUNICODE
    0x8D: _text(8),  # BINUNICODE8
    ord("U"): _old_text(1),  # SHORT_BINSTRING, Python 2's str
    ord("T"): _old_text(4),  # BINSTRING
    ord("C"): _bytes(1),  # SHORT_BINBYTES
    ord("B"): _bytes(4),  # BINBYTES
    0x8E: _bytes(8),  # BINBYTES8
    0x96: _bytes(8),  # BYTEARRAY8
    # containers
    ord(")"): _constant(()),  # EMPTY_TUPLE
    0x85: _last(1),  # TUPLE1
    0x86: _last(2),  # TUPLE2
    0x87: _last(3),  # TUPLE3
    ord("t"): lambda machine: machine.push(tuple(machine.pop_mark())),  # TUPLE
    ord("]"): lambda machine: machine.create([]),  # EMPTY_LIST
    ord("l"): lambda machine: machine.push(machine.pop_mark()),  # LIST
    ord("a"): _append_one,  # APPEND
    ord("e"): lambda machine: machine.append_elements(machine.pop_mark()),  # APPENDS
    ord("}"): lambda machine: machine.create({}),  # EMPTY_DICT
    ord("d"): _dict,  # DICT
    ord("s"): _set_one,  # SETITEM
    ord("u"): lambda machine: machine.set_items(machine.pop_mark()),  # SETITEMS
    0x8F: lambda machine: machine.create(set()),  # EMPTY_SET
    0x90: lambda machine: machine.append_elements(machine.pop_mark()),  # ADDITEMS
    0x91: lambda machine: machine.push(_frozen_set(machine, machine.pop_mark())),  # FROZENSET
    # the stack and the memo
    ord("("): PickleMachine.mark,  # MARK
    ord("0"): _discard,  # POP
    ord("1"): PickleMachine.pop_mark,  # POP_MARK
    ord("2"): lambda machine: machine.push(machine.stack[-1]),  # DUP
    ord("q"): _remember(1),  # BINPUT
    ord("r"): _remember(4),  # LONG_BINPUT
    0x94: lambda machine: machine.memo.update({len(machine.memo): machine.stack[-1]}),  # MEMOIZE
    ord("h"): _recall(1),  # BINGET
    ord("j"): _recall(4),  # LONG_BINGET
    # names and objects
    ord("c"): lambda machine: machine.push(reference(machine.line(), machine.line())),  # GLOBAL
    0x93: PickleMachine.stack_global,  # STACK_GLOBAL
    ord("R"): PickleMachine.call,  # REDUCE
    0x81: PickleMachine.call,  # NEWOBJ
    0x92: PickleMachine.call_with_keywords,  # NEWOBJ_EX
    ord("b"): PickleMachine.build,  # BUILD
    ord("Q"): PickleMachine.load_persistent,  # BINPERSID
}
