import json

import numpy as np
import pytest

from medeid.data.records import DataSetError, Spelling, read_record
from medeid.manifestations.taxonomy import Finding


def _read(findings, landmarks=None, spelling=None):
    return read_record(
        {"subject_id": "s1", "findings": findings, "landmarks": landmarks}, spelling or Spelling(), "here"
    )


@pytest.fixture
def points() -> np.ndarray:
    """float32 [478, 3]: somewhere on a crop of 256 px."""
    return np.random.default_rng(0).uniform(40, 220, (478, 3)).astype(np.float32)


@pytest.mark.parametrize(
    "written",
    [
        [{"manifestation": "ptosis", "side": "left", "severity": 0.8}, {"manifestation": "jaundice"}],
        ["ptosis:left=0.8", "jaundice"],
        "ptosis:left=0.8; jaundice",
        "Ptosis : Left = 0.8 ;Jaundice;",
        '[{"manifestation": "ptosis", "side": "left", "severity": 0.8}, "jaundice"]',
    ],
)
def test_forms_of_a_list_of_signs(written):
    assert _read(written).findings == (Finding("ptosis", "left", 0.8), Finding("jaundice", "both", 0.6))


@pytest.mark.parametrize("written", [[], "", " ; "])
def test_a_healthy_face(written):
    assert _read(written).findings == ()


@pytest.mark.parametrize(
    ("cell", "severity"),
    [(1, 0.5), ("1", 0.5), (1.0, 0.5), (True, 0.5), ("yes", 0.5), (0.3, 0.3), ("0.3", 0.3)],
)
def test_a_column_of_one_sign(cell, severity):
    spelling = Spelling(columns={"findings": ["ptosis:left"]}, default_severity=0.5)
    row = {"subject_id": "s1", "ptosis:left": cell}
    assert read_record(row, spelling, "here").findings == (Finding("ptosis", "left", severity),)


@pytest.mark.parametrize("cell", [0, "0", 0.0, False, "no", "", None])
def test_a_column_of_an_absent_sign(cell):
    spelling = Spelling(columns={"findings": ["ptosis:left"]})
    assert read_record({"subject_id": "s1", "ptosis:left": cell}, spelling, "here").findings == ()


def test_other_words():
    spelling = Spelling(
        label_map={"Upper lid droop": "ptosis", "bell's palsy, l": "facial_palsy:left", "headache": None}
    )
    record = _read("upper  lid droop:right=0.4; BELL'S PALSY, L; headache; jaundice", spelling=spelling)
    assert record.findings == (Finding("ptosis", "right", 0.4), Finding("facial_palsy", "left"), Finding("jaundice"))
    assert record.words == ("upper  lid droop:right", "BELL'S PALSY, L", "jaundice")
    assert record.left_out and not _read("jaundice", spelling=spelling).left_out


def test_findings_stay_as_they_are_written():
    assert [each.manifestation for each in _read("jaundice").findings] == ["jaundice"]  # the icterus has no mask


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("ptosys", "did you mean ptosis"),
        ("ptosys", "`label_map`"),
        ("jaundice:left", "must be one of both"),
        ("facial_palsy", "must be one of left, right"),
        ("ptosis=1.2", "1.2"),
        ("ptosis=0", "0.0"),
        ("ptosis=severe", "'severe' is no number"),
        ([{"side": "left"}], "no `manifestation`, only: side"),
        ("[{", "Expecting"),
        (None, r"write \[\]"),
        (7, "must be a list"),
        ("; ".join(["naevus"] * 9), "9 findings, but a mask file has room for 8"),
    ],
)
def test_findings_that_cannot_be(written, told):
    with pytest.raises(DataSetError, match=f"here, column `findings`: .*{told}"):
        _read(written)


def test_a_cell_that_cannot_be():
    spelling = Spelling(columns={"findings": ["ptosis", "jaundice"]})
    with pytest.raises(DataSetError, match="column `jaundice`: a severity must lie .* is 3. Divide grades"):
        read_record({"subject_id": "s1", "ptosis": 1, "jaundice": 3}, spelling, "here")
    with pytest.raises(DataSetError, match="column `ptosis`: '0,5' is no number"):
        read_record({"subject_id": "s1", "ptosis": "0,5", "jaundice": ""}, spelling, "here")


def test_landmarks(points):
    assert _read([]).landmarks is None
    for written in (points, points.tolist(), json.dumps(points.tolist())):
        landmarks = _read([], written).landmarks
        assert landmarks.dtype == np.float32
        np.testing.assert_array_equal(landmarks, points)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda points: points[:468], r"shape \[478, 3\], but has \[468, 3\]"),
        (lambda points: points.tolist()[:-1] + [[1.0, 2.0]], "nested lists"),
        (lambda points: "[[1, 2", "nested lists"),
        (lambda points: points / 256, "Multiply shares"),
        (lambda points: points * 4, "outside of the picture"),
        (lambda points: points - 150, "outside of the picture"),
        (lambda points: np.where(np.arange(3) == 2, np.nan, points), "not finite"),
    ],
)
def test_landmarks_that_cannot_be(points, change, told):
    with pytest.raises(DataSetError, match=f"here, column `landmarks`: .*{told}"):
        _read([], change(points))


def test_optional_columns():
    spelling = Spelling(columns={"sex": "gender", "camera": "device"})
    row = {"subject_id": 12, "findings": [], "gender": "f", "device": "x100", "seed": "7", "name": "unread"}
    record = read_record(row, spelling, "here")
    assert record.subject_id == "12"
    assert record.optional == {
        "seed": 7, "source": None, "skin_tone": None, "sex": "f", "group": None, "camera": "x100",
    }  # fmt: skip
    with pytest.raises(DataSetError, match="column `seed`: must be an integer"):
        read_record(row | {"seed": "x"}, spelling, "here")


def test_a_row_without_a_subject():
    with pytest.raises(DataSetError, match="column `subject_id`: is empty"):
        read_record({"subject_id": " ", "findings": []}, Spelling(), "here")
    with pytest.raises(DataSetError, match="no column `subject_id`; there are: findings, mrn"):
        read_record({"findings": [], "mrn": "1"}, Spelling(), "here")


def test_spellings_that_cannot_be():
    with pytest.raises(ValueError, match="`label_map` of 'lid droop': .*did you mean ptosis"):
        Spelling(label_map={"lid droop": "ptosys"})
    with pytest.raises(ValueError, match="`default_severity`"):
        Spelling(default_severity=0.0)
    with pytest.raises(ValueError, match="`columns` maps 'sex'"):
        Spelling(columns={"sex": ["m", "f"]})
