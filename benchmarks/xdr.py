"""Microseconds to pack and unpack a structure of XDR: ``python -m benchmarks.xdr NAME``."""

import sys
import timeit
from typing import Annotated

ROUNDS = 7
EACH = 5_000


#: File attributes, as NFS version 3 has them, and a name.
FIELDS = (
    *(1, 0o644, 2, 1000, 100, 4096, 8192, 7, 11, 2**40, 12345, 1_700_000_000, 5),
    *(1_700_000_001, 6, 1_700_000_002, 7, True, "a-file-name.txt"),
)
KINDS = (
    *("uint",) * 5,
    *("hyper",) * 2,
    *("uint",) * 2,
    *("hyper",) * 2,
    *("uint",) * 6,
    *("bool", "string"),
)


def best(function):
    return min(timeit.repeat(function, number=EACH, repeat=ROUNDS)) / EACH * 1e6


def xdr_sockserve():
    from sockserve import sunrpc
    from sockserve.sunrpc import Hyper, Max, UnsignedInt

    class Attributes(sunrpc.Struct):
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

    value = Attributes(*FIELDS)
    assert sunrpc.pack(Attributes, value) == packed_by_xdrlib(Slow(*FIELDS))
    return best(lambda: sunrpc.unpack(Attributes, sunrpc.pack(Attributes, value)))


class Slow:
    """The same, as a program with xdrlib has it."""

    def __init__(self, *fields):
        self.fields = fields


def packed_by_xdrlib(value):
    import xdrlib

    packer = xdrlib.Packer()
    *numbers, is_hidden, name = value.fields
    for kind, field in zip(KINDS, numbers, strict=False):
        if kind == "uint":
            packer.pack_uint(field)
        else:
            packer.pack_hyper(field)
    packer.pack_bool(is_hidden)
    packer.pack_string(name.encode())
    return packer.get_buffer()


def xdr_xdrlib():
    import xdrlib

    def unpacked(data):
        unpacker = xdrlib.Unpacker(data)
        uint, hyper = unpacker.unpack_uint, unpacker.unpack_hyper
        value = Slow(
            *(uint(), uint(), uint(), uint(), uint(), hyper(), hyper(), uint(), uint()),
            *(hyper(), hyper(), uint(), uint(), uint(), uint(), uint(), uint()),
            *(unpacker.unpack_bool(), unpacker.unpack_string().decode()),
        )
        unpacker.done()
        return value

    value = Slow(*FIELDS)
    assert unpacked(packed_by_xdrlib(value)).fields == FIELDS
    return best(lambda: unpacked(packed_by_xdrlib(value)))


if __name__ == "__main__":
    print(globals()[sys.argv[1].replace("-", "_")]())
