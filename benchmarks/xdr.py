"""Microseconds to pack or to unpack a value of XDR: ``python -m benchmarks.xdr SHAPE-WAY-WITH``."""

import sys
import timeit
import warnings
from typing import Annotated

from sockserve.sunrpc import Codec, Hyper, Int, Max, Struct, UnsignedInt

with warnings.catch_warnings():  # it is deprecated where Python still has it
    warnings.simplefilter("ignore", DeprecationWarning)
    try:
        from xdrlib import Packer, Unpacker
    except ImportError:  # its rows are "not installed" then
        Packer = Unpacker = None

# The best of many short rounds: on a machine that does other work some have it for themselves.
ROUNDS = 100
EACH = 300


class Pair(Struct):
    x: Int
    y: Int


class Mixed(Struct):
    number: UnsignedInt
    name: Annotated[str, Max(255)]
    size: Hyper
    is_open: bool
    content: Annotated[bytes, Max(1024)]
    place: Pair


class Wide(Struct):
    """File attributes, as NFS version 3 has them, and a name."""

    kind: UnsignedInt
    mode: UnsignedInt
    links: UnsignedInt
    uid: UnsignedInt
    gid: UnsignedInt
    size: Hyper
    used: Hyper
    major: UnsignedInt
    minor: UnsignedInt
    filesystem: Hyper
    number: Hyper
    accessed: UnsignedInt
    accessed_ns: UnsignedInt
    modified: UnsignedInt
    modified_ns: UnsignedInt
    changed: UnsignedInt
    changed_ns: UnsignedInt
    is_hidden: bool
    name: Annotated[str, Max(255)]


FIELDS = (
    *(1, 0o644, 2, 1000, 100, 4096, 8192, 7, 11, 2**40, 12345, 1_700_000_000, 5),
    *(1_700_000_001, 6, 1_700_000_002, 7, True, "a-file-name.txt"),
)
SHAPES = {  # the type, and a value
    "pair": (Pair, Pair(-5, 70_000)),
    "array": (list[Pair], [Pair(number, 70_000 + number) for number in range(20)]),
    "mixed": (Mixed, Mixed(7, "a-file-name", 2**40, True, b"0123456789", Pair(-5, 70_000))),
    "wide": (Wide, Wide(*FIELDS)),
}


# What follows is as fast as a program with xdrlib can be: no call more than one for each field.


def pack_pair(value):
    packer = Packer()
    packer.pack_int(value.x)
    packer.pack_int(value.y)
    return packer.get_buffer()


def unpack_pair(data):
    unpacker = Unpacker(data)
    value = Pair(unpacker.unpack_int(), unpacker.unpack_int())
    unpacker.done()
    return value


def pack_array(values):
    packer = Packer()
    packer.pack_uint(len(values))
    number = packer.pack_int
    for value in values:
        number(value.x)
        number(value.y)
    return packer.get_buffer()


def unpack_array(data):
    unpacker = Unpacker(data)
    number = unpacker.unpack_int
    values = [Pair(number(), number()) for _ in range(unpacker.unpack_uint())]
    unpacker.done()
    return values


def pack_mixed(value):
    packer = Packer()
    packer.pack_uint(value.number)
    packer.pack_string(value.name.encode())
    packer.pack_hyper(value.size)
    packer.pack_bool(value.is_open)
    packer.pack_opaque(value.content)
    place = value.place
    packer.pack_int(place.x)
    packer.pack_int(place.y)
    return packer.get_buffer()


def unpack_mixed(data):
    unpacker = Unpacker(data)
    value = Mixed(
        unpacker.unpack_uint(),
        unpacker.unpack_string().decode(),
        unpacker.unpack_hyper(),
        unpacker.unpack_bool(),
        unpacker.unpack_opaque(),
        Pair(unpacker.unpack_int(), unpacker.unpack_int()),
    )
    unpacker.done()
    return value


def pack_wide(value):
    packer = Packer()
    number, hyper = packer.pack_uint, packer.pack_hyper
    number(value.kind)
    number(value.mode)
    number(value.links)
    number(value.uid)
    number(value.gid)
    hyper(value.size)
    hyper(value.used)
    number(value.major)
    number(value.minor)
    hyper(value.filesystem)
    hyper(value.number)
    number(value.accessed)
    number(value.accessed_ns)
    number(value.modified)
    number(value.modified_ns)
    number(value.changed)
    number(value.changed_ns)
    packer.pack_bool(value.is_hidden)
    packer.pack_string(value.name.encode())
    return packer.get_buffer()


def unpack_wide(data):
    unpacker = Unpacker(data)
    number, hyper = unpacker.unpack_uint, unpacker.unpack_hyper
    value = Wide(
        *(number(), number(), number(), number(), number(), hyper(), hyper(), number(), number()),
        *(hyper(), hyper(), number(), number(), number(), number(), number(), number()),
        *(unpacker.unpack_bool(), unpacker.unpack_string().decode()),
    )
    unpacker.done()
    return value


def contestant(shape, way, with_what):
    """The function of a row, and what it is called with."""
    kind, value = SHAPES[shape]
    codec = Codec(kind)
    data = codec.pack(value)
    argument, answer = (value, data) if way == "pack" else (data, value)
    if with_what == "sockserve":
        function = getattr(codec, way)
    else:
        function = globals()[f"{way}_{shape}"]
    assert function(argument) == answer
    return function, argument


def best(function, argument):
    names = {"function": function, "argument": argument}
    times = timeit.repeat("function(argument)", globals=names, number=EACH, repeat=ROUNDS)
    return min(times) / EACH * 1e6


if __name__ == "__main__":
    print(best(*contestant(*sys.argv[1].split("-"))))
