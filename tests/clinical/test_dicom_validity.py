"""Written files pass dicom-validator.

It fetches the standard from the network; here it gets PS3.3's tables of modules and attributes from highdicom's wheel,
which has no conditions: attributes of Type 1C and 2C count as optional.
"""

import importlib.util
import json
from pathlib import Path

import pydicom
import pytest
from dicom_samples import coded, photo, sample, save
from dicom_validator.validator.dicom_info import DicomInfo
from dicom_validator.validator.iod_validator import IODValidator
from dicom_validator.validator.validation_result import ErrorCode
from pydicom import uid
from pydicom.datadict import tag_for_keyword
from pydicom.sr.codedict import codes

from medeid.clinical.dicom import DicomFile, write_dicom
from medeid.clinical.dicom_pseudonyms import Pseudonyms

GREY = (
    uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
)
DEEP = (uid.OphthalmicPhotography16BitImageStorage, uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage)
CLASSES = (
    uid.VLPhotographicImageStorage,
    uid.OphthalmicPhotography8BitImageStorage,
    uid.OphthalmicPhotography16BitImageStorage,
    uid.SecondaryCaptureImageStorage,
    *GREY,
    uid.MultiFrameTrueColorSecondaryCaptureImageStorage,
)


def tag_name(keyword):
    tag = tag_for_keyword(keyword)
    return None if tag is None else f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def module(attributes):
    """One of highdicom's modules, a flat list with paths, as dicom-validator nests it."""
    table = {}
    for attribute in attributes:
        items = table
        for keyword in attribute["path"]:
            items = items.setdefault(tag_name(keyword), {}).setdefault("items", {})
        if tag_name(attribute["keyword"]):
            items.setdefault(tag_name(attribute["keyword"]), {}).update(type=attribute["type"])
    return table


@pytest.fixture(scope="module")
def standard():
    folder = Path(importlib.util.find_spec("highdicom").origin).parent / "_standard"
    kinds, iods, modules = (
        json.loads((folder / f"{name}.json").read_text())
        for name in ("sop_class_iod_map", "iod_module_map", "module_attribute_map")
    )
    used = {each["key"] for kind in CLASSES for each in iods[kinds[kind]]}
    return DicomInfo(
        {},
        {
            kind: {
                "title": kind.name,
                "modules": {each["key"]: {"ref": each["key"], "use": each["usage"]} for each in iods[kinds[kind]]},
                "group_macros": {},
            }
            for kind in CLASSES
        },
        {key: module(modules[key]) for key in used},
    )


class Quiet:
    """A handler of results that prints nothing."""

    def handle_validation_start(self, result):
        pass

    def handle_validation_result(self, result):
        pass


def errors(path, standard):
    result = IODValidator(pydicom.dcmread(path), standard, error_handler=Quiet()).validate()
    assert result.sop_class_uid in standard.iods
    return {
        (name, str(tag)): error.code for name, found in result.module_errors.items() for tag, error in found.items()
    }


def valid_sample(kind):
    """An image of each kind that has all that the standard asks of it."""
    grey, bits = kind in GREY, 16 if kind in DEEP else 8
    several = kind not in (uid.VLPhotographicImageStorage, uid.SecondaryCaptureImageStorage)
    dataset = sample(photo(bits, grey, 2 * several), "MONOCHROME2" if grey else "RGB", bits, kind)
    if several:
        dataset.FrameIncrementPointer, dataset.FrameTime = tag_for_keyword("FrameTime"), 40
    if "Ophthalmic" in kind.keyword:
        dataset.Modality, dataset.ImageLaterality = "OP", "R"
        dataset.SynchronizationFrameOfReferenceUID, dataset.SynchronizationTrigger = "1.2.3.73911.6", "NO TRIGGER"
        dataset.AcquisitionTimeSynchronized, dataset.PatientEyeMovementCommanded = "N", "NO"
        for keyword in ("EmmetropicMagnification", "IntraOcularPressure", "HorizontalFieldOfView", "PupilDilated"):
            setattr(dataset, keyword, None)
        for keyword in ("RefractiveState", "IlluminationTypeCode", "LightPathFilterTypeStackCode", "LensesCode"):
            setattr(dataset, f"{keyword}Sequence", [])
        dataset.ImagePathFilterTypeStackCodeSequence, dataset.DetectorType = [], "CMOS"
        dataset.AcquisitionDeviceTypeCodeSequence = [coded(codes.SCT.FundusCamera)]
        dataset.AnatomicRegionSequence = [coded(codes.SCT.Eye)]
    elif kind != uid.VLPhotographicImageStorage:
        dataset.ConversionType, dataset.Modality = "DI", "OT"
        del dataset.AcquisitionContextSequence
    if grey:
        dataset.PresentationLUTShape, dataset.RescaleType = "IDENTITY", "US"
        dataset.RescaleIntercept, dataset.RescaleSlope = 0, 1
    return dataset


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.keyword)
def test_a_valid_image_becomes_a_valid_image(kind, standard, tmp_path):
    source = DicomFile.read(save(valid_sample(kind), tmp_path / "source.dcm"))
    write_dicom(source.deidentified(source.frames, Pseudonyms()), tmp_path / "result.dcm")
    assert errors(tmp_path / "source.dcm", standard) == {}
    assert errors(tmp_path / "result.dcm", standard) == {}


def test_the_validator_sees_what_is_missing(standard, tmp_path):
    dataset = valid_sample(uid.VLPhotographicImageStorage)
    del dataset.SeriesInstanceUID
    assert list(errors(save(dataset, tmp_path / "source.dcm"), standard).values()) == [ErrorCode.TagMissing]
