"""Nothing that was planted in a header is in the written file; what the picture needs is."""

from datetime import datetime

import numpy as np
import pydicom
import pytest
from dicom_samples import BIRTH, NAME, NUMBER, coded, photo, sample, save, srgb_profile
from pydicom import Dataset, config, uid
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from medeid.clinical import dicom_attributes
from medeid.clinical.colour_profile import colours_only
from medeid.clinical.dicom import DicomFile, write_dicom
from medeid.clinical.dicom_pseudonyms import Pseudonyms
from medeid.clinical.images import ImageFileError

PSEUDONYMS = Pseudonyms(b"0123456789abcdef")
PLANTED = (NAME.encode(), NAME.upper().encode(), NUMBER.encode(), BIRTH.encode(), b"73911", b"20240229", b"20240301")


def deidentified(dataset, tmp_path, pseudonyms=PSEUDONYMS, pseudonym=None, checked=False):
    """The written file, from a file."""
    source = DicomFile.read(save(dataset, tmp_path / "source.dcm"), checked)
    write_dicom(source.deidentified(source.frames, pseudonyms, pseudonym), tmp_path / "result.dcm")
    return pydicom.dcmread(tmp_path / "result.dcm")


def planted_value(representation):
    """Something that identifies, of the kind that an attribute takes."""
    text = {
        "AS": "080Y",
        "CS": NAME.upper(),
        "DA": BIRTH,
        "DT": BIRTH + "101112",
        "TM": "101112",
        "UI": "1.2.73911",
    }
    numbers = {"DS": 7391155, "IS": 7391155, "FL": 7391155, "FD": 7391155, "UL": 7391155, "SL": 7391155, "US": 7391}
    return {**text, **numbers}.get(representation, NAME)


def plant_everywhere(dataset, keywords):
    for keyword in keywords:
        tag = pydicom.tag.Tag(keyword)
        representation = pydicom.datadict.dictionary_VR(tag)
        if (
            representation in ("SQ", "OB", "OW", "OF", "OD", "OL", "OV", "UN", "AT", "SS", "UV", "SV")
            or " " in representation
        ):
            continue
        dataset.add_new(tag, representation, planted_value(representation))


def test_nothing_planted_is_in_the_written_file(tmp_path):
    dataset = sample()
    keep = {element.keyword for element in dataset} | {"Rows", "Columns"}
    # Every attribute of the dictionary that can hold text, a date or a UID, but those of the picture itself.
    every = [
        pydicom.datadict.keyword_for_tag(tag)
        for tag in pydicom.datadict.DicomDictionary
        if 0x0008 <= tag >> 16 < 0x7FE0 and tag >> 16 != 0x0028
    ]
    plant_everywhere(dataset, [keyword for keyword in every if keyword and keyword not in keep])
    assert len(dataset) > 3000
    result = deidentified(dataset, tmp_path)
    content = (tmp_path / "result.dcm").read_bytes()
    assert all(planted in (tmp_path / "source.dcm").read_bytes() for planted in PLANTED)
    assert not [planted for planted in PLANTED if planted in content]
    assert len(result) < 100


def test_nested_and_private_attributes_icons_and_annotations_go(tmp_path):
    dataset = sample()
    block = dataset.private_block(0x0029, NAME, create=True)
    block.add_new(1, "LO", NAME)
    inner = Dataset()
    inner.PatientName, inner.TextValue, inner.ReferencedSOPInstanceUID = NAME, NAME, "1.2.3.73911.9"
    inner.OriginalAttributesSequence = [sample()]
    inner.private_block(0x0031, NAME, create=True).add_new(1, "UN", NAME.encode())
    icon = Dataset()
    icon.PixelData = dataset.PixelData[:200]
    icon["PixelData"].VR = "OB"
    for keyword in (
        "OriginalAttributesSequence",
        "ReferencedImageSequence",
        "SourceImageSequence",
        "RequestAttributesSequence",
        "GraphicAnnotationSequence",
        "ContentSequence",
        "WaveformSequence",
        "ReferencedPatientPhotoSequence",
        "AcquisitionContextSequence",
        "OtherPatientIDsSequence",
    ):
        setattr(dataset, keyword, [inner])
    dataset.IconImageSequence = [icon]
    dataset.AnatomicRegionSequence[0].PatientName = NAME
    dataset.add_new(0x50003000, "OW", NAME.encode())
    deidentified(dataset, tmp_path)
    content = (tmp_path / "result.dcm").read_bytes()
    assert not [planted for planted in PLANTED if planted in content]
    assert icon.PixelData[:100] in (tmp_path / "source.dcm").read_bytes()
    assert content.count(icon.PixelData[:60]) == 1  # the picture itself


def test_the_preamble_and_the_file_meta_information_are_new(tmp_path):
    source = save(sample(), tmp_path / "planted.dcm")
    planted = bytearray(source.read_bytes())
    planted[: len(NAME)] = NAME.encode()
    source.write_bytes(planted)
    read = DicomFile.read(source)
    write_dicom(read.deidentified(read.frames, PSEUDONYMS), tmp_path / "result.dcm")
    result = pydicom.dcmread(tmp_path / "result.dcm")
    assert result.preamble == bytes(128)
    assert "SourceApplicationEntityTitle" not in result.file_meta
    assert result.file_meta.MediaStorageSOPInstanceUID == result.SOPInstanceUID


def test_what_the_picture_needs_stays(tmp_path):
    dataset = sample()
    dataset.ImageLaterality, dataset.AcquisitionNumber = "L", 2
    result = deidentified(dataset, tmp_path)
    assert (result.SeriesNumber, result.AcquisitionNumber, result.InstanceNumber) == (3, 2, 4)
    assert list(result.PixelSpacing) == [0.25, 0.125] and list(result.PatientOrientation) == ["L", "F"]
    assert (result.Modality, result.ImageLaterality, result.StudyTime) == ("XC", "L", "101112")
    assert list(result.ImageType) == ["DERIVED", "PRIMARY"]


def test_what_was_done_is_recorded(tmp_path):
    result = deidentified(sample(), tmp_path)
    assert (result.PatientIdentityRemoved, result.RecognizableVisualFeatures) == ("YES", "NO")
    assert (result.BurnedInAnnotation, result.LongitudinalTemporalInformationModified) == ("NO", "MODIFIED")
    recorded = [item.CodeValue for item in result.DeidentificationMethodCodeSequence]
    assert recorded == ["113100", "113102", "113107"]
    looked = deidentified(sample(), tmp_path, checked=True)
    assert "113101" in [item.CodeValue for item in looked.DeidentificationMethodCodeSequence]


def test_two_files_of_a_patient_belong_together(tmp_path):
    first, second = sample(), sample()
    second.SOPInstanceUID, second.StudyDate, second.AcquisitionDateTime = "1.2.3.73911.8", "20240307", "20240302000001"
    first, second = deidentified(first, tmp_path), deidentified(second, tmp_path)
    assert first.StudyInstanceUID == second.StudyInstanceUID and first.SOPInstanceUID != second.SOPInstanceUID
    assert first.PatientID == second.PatientID == first.PatientName != NUMBER
    day = [datetime.strptime(each.StudyDate, "%Y%m%d") for each in (first, second)]
    assert (day[1] - day[0]).days == 7  # over the end of February of a leap year
    moment = [datetime.strptime(each.AcquisitionDateTime[:14], "%Y%m%d%H%M%S") for each in (first, second)]
    assert (moment[1] - moment[0]).total_seconds() == 2
    assert 365 <= (datetime(2024, 2, 29) - day[0]).days <= 3650


def test_another_patient_has_other_codes_and_days(tmp_path):
    other = sample()
    other.PatientID = "MRN8"
    first, other = deidentified(sample(), tmp_path), deidentified(other, tmp_path)
    assert first.PatientID != other.PatientID and first.StudyDate != other.StudyDate


def test_a_pseudonym_is_the_patients_new_name_and_ties_two_records(tmp_path):
    moved = sample()
    moved.PatientID = "another hospital's"
    first, second = (deidentified(each, tmp_path, pseudonym="Übung 7") for each in (sample(), moved))
    assert first.PatientID == first.PatientName == second.PatientID == "Übung 7"
    assert first.StudyDate == second.StudyDate


def test_without_a_key_one_run_agrees_and_the_next_does_not(tmp_path):
    run, next_run = Pseudonyms(), Pseudonyms()
    first, same, other = (deidentified(sample(), tmp_path, each) for each in (run, run, next_run))
    assert first.StudyInstanceUID == same.StudyInstanceUID != other.StudyInstanceUID
    assert first.PatientID == same.PatientID != other.PatientID


def test_patients_without_an_id_are_told_apart_by_their_study(tmp_path):
    nameless, other = sample(), sample()
    nameless.PatientID = other.PatientID = ""
    other.StudyInstanceUID = "1.2.3.73911.22"
    assert deidentified(nameless, tmp_path).PatientID != deidentified(other, tmp_path).PatientID


@pytest.mark.parametrize("pseudonym", ["", " ", "a\\b", "a^b", "a=b", "a\nb", "a" * 65])
def test_a_pseudonym_must_fit_the_header(pseudonym, tmp_path):
    source = DicomFile.read(save(sample(), tmp_path / "source.dcm"))
    with pytest.raises(ValueError, match="1 to 64 characters"):
        source.deidentified(source.frames, PSEUDONYMS, pseudonym)


@pytest.mark.parametrize(
    "keyword, value, expected",
    [
        ("StudyDate", "2024.02.29", 8),  # the form before 1993
        ("StudyDate", "20240230", 0),
        ("StudyDate", "00010101", 0),  # there is no day before
        ("AcquisitionDateTime", "2024022910", 10),
        ("AcquisitionDateTime", "20240229101112.123456+0100", 21),
        ("AcquisitionDateTime", "2024", 0),
        ("StudyTime", "10:11:12", 6),
        ("StudyTime", NAME, 0),
    ],
)
def test_dates_of_all_forms_are_shifted_and_others_emptied(keyword, value, expected, tmp_path):
    dataset = sample()
    with config.disable_value_validation():
        dataset.add_new(keyword, pydicom.datadict.dictionary_VR(keyword), value)
        result = deidentified(dataset, tmp_path)
        assert len(str(result[keyword].value or "")) == expected


@pytest.mark.parametrize(
    "keyword, value",
    [
        ("SeriesNumber", 20240229),  # a date
        ("Laterality", NAME.upper()),
        ("PatientOrientation", [NAME[:3].upper(), "F"]),
        ("FrameOfReferenceUID", None),
    ],
)
def test_values_that_may_identify_are_emptied(keyword, value, tmp_path):
    dataset = sample()
    setattr(dataset, keyword, value)
    result = deidentified(dataset, tmp_path)
    assert keyword in result and not result[keyword].value


def test_codes_are_kept_with_the_meaning_that_the_standard_gives(tmp_path):
    dataset = sample()
    dataset.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [coded(codes.SCT.Left)]
    retired, private = Code("T-D1200", "SRT", ""), Code("1", f"99{NAME}", "")
    dataset.PrimaryAnatomicStructureSequence = [coded(retired), coded(private)]
    result = deidentified(dataset, tmp_path)
    region = result.AnatomicRegionSequence[0]
    assert (region.CodeMeaning, region.AnatomicRegionModifierSequence[0].CodeMeaning) == ("Face", "Left")
    assert [item.CodeMeaning for item in result.PrimaryAnatomicStructureSequence] == ["Face"]


def test_pixel_measures_of_frames_stay_and_nothing_else_of_them(tmp_path):
    dataset = sample(photo(frames=2), sop_class=uid.MultiFrameTrueColorSecondaryCaptureImageStorage)
    measures, shared, frame = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [0.5, 0.5]
    shared.PixelMeasuresSequence = [measures]
    frame.FrameContentSequence = [Dataset()]
    frame.FrameContentSequence[0].FrameComments = NAME
    dataset.SharedFunctionalGroupsSequence, dataset.PerFrameFunctionalGroupsSequence = [shared], [frame, frame]
    dataset.FrameIncrementPointer, dataset.FrameLabelVector = 0x00182002, [NAME, NAME]
    result = deidentified(dataset, tmp_path)
    assert list(result.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing) == [0.5, 0.5]
    assert "PerFrameFunctionalGroupsSequence" not in result
    assert result.FrameIncrementPointer == 0x00182001 and list(result.PageNumberVector) == [1, 2]
    assert NAME.encode() not in (tmp_path / "result.dcm").read_bytes()


def test_the_colour_profile_stays_without_its_texts(tmp_path):
    dataset = sample()
    dataset.ICCProfile = srgb_profile()
    result = deidentified(dataset, tmp_path)
    assert result.ICCProfile.rstrip(b"\0") == colours_only(srgb_profile()).rstrip(b"\0")
    dataset.ICCProfile = NAME.encode()
    assert not deidentified(dataset, tmp_path).ICCProfile


def test_pydicoms_warnings_which_quote_values_are_silenced(tmp_path, caplog, recwarn):
    dataset = sample()
    with config.disable_value_validation():
        dataset.Laterality = f"{NAME} in small letters"
        save(dataset, tmp_path / "planted.dcm")
    assert NAME in pydicom.dcmread(tmp_path / "planted.dcm").Laterality
    assert NAME in caplog.text and NAME in str(recwarn.pop().message)
    caplog.clear()
    recwarn.clear()
    source = DicomFile.read(tmp_path / "planted.dcm")
    assert not source.deidentified(source.frames, PSEUDONYMS).Laterality
    assert not caplog.text and not len(recwarn)


def test_uids_of_the_standard_stay(tmp_path):
    dataset = sample()
    dataset.SynchronizationFrameOfReferenceUID = "1.2.840.10008.15.1.1"  # UTC
    dataset.FrameOfReferenceUID = "1.2.3.73911.5"
    result = deidentified(dataset, tmp_path)
    assert result.SynchronizationFrameOfReferenceUID == "1.2.840.10008.15.1.1"
    assert result.FrameOfReferenceUID == PSEUDONYMS.uid("1.2.3.73911.5")


def test_an_image_without_its_uids_is_refused(tmp_path):
    dataset = sample()
    del dataset.SeriesInstanceUID
    with pytest.raises(ImageFileError, match="lacks a UID"):
        DicomFile.read(save(dataset, tmp_path / "source.dcm"))


def test_the_profile_would_stop_what_the_lists_let_through(monkeypatch, tmp_path):
    """The second net: an attribute that a list should not have had."""
    monkeypatch.setattr(dicom_attributes, "_NUMBERS", (*dicom_attributes._NUMBERS, "PatientWeight"))
    dataset = sample()
    dataset.PatientWeight = 73
    assert not deidentified(dataset, tmp_path).get("PatientWeight")


def test_pydicom_in_its_strictest_mode_takes_the_result(tmp_path, monkeypatch):
    monkeypatch.setattr(config.settings, "reading_validation_mode", config.RAISE)
    monkeypatch.setattr(config.settings, "writing_validation_mode", config.RAISE)
    result = deidentified(sample(), tmp_path)
    assert all(pydicom.valuerep.VR(element.VR) for element in result.iterall())  # every value is read
    assert np.array_equal(result.pixel_array, photo())
