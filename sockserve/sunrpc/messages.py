"""
Messages of ONC RPC version 2 (RFC 5531, section 9): calls from bytes, replies to bytes.

This room owns their layout, the reasons for which a call is not served, and credentials.  It must
not know programs, nor how messages come and go.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from sockserve.interfaces import PeerError, SockserveError
from sockserve.sunrpc.xdr.errors import DecodeError
from sockserve.sunrpc.xdr.packing import make_pack
from sockserve.sunrpc.xdr.types import (
    UNSIGNED_INT,
    Array,
    Field,
    StringType,
    StructType,
)
from sockserve.sunrpc.xdr.unpacking import make_unpack

__all__ = [
    "AUTH_NONE",
    "AUTH_SYS",
    "MAX_AUTH_BYTES",
    "RPC_VERSION",
    "AcceptStat",
    "AuthError",
    "AuthStat",
    "AuthSys",
    "Call",
    "MalformedCall",
    "RPCMismatch",
    "accepted",
    "auth_error",
    "make_call",
    "parse_call",
    "program_mismatch",
    "rpc_mismatch",
]

RPC_VERSION = 2

#: Flavors of authentication.
AUTH_NONE, AUTH_SYS = 0, 1

#: The longest body of credentials and verifiers (RFC 5531, section 8.2).
MAX_AUTH_BYTES = 400

_CALL, _REPLY = 0, 1
_ACCEPTED, _DENIED = 0, 1

_START = struct.Struct(">III")
#: From the transaction's number to the length of the credentials.
_HEAD = struct.Struct(">IIIIIIII")
_AUTH = struct.Struct(">II")
#: A reply that is accepted, with an empty verifier, up to its L{AcceptStat}.
_ACCEPTED_HEAD = struct.Struct(">IIIIII")
_DENIED_HEAD = struct.Struct(">IIIII")
_RANGE = struct.Struct(">II")


class AcceptStat(IntEnum):
    """The outcome of a call that was let in (RFC 5531, section 9)."""

    SUCCESS = 0
    PROG_UNAVAIL = 1
    PROG_MISMATCH = 2
    PROC_UNAVAIL = 3
    GARBAGE_ARGS = 4
    SYSTEM_ERR = 5


class AuthStat(IntEnum):
    """The fault of credentials for which a call was not let in (RFC 5531, section 9)."""

    BADCRED = 1
    REJECTEDCRED = 2
    BADVERF = 3
    REJECTEDVERF = 4
    TOOWEAK = 5
    INVALIDRESP = 6
    FAILED = 7


class MalformedCall(PeerError):
    """The error of bytes that are no call, to which there is no answer."""


class AuthError(SockserveError):
    """
    The error of a call that is not served for its credentials: C{verify_request} or a procedure
    raises it.

    @ivar stat: why.
    """

    def __init__(self, stat: AuthStat = AuthStat.TOOWEAK) -> None:
        super().__init__(f"AUTH_{AuthStat(stat).name}")
        self.stat = stat


class RPCMismatch(PeerError):
    """The error of a call in another version of ONC RPC."""


class AuthSys(NamedTuple):
    """
    Credentials of a UNIX system (C{AUTH_SYS}, RFC 5531, appendix A): what the client says of
    itself, which nothing proves.

    @ivar stamp: a number of the client's own.
    @ivar machinename: the client's host, as it calls itself.
    """

    stamp: int
    machinename: str
    uid: int
    gid: int
    gids: list[int]


_AUTH_SYS = StructType(
    AuthSys,
    lambda: [
        Field("stamp", UNSIGNED_INT),
        Field("machinename", StringType(255)),
        Field("uid", UNSIGNED_INT),
        Field("gid", UNSIGNED_INT),
        Field("gids", Array(UNSIGNED_INT, 16)),
    ],
)
_pack_auth_sys, _unpack_auth_sys = make_pack(_AUTH_SYS), make_unpack(_AUTH_SYS)


class Call(NamedTuple):
    """
    A call.

    @ivar xid: the transaction's number, which the client has chosen.
    @ivar flavor: of its credentials: L{AUTH_NONE} or L{AUTH_SYS}.
    @ivar credentials: L{AuthSys}, or None with L{AUTH_NONE}.
    @ivar data: the bytes that it came in.
    @ivar start: where its arguments begin in them.
    """

    xid: int
    program: int
    version: int
    procedure: int
    flavor: int
    credentials: AuthSys | None
    data: bytes
    start: int


def _auth_end(data: bytes, start: int, size: int, stat: AuthStat) -> int:
    """Where C{size} bytes of authentication that begin at C{start} end."""
    end = start + size + -size % 4
    if size > MAX_AUTH_BYTES or end > len(data):
        raise AuthError(stat)
    return end


def parse_call(data: bytes) -> Call:
    """
    The call that C{data} is.

    @raise MalformedCall: it is none.
    @raise RPCMismatch: it is one of another version of ONC RPC.
    @raise AuthError: its credentials are none that are known.
    """
    try:
        xid, kind, rpc_version, program, version, procedure, flavor, size = _HEAD.unpack_from(data)
    except struct.error:
        if len(data) >= _START.size:
            _, kind, rpc_version = _START.unpack_from(data)
            if kind == _CALL and rpc_version != RPC_VERSION:
                raise RPCMismatch(f"version {rpc_version} of RPC") from None
        raise MalformedCall(f"a message of {len(data)} bytes is no call") from None
    if kind != _CALL:
        raise MalformedCall("a message that is no call")
    if rpc_version != RPC_VERSION:
        raise RPCMismatch(f"version {rpc_version} of RPC")
    end = _HEAD.size
    credentials = None
    if size:
        end = _auth_end(data, end, size, AuthStat.BADCRED)
    if flavor == AUTH_SYS:
        try:
            credentials = _unpack_auth_sys(data[_HEAD.size : _HEAD.size + size])
        except DecodeError:
            raise AuthError(AuthStat.BADCRED) from None
    elif flavor != AUTH_NONE:
        raise AuthError(AuthStat.REJECTEDCRED)
    try:
        _, size = _AUTH.unpack_from(data, end)
    except struct.error:
        raise AuthError(AuthStat.BADVERF) from None
    end += _AUTH.size
    if size:
        end = _auth_end(data, end, size, AuthStat.BADVERF)
    return Call(xid, program, version, procedure, flavor, credentials, data, end)


def make_call(
    xid: int,
    program: int,
    version: int,
    procedure: int,
    arguments: bytes = b"",
    credentials: AuthSys | None = None,
) -> bytes:
    """The bytes of a call."""
    flavor, body = AUTH_NONE, b""
    if credentials is not None:
        flavor, body = AUTH_SYS, _pack_auth_sys(credentials)
    head = _HEAD.pack(xid, _CALL, RPC_VERSION, program, version, procedure, flavor, len(body))
    return head + body + _AUTH.pack(AUTH_NONE, 0) + arguments


def accepted(xid: int, stat: AcceptStat, results: bytes = b"") -> bytes:
    """The reply to a call that was let in."""
    return _ACCEPTED_HEAD.pack(xid, _REPLY, _ACCEPTED, AUTH_NONE, 0, stat) + results


def program_mismatch(xid: int, low: int, high: int) -> bytes:
    """The reply to a call of a version that the program does not have."""
    return accepted(xid, AcceptStat.PROG_MISMATCH, _RANGE.pack(low, high))


def rpc_mismatch(data: bytes) -> bytes:
    """The reply to a call, C{data}, in another version of ONC RPC."""
    (xid,) = struct.unpack_from(">I", data)
    return _DENIED_HEAD.pack(xid, _REPLY, _DENIED, 0, RPC_VERSION) + struct.pack(">I", RPC_VERSION)


def auth_error(data: bytes, stat: AuthStat) -> bytes:
    """The reply to a call, C{data}, that was not let in for its credentials."""
    (xid,) = struct.unpack_from(">I", data)
    return _DENIED_HEAD.pack(xid, _REPLY, _DENIED, 1, stat)
