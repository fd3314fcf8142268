"""What programs do whose servers have threads of their own."""

import time


def wait_for_interrupt():
    """
    Wait for Ctrl-C, but not in one wait without an end: a signal that arrives as the main
    thread is about to wait is not heard of before that wait is over.
    """
    while True:
        time.sleep(0.1)
