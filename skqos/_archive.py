"""Reading archives of ``torch.save`` without running code or allocating memory that they request.

``torch.load`` interprets a pickle. Even if this is limited to tensors, the file determines how much
memory is allocated. This module reads only the few operations that plain data needs, and allocates
no more memory for tensors than the file contains.
"""

from __future__ import annotations

import io
import math
import pickletools
import sys
import zipfile
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

FOLDER = "archive/"
DTYPES = {
    "torch DoubleStorage": torch.float64,
    "torch FloatStorage": torch.float32,
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
    "torch LongStorage": torch.int64,
    "torch IntStorage": torch.int32,
    "torch ShortStorage": torch.int16,
    "torch CharStorage": torch.int8,
    "torch ByteStorage": torch.uint8,
    "torch BoolStorage": torch.bool,
}
TENSOR = "torch._utils _rebuild_tensor_v2"
NO_HOOKS = "collections OrderedDict"
VALUES = ("BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT")
MAX_EMPTY_SIZE = 2**20
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


def read_archive(content: bytes) -> Any:
    """Read plain data that ``torch.save`` wrote.

    Parameters
    ----------
    content : bytes
        The archive.

    Returns
    -------
    object
        None, booleans, numbers, strings and tensors in lists, tuples and dicts with strings as
        keys. Tensors are on the CPU; nothing contains itself.

    Raises
    ------
    Exception
        Any exception, if the archive contains anything else.
    """
    records = _Records(content)
    if records.read("byteorder") != sys.byteorder.encode():
        raise ValueError("a machine of another byte order wrote it")
    return _Reader(records).read(bytes(records.read("data.pkl")))


class _Records:
    """The records of an archive, which need no more memory than the file."""

    def __init__(self, content: bytes) -> None:
        self._file = zipfile.ZipFile(io.BytesIO(content))
        entries = self._file.infolist()
        self._entries = {entry.filename: entry for entry in entries}
        is_plain = all(
            entry.compress_type == zipfile.ZIP_STORED and entry.compress_size == entry.file_size
            for entry in entries
        )
        if not is_plain or len(self._entries) < len(entries):
            raise ValueError("its records are compressed or have the same name")
        if sum(entry.file_size for entry in entries) > len(content):
            raise ValueError("its records claim more than the file holds")

    def read(self, name: str) -> bytearray:
        """Read a record, once."""
        entry = self._entries.pop(FOLDER + name, None)
        if entry is None:
            raise ValueError(f"its record {name!r:.40} is missing or used twice")
        record = bytearray(entry.file_size)
        with self._file.open(entry) as file:
            n_read = file.readinto(record)
            # The checksum of the record is compared at the end of reading.
            if n_read != entry.file_size or file.read(1):
                raise ValueError(f"its record {name!r:.40} is incomplete")
        return record


class _Name(str):
    """Name of a class or function, which is never called."""

    __slots__ = ()


class _Reader:
    """Interpreter of the operations of plain data; any other operation raises an error."""

    def __init__(self, records: _Records) -> None:
        self._records = records
        self._stack: list[Any] = []
        # Stacks below the open marks.
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def read(self, pickled: bytes) -> Any:
        """Interpret all operations, and return the result."""
        operations: dict[str, Callable[[Any], None]] = {
            **dict.fromkeys(VALUES, self._push),
            "GLOBAL": lambda name: self._push(_Name(name)),
            "MARK": self._mark,
            "EMPTY_LIST": lambda _: self._push([]),
            "EMPTY_DICT": lambda _: self._push({}),
            "EMPTY_TUPLE": lambda _: self._push(()),
            "TUPLE1": lambda _: self._push(tuple(self._pop(1))),
            "TUPLE2": lambda _: self._push(tuple(self._pop(2))),
            "TUPLE3": lambda _: self._push(tuple(self._pop(3))),
            "TUPLE": lambda _: self._push(tuple(self._pop_to_mark())),
            "APPEND": lambda _: self._append(self._pop(1)),
            "APPENDS": lambda _: self._append(self._pop_to_mark()),
            "SETITEM": lambda _: self._set_items(self._pop(2)),
            "SETITEMS": lambda _: self._set_items(self._pop_to_mark()),
            "BINPUT": self._remember,
            "LONG_BINPUT": self._remember,
            "BINGET": self._recall,
            "LONG_BINGET": self._recall,
            "BINPERSID": self._storage,
            "REDUCE": self._call,
            "PROTO": lambda _: None,
        }
        for operation, argument, _ in pickletools.genops(pickled):
            if operation.name == "STOP":
                break
            if operation.name in CONSTANTS:
                self._push(CONSTANTS[operation.name])
            elif operation.name in operations:
                operations[operation.name](argument)
            else:
                raise ValueError(f"it asks for the operation {operation.name}")
        if self._below or len(self._stack) != 1:
            raise ValueError("its data are incomplete")
        return self._stack[0]

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self, n: int) -> list[Any]:
        if len(self._stack) < n:
            raise ValueError("its data are incomplete")
        values = self._stack[-n:]
        del self._stack[-n:]
        return values

    def _mark(self, _: None) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _pop_to_mark(self) -> list[Any]:
        values, self._stack = self._stack, self._below.pop()
        return values

    def _append(self, values: list[Any]) -> None:
        _of_type(self._stack[-1], list).extend(values)

    def _set_items(self, values: list[Any]) -> None:
        keys = [_of_type(key, str) for key in values[::2]]
        _of_type(self._stack[-1], dict).update(zip(keys, values[1::2], strict=True))

    def _remember(self, number: int) -> None:
        self._memo[number] = self._stack[-1]

    def _recall(self, number: int) -> None:
        value = self._memo[number]
        # A container may occur only once; otherwise it could contain itself or grow without limit.
        if not isinstance(value, str):
            raise ValueError("a part of it is in two places")
        self._push(value)

    def _storage(self, _: None) -> None:
        """Return the values of a storage as a 1-D tensor."""
        word, kind, key, _, n_values = _of_type(self._pop(1)[0], tuple)
        if word != "storage" or type(kind) is not _Name or kind not in DTYPES:
            raise ValueError(f"it holds numbers of the kind {kind!r:.60}")
        record, dtype = self._records.read(f"data/{key}"), DTYPES[kind]
        if len(record) != n_values * dtype.itemsize:
            raise ValueError("a tensor claims another size than it has")
        self._push(_values(record, dtype))

    def _call(self, _: None) -> None:
        """Create a tensor from a storage, the only object that can be created."""
        name, arguments = self._pop(2)
        if type(name) is _Name and name == NO_HOOKS and arguments == ():
            self._push(())
        elif type(name) is _Name and name == TENSOR:
            values, start, shape, strides, _, _ = arguments
            if start != 0:
                raise ValueError("a tensor does not begin where its numbers do")
            self._push(_view(_of_type(values, Tensor), shape, strides))
        else:
            raise ValueError(f"it asks to call {name!r:.60}")


def _of_type(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"a {type(value).__name__} is where a {kind.__name__} should be")
    return value


def _values(record: bytearray, dtype: torch.dtype) -> Tensor:
    if not record:
        return torch.empty(0, dtype=dtype)
    if dtype == torch.bool:
        # Bytes may have any value, but torch expects 0 and 1.
        return torch.frombuffer(record, dtype=torch.uint8) != 0
    return torch.frombuffer(record, dtype=dtype)


def _view(values: Tensor, shape: tuple[int, ...], strides: tuple[int, ...]) -> Tensor:
    """Return all values in the given shape."""
    for sizes in (shape, strides):
        if any(_of_type(size, int) < 0 for size in _of_type(sizes, tuple)):
            raise ValueError("a tensor has a negative size")
    # Also without values, an axis must not be long, because loops over it would not end.
    is_long = sum(shape) > MAX_EMPTY_SIZE + values.numel()
    if math.prod(shape) != values.numel() or len(shape) != len(strides) or is_long:
        raise ValueError("a tensor claims another size than it has")
    last = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if values.numel() == 0:
        return values.reshape(shape)
    if last >= values.numel():
        raise ValueError("a tensor claims another size than it has")
    return values.as_strided(shape, strides)
