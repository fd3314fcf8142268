"""Drain notices: in threads, and in children."""

import errno
import os
import select
import threading

import pytest

from sockserve.core.deadlines import Deadlines
from sockserve.core.drain_notice import DrainNotice, drain_notice


@pytest.fixture
def notice():
    made = DrainNotice(Deadlines())
    yield made
    made.close()


def is_readable(descriptor):
    return bool(select.select([descriptor], [], [], 0)[0])


def test_it_is_given_until_it_is_taken_back(notice):
    assert not notice.is_given()
    for _ in range(2):
        notice.give()
        assert notice.is_given()
    assert notice.descriptor() == -1
    assert list(notice.descriptors()) == []
    notice.take_back()
    assert not notice.is_given()


def test_its_descriptor_is_readable_once_it_is_given(notice):
    notice.reach_children()
    notice.reach_children()
    descriptor, other = notice.descriptors()
    assert notice.descriptor() == descriptor
    assert not notice.is_given()
    assert not is_readable(descriptor)
    notice.give()
    assert is_readable(descriptor)
    assert notice.is_given()
    notice.take_back()
    for each in (descriptor, other):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(each)


def test_a_child_hears_of_it_whatever_becomes_of_the_parents_descriptors(notice):
    notice.reach_children()
    begun, begins = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(begins, b"\1" if notice.is_given() else b"\0")
        select.select([notice.descriptor()], [], [], 10)
        os._exit(notice.is_given())
    assert os.read(begun, 1) == b"\0"
    notice.give()
    notice.take_back()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    os.close(begun)
    os.close(begins)


def test_one_that_is_forked_afterwards_needs_no_descriptor(notice):
    notice.give()
    notice.reach_children()
    assert notice.descriptor() == -1
    child = os.fork()
    if child == 0:
        os._exit(notice.is_given())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


def test_without_a_descriptor_to_be_had_threads_hear_of_it(notice, monkeypatch):
    def pipe():
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(os, "pipe", pipe)
    notice.reach_children()
    assert notice.descriptor() == -1
    notice.give()
    assert notice.is_given()


def test_it_is_for_the_thread_that_says_so(notice):
    found = []
    other = DrainNotice(Deadlines())
    with notice.for_this_thread():
        with other.for_this_thread():
            assert drain_notice() is other
        assert drain_notice() is notice
        thread = threading.Thread(target=lambda: found.append(drain_notice()))
        thread.start()
        thread.join()
    assert found == [None]
    assert drain_notice() is None
