"""Replacements agree under one key, and tell nothing under another."""

import pickle

import pytest

from medeid.clinical.dicom_pseudonyms import Pseudonyms

KEY, OTHER = b"0123456789abcdef", b"fedcba9876543210"
UID = "1.2.840.113619.2.5"


def test_one_key_gives_one_replacement():
    one, same = Pseudonyms(KEY), Pseudonyms(KEY)
    assert (one.uid(UID), one.patient("7"), one.days("7")) == (same.uid(UID), same.patient("7"), same.days("7"))
    assert one.uid(UID) != one.uid(UID + ".1") and one.patient("7") != one.patient("8")


def test_another_key_gives_others():
    one, other = Pseudonyms(KEY), Pseudonyms(OTHER)
    assert one.uid(UID) != other.uid(UID) and one.patient("7") != other.patient("7")
    assert [one.days(str(number)) for number in range(5)] != [other.days(str(number)) for number in range(5)]


def test_without_a_key_only_one_run_agrees():
    run, next_run = Pseudonyms(), Pseudonyms()
    assert run.uid(UID) == run.uid(UID) != next_run.uid(UID)
    assert run.patient("7") == run.patient("7") != next_run.patient("7")


def test_uids_are_valid_and_dates_go_back_by_years():
    pseudonyms = Pseudonyms(KEY)
    for number in range(200):
        root, value = pseudonyms.uid(f"{UID}.{number}").rsplit(".", 1)
        assert root == "2.25" and int(value) < 2**128 and str(int(value)) == value
        assert 365 <= pseudonyms.days(str(number)) <= 3650


def test_the_key_is_neither_shown_nor_pickled():
    pseudonyms = Pseudonyms(KEY)
    assert "0123" not in repr(pseudonyms)
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(pseudonyms)
    with pytest.raises(ValueError, match="at least 16 bytes"):
        Pseudonyms(b"short")
