"""A folder is for one set, or one benchmark."""

import json

import pytest

from medeid.data.begun import read_state


def test_a_new_folder_was_begun_with_nothing(tmp_path):
    (tmp_path / ".partial").mkdir()
    assert read_state(tmp_path, "build.json", "set", {"seed": 1}) is None
    assert read_state(tmp_path / "nowhere", "build.json", "set", {"seed": 1}) is None


def test_the_same_arguments_go_on(tmp_path):
    state = {"arguments": {"seed": 1, "size": 64}, "splits": {"train": 3}}
    (tmp_path / "build.json").write_text(json.dumps(state))
    assert read_state(tmp_path, "build.json", "set", {"seed": 1, "size": 64}) == state


@pytest.mark.parametrize(
    ("file_name", "content", "message"),
    [
        ("thesis.txt", "mine", "is not empty, and no set was begun"),
        ("build.json", '{"arguments": {"seed": 2}}', "holds a set that was begun otherwise .seed was 2 and is 1."),
        ("build.json", '{"argum', "is damaged"),
        ("build.json", "[]", "is damaged"),
        ("build.json", '{"arguments": 3}', "is damaged"),
    ],
)
def test_any_other_folder_is_refused(tmp_path, file_name, content, message):
    (tmp_path / file_name).write_text(content)
    with pytest.raises(ValueError, match=message):
        read_state(tmp_path, "build.json", "set", {"seed": 1})
    assert (tmp_path / file_name).read_text() == content
