import json
from pathlib import Path

import pytest

from medeid.clinical.batch import FileRecord
from medeid.clinical.run import RECORDS, Run, RunError
from medeid.clinical.sources import PhotoFile

PHOTOS = [PhotoFile(index, Path(f"jane_{index}.jpg"), f"jane_{index}.jpg", f"jane_{index}") for index in range(3)]


def lines(out):
    return [json.loads(line) for line in (out / RECORDS).read_text().splitlines()]


def test_what_is_done_is_not_done_again(tmp_path):
    run = Run(tmp_path, PHOTOS, {"seed": 1})
    assert run.left == PHOTOS
    run.add(PHOTOS[1], FileRecord(1, "released"), "")
    again = Run(tmp_path, PHOTOS, {"seed": 1})
    assert again.left == [PHOTOS[0], PHOTOS[2]] and again.statuses == {1: "released"}


def test_a_line_that_was_cut_short_counts_for_nothing(tmp_path):
    run = Run(tmp_path, PHOTOS, {})
    run.add(PHOTOS[0], FileRecord(0, "released"), "")
    whole = (tmp_path / RECORDS).read_bytes()
    for end in (1, len(whole) // 2, len(whole) - 1):
        (tmp_path / RECORDS).write_bytes(whole + whole[:end])
        assert Run(tmp_path, PHOTOS, {}).statuses == {0: "released"}
        assert (tmp_path / RECORDS).read_bytes() == whole


def test_records_are_in_order_when_all_is_done(tmp_path):
    run = Run(tmp_path, PHOTOS, {})
    for photo in reversed(PHOTOS):
        run.add(photo, FileRecord(photo.index, "no_face"), "no face was found")
    run.finish()
    assert [record["photo"] for record in lines(tmp_path)] == [0, 1, 2]
    assert not list(tmp_path.glob(".*"))


def test_records_of_finished_runs_stay(tmp_path):
    for _ in range(2):
        run = Run(tmp_path, PHOTOS[:1], {})
        assert run.left == PHOTOS[:1]
        run.add(PHOTOS[0], FileRecord(0, "released"), "")
        run.finish()
    assert len(lines(tmp_path)) == 2


def test_why_a_photo_is_missing_is_told_until_it_is_there(tmp_path):
    photo = PhotoFile(0, Path("a.jpg"), "visit/a.jpg", "visit/a")
    for reason, there in (("withheld, since ...", True), ("", False)):
        run = Run(tmp_path, [photo], {})
        run.add(photo, FileRecord(0, "withheld" if reason else "released"), reason)
        run.finish()
        assert (tmp_path / "withheld" / "visit" / "a.txt").exists() == there


@pytest.mark.parametrize("photos, settings", [(PHOTOS[:2], {"seed": 1}), (PHOTOS, {"seed": 2})])
def test_an_unfinished_run_is_not_mixed_with_another(tmp_path, photos, settings):
    Run(tmp_path, PHOTOS, {"seed": 1})
    with pytest.raises(RunError, match="unfinished run of other photos or with other options"):
        Run(tmp_path, photos, settings)


def test_a_damaged_state_is_told(tmp_path):
    Run(tmp_path, PHOTOS, {})
    (tmp_path / ".medeid-run.json").write_text("{")
    with pytest.raises(RunError, match="damaged"):
        Run(tmp_path, PHOTOS, {})


def test_no_name_is_kept_of_an_unfinished_run(tmp_path):
    Run(tmp_path, PHOTOS, {})
    assert b"jane" not in (tmp_path / ".medeid-run.json").read_bytes()
