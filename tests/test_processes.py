"""Work that several processes share."""

import operator
import os

import pytest

from medeid.processes import share_out


def test_each_item_is_done_once():
    assert sorted(share_out(operator.sub, 100, range(30), jobs=2)) == list(range(71, 101))


def test_an_error_ends_it_and_is_told():
    with pytest.raises(ZeroDivisionError):
        list(share_out(operator.truediv, 1, [1, 0, 2], jobs=1))


def test_a_process_calculates_with_one_thread_and_the_environment_is_as_it_was(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    assert list(share_out(os.getenv, "OMP_NUM_THREADS", ["not set"], jobs=1)) == ["1"]
    assert os.environ["OMP_NUM_THREADS"] == "7" and "MKL_NUM_THREADS" not in os.environ


def test_who_stops_listening_stops_the_work():
    results = share_out(operator.add, 1, iter(range(10**9)), jobs=1)
    assert next(results) == 1
    results.close()
