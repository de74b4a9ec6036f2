"""`medeid verify`: 0 if all pairs pass, 2 if one fails or cannot be used, 1 for wrong usage."""

import pytest
from PIL import Image
from typer.testing import CliRunner

from medeid.cli import app


def run(*arguments):
    return CliRunner().invoke(app, ["verify", *(str(argument) for argument in arguments)])


@pytest.fixture(scope="module")
def folders(portrait, tmp_path_factory):
    """Sources, and what `medeid deid` made of them; of one there is no result."""
    folder = tmp_path_factory.mktemp("pairs")
    (folder / "in" / "visit").mkdir(parents=True)
    portrait.save(folder / "in" / "visit" / "[one].jpg", quality=95)
    Image.new("RGB", (64, 64)).save(folder / "in" / "black.png")
    options = ["-o", str(folder / "out"), "--recursive", "--steps", "4", "--seed", "1"]
    result = CliRunner().invoke(app, ["deid", str(folder / "in"), *options])
    assert (folder / "out" / "visit" / "[one].png").exists(), result.output
    return folder


def test_what_was_released_passes(folders):
    result = run(folders / "in", folders / "out")
    assert result.exit_code == 0, result.output
    assert "1 of 1 pairs passed" in result.output and "of 1 sources there is no result" in result.output
    assert "[one].jpg" in result.output and "dlib" in result.output


def test_a_pair_of_files(folders):
    result = run(folders / "in" / "visit" / "[one].jpg", folders / "out" / "visit" / "[one].png")
    assert result.exit_code == 0 and "1 of 1 pairs passed" in result.output


def test_a_source_that_lies_among_the_results_fails(folders, portrait, tmp_path):
    portrait.save(tmp_path / "black.png")
    result = run(folders / "in", tmp_path)
    assert result.exit_code == 2 and "0 of 1 pairs passed" in result.output
    portrait.save(tmp_path / "unknown.png")
    (tmp_path / "black.png").unlink()
    result = run(folders / "in", tmp_path)
    assert result.exit_code == 2 and "unknown.png: there is no source of this name" in result.output


def test_a_source_that_is_its_own_result_fails(folders):
    source = folders / "in" / "visit" / "[one].jpg"
    result = run(source, source)
    assert result.exit_code == 2 and "still takes the face for the source's" in result.output


def test_wrong_usage(folders, tmp_path):
    assert run().exit_code == 1
    mixed = run(folders / "in", folders / "in" / "black.png")
    assert mixed.exit_code == 1 and "two files or two folders" in mixed.output
    missing = run(folders / "in", tmp_path / "none")
    assert missing.exit_code == 1 and "no such file or folder" in missing.output
    empty = run(folders / "in", tmp_path)
    assert empty.exit_code == 1 and "holds no result" in empty.output
    unknown = run(folders / "in", folders / "out", "--preserve", "ptosys")
    assert unknown.exit_code == 1 and "did you mean ptosis" in unknown.output
