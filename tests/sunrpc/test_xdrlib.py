"""The drop-in xdrlib beside Python's own, where that has one still."""

import importlib
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from sockserve.sunrpc import xdrlib as ours

PACKED: list[tuple[str, tuple[Any, ...]]] = [
    ("uint", (5,)),
    ("uint", (-1,)),
    ("int", (-5,)),
    ("int", ("a",)),
    ("enum", (3,)),
    ("bool", (True,)),
    ("bool", ([],)),
    ("uhyper", (2**64 - 2,)),
    ("hyper", (-2,)),
    ("hyper", ("a",)),
    ("float", (1.5,)),
    ("double", (0.1,)),
    ("double", ("a",)),
    ("fstring", (5, b"abcdefgh")),
    ("fstring", (5, b"ab")),
    ("fstring", (-1, b"ab")),
    ("fopaque", (4, b"abcd")),
    ("string", (b"abcde",)),
    ("opaque", (b"",)),
    ("bytes", (b"ab",)),
]

UNPACKED: list[tuple[str, bytes]] = [
    (name, data)
    for name in ("uint", "int", "enum", "bool", "uhyper", "hyper", "float", "double", "string")
    for data in (b"", b"\0\0\0\3", b"\xff\xff\xff\xff" * 2, b"\0\0\0\5abcde\0\0\0", b"\0\0\0\1abcd")
]


@pytest.fixture
def theirs() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module("xdrlib")
        except ModuleNotFoundError:
            pytest.skip("this Python has no xdrlib")


def outcome(function: Callable[[], Any]) -> Any:
    try:
        return function()
    except Exception as error:
        return type(error).__name__, str(error)


def _packed(module: Any, name: str, arguments: tuple[Any, ...]) -> Any:
    packer = module.Packer()
    packer.pack_uint(1)
    result = outcome(lambda: getattr(packer, f"pack_{name}")(*arguments))
    return result, packer.get_buffer(), packer.get_buf()


@pytest.mark.parametrize(("name", "arguments"), PACKED)
def test_values_are_packed_alike(theirs: ModuleType, name: str, arguments: Any) -> None:
    assert _packed(ours, name, arguments) == _packed(theirs, name, arguments)


def _unpacked(module: Any, name: str, data: bytes) -> Any:
    unpacker = module.Unpacker(data)
    result = outcome(getattr(unpacker, f"unpack_{name}"))
    return repr(result), unpacker.get_position(), outcome(unpacker.done), unpacker.get_buffer()


@pytest.mark.parametrize(("name", "data"), UNPACKED)
def test_bytes_are_unpacked_alike(theirs: ModuleType, name: str, data: bytes) -> None:
    assert _unpacked(ours, name, data) == _unpacked(theirs, name, data)


def test_lists_and_arrays_come_back() -> None:
    packer = ours.Packer()
    packer.pack_list([1, 2], packer.pack_int)
    packer.pack_farray(2, [3, 4], packer.pack_uint)
    packer.pack_array([b"a"], packer.pack_string)
    unpacker = ours.Unpacker(packer.get_buffer())
    assert unpacker.unpack_list(unpacker.unpack_int) == [1, 2]
    assert unpacker.unpack_farray(2, unpacker.unpack_uint) == [3, 4]
    with pytest.raises(ours.Error, match="unextracted data remains"):
        unpacker.done()
    assert unpacker.unpack_array(unpacker.unpack_string) == [b"a"]
    unpacker.done()
    unpacker.set_position(0)
    assert unpacker.unpack_uint() == 1
    packer.reset()
    assert packer.get_buffer() == b""


def test_what_is_no_list_or_array_is_refused() -> None:
    with pytest.raises(ValueError, match="wrong array size"):
        ours.Packer().pack_farray(1, [], print)
    unpacker = ours.Unpacker(b"\0\0\0\2")
    with pytest.raises(ours.ConversionError, match="0 or 1 expected, got 2"):
        unpacker.unpack_list(unpacker.unpack_int)
    with pytest.raises(ValueError, match="nonnegative"):
        unpacker.unpack_fstring(-1)
    assert repr(ours.Error("why")) == "'why'"
