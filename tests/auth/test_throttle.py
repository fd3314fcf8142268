"""How long clients wait whose logins fail."""

import pytest

from sockserve.auth.throttle import (
    FIRST_DELAY_SECONDS,
    LONGEST_DELAY_SECONDS,
    MEMORY_SECONDS,
    MOST_PEERS,
    LoginThrottle,
    peer_key,
)


def test_each_failure_takes_twice_as_long_up_to_a_limit() -> None:
    throttle = LoginThrottle()
    now = 0.0
    delays = []
    for _ in range(8):
        assert throttle.begin("a", now) == 0
        delays.append(throttle.failed("a", now))
        now += delays[-1]
    assert delays == [1, 2, 4, 8, 16, 30, 30, 30]


def test_a_client_that_hangs_up_saves_no_time() -> None:
    throttle = LoginThrottle()
    throttle.failed("a", 0.0)
    assert throttle.begin("a", 0.25) == 0.75


def test_logins_of_one_client_at_once_wait_for_one_another() -> None:
    """After a failure at 0 the next may be at 1, and then one each second: 1, 2, 3 ... 31."""
    throttle = LoginThrottle()
    throttle.failed("a", 0.0)
    waits = [throttle.begin("a", 0.0) for _ in range(31)]
    assert waits[:3] == [1, 2, 3]
    assert waits[29] == LONGEST_DELAY_SECONDS
    assert waits[30] is None


def test_others_do_not_wait() -> None:
    throttle = LoginThrottle()
    throttle.failed("a", 0.0)
    assert throttle.begin("b", 0.0) == 0


def test_a_success_is_not_waited_for_and_does_not_make_failures_unseen() -> None:
    throttle = LoginThrottle()
    throttle.failed("a", 0.0)
    throttle.begin("a", 1.0)
    throttle.succeeded("a", 1.0)
    assert throttle.begin("a", 1.0) == 0
    assert throttle.failed("a", 1.0) == 2 * FIRST_DELAY_SECONDS


def test_failures_are_forgotten() -> None:
    throttle = LoginThrottle()
    throttle.failed("a", 0.0)
    assert throttle.begin("a", MEMORY_SECONDS + 1) == 0
    assert throttle.failed("a", MEMORY_SECONDS + 1) == FIRST_DELAY_SECONDS


def test_only_so_many_clients_are_remembered() -> None:
    throttle = LoginThrottle()
    for peer in range(MOST_PEERS + 1):
        throttle.failed(peer, 0.0)
    assert throttle.begin(0, 0.0) == 0
    assert throttle.begin(1, 0.0) == 1


@pytest.mark.parametrize(
    ("one", "other", "are_same"),
    [
        (("192.0.2.1", 1), ("192.0.2.1", 2), True),
        (("192.0.2.1", 1), ("192.0.2.2", 1), False),
        (("2001:db8::1", 1, 0, 0), ("2001:db8::ffff:2", 1, 0, 0), True),
        (("2001:db8:0:1::1", 1, 0, 0), ("2001:db8:0:2::1", 1, 0, 0), False),
        (("fe80::1%eth0", 1, 0, 2), ("fe80::2", 1, 0, 2), True),
        ("/run/a", "/run/b", False),
    ],
)
def test_clients_are_known_by_their_hosts(one: object, other: object, are_same: bool) -> None:
    assert (peer_key(one) == peer_key(other)) is are_same


@pytest.mark.parametrize("unnamed", ["", b"", None])
def test_a_client_without_a_name_is_known_by_nothing(unnamed: object) -> None:
    assert peer_key(unnamed) is None
