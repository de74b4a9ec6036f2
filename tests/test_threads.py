"""Work that several threads share."""

import threading

import pytest

from medeid.threads import in_threads


def test_results_come_in_the_order_of_the_items(threads):
    first_may_end = threading.Event()

    def square(number):
        if number == 0:
            assert first_may_end.wait(10)  # until another thread is done with the second
        else:
            first_may_end.set()
        return number * number

    assert in_threads(square, range(5)) == [0, 1, 4, 9, 16]


def test_the_first_error_is_raised(threads):
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda number: 1 / number, [1, 0, 2])


@pytest.mark.parametrize("threads", [1], indirect=True)
def test_a_process_of_one_thread_starts_no_other(threads):
    assert set(in_threads(lambda _: threading.get_ident(), range(5))) == {threading.get_ident()}


def test_nothing_to_do():
    assert in_threads(lambda _: 1 / 0, []) == []
