"""The replies that are kept for clients that ask again."""

from twisted.internet.task import Clock

from sockserve.sunrpc import reply_cache
from sockserve.sunrpc.reply_cache import KEPT_BYTES, KEPT_REPLIES, KEPT_SECONDS, Known, ReplyCache


def test_a_call_that_is_repeated_gets_its_reply_again() -> None:
    cache = ReplyCache(Clock().seconds)
    assert cache.begin("call") is Known.NEW
    assert cache.begin("call") is Known.IN_PROGRESS
    cache.end("call", b"reply")
    assert cache.begin("call") == b"reply"
    assert cache.begin("other") is Known.NEW


def test_a_call_that_had_no_reply_is_new() -> None:
    cache = ReplyCache(Clock().seconds)
    cache.begin("call")
    cache.forget("call")
    assert cache.begin("call") is Known.NEW


def test_a_reply_is_kept_for_its_time() -> None:
    clock = Clock()
    cache = ReplyCache(clock.seconds)
    cache.begin("call")
    cache.end("call", b"reply")
    clock.advance(KEPT_SECONDS - 1)
    assert cache.begin("call") == b"reply"
    clock.advance(1)
    assert cache.begin("call") is Known.NEW
    cache.end("call", b"another")
    assert cache.begin("call") == b"another"
    assert len(cache) == 1


def test_no_more_are_kept_than_their_number_and_bytes_allow() -> None:
    cache = ReplyCache(Clock().seconds)
    for number in range(KEPT_REPLIES + 5):
        cache.begin(number)
        cache.end(number, b"reply")
    assert len(cache) == KEPT_REPLIES
    assert cache.begin(4) is Known.NEW
    assert cache.begin(5) == b"reply"
    large = bytes(KEPT_BYTES // 2)
    for number in range(3):
        cache.end(("large", number), large)
    assert len(cache) == 2
    cache.end("too large", bytes(KEPT_BYTES + 1))
    assert len(cache) == 0


def test_each_server_has_its_own() -> None:
    class Server:
        pass

    one, two = Server(), Server()
    seconds = Clock().seconds
    assert reply_cache.cache_of(one, seconds) is reply_cache.cache_of(one, seconds)
    assert reply_cache.cache_of(one, seconds) is not reply_cache.cache_of(two, seconds)
