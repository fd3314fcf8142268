"""
Sun RPC: programs of ONC RPC version 2 (RFC 5531), whose values are XDR (RFC 4506), as request
handlers for streams and datagrams.

This page names what users import; its rooms must not know options or endpoints.

    >>> class Adder(RPCRequestHandler):
    ...     program = 0x20000099
    ...
    ...     @procedure(1)
    ...     async def add(self, a: Int, b: Int) -> Int:
    ...         return a + b
"""

from sockserve.sunrpc.declaring import procedure
from sockserve.sunrpc.handler import RPCRequestHandler
from sockserve.sunrpc.language.loading import load, loads
from sockserve.sunrpc.language.tokens import LanguageError
from sockserve.sunrpc.malformed import KeptCall, MalformedCalls
from sockserve.sunrpc.messages import AuthError, AuthStat, AuthSys, Call, MalformedCall, RPCMismatch
from sockserve.sunrpc.programs import Procedure, Program, Version
from sockserve.sunrpc.records import RecordTooLong
from sockserve.sunrpc.rpcbind import RPCBind, RPCBindService
from sockserve.sunrpc.xdr.codec import Codec, pack, unpack
from sockserve.sunrpc.xdr.declaring import (
    Case,
    Double,
    Fixed,
    Float,
    Hyper,
    Int,
    Max,
    Otherwise,
    Struct,
    Union,
    UnsignedHyper,
    UnsignedInt,
)
from sockserve.sunrpc.xdr.errors import DecodeError, EncodeError, XDRError
from sockserve.sunrpc.xdr.quad import Quad

__all__ = [
    "AuthError",
    "AuthStat",
    "AuthSys",
    "Call",
    "Case",
    "Codec",
    "DecodeError",
    "Double",
    "EncodeError",
    "Fixed",
    "Float",
    "Hyper",
    "Int",
    "KeptCall",
    "LanguageError",
    "MalformedCall",
    "MalformedCalls",
    "Max",
    "Otherwise",
    "Procedure",
    "Program",
    "Quad",
    "RPCBind",
    "RPCBindService",
    "RPCMismatch",
    "RPCRequestHandler",
    "RecordTooLong",
    "Struct",
    "Union",
    "UnsignedHyper",
    "UnsignedInt",
    "Version",
    "XDRError",
    "load",
    "loads",
    "pack",
    "procedure",
    "unpack",
]
