"""Which attributes of a DICOM header a picture needs, and how each value is checked before it goes over.

Numbers must be numbers and small, terms one of the standard's, dates and times well formed, UIDs valid, and codes ones
that DICOM or SNOMED CT defines, with the meaning from there and not from the file. So names, private attributes,
comments, icons, overlays, curves, annotations, signatures and original attributes have no way in, wherever they sit.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from pydicom import Dataset, uid
from pydicom.datadict import dictionary_VR
from pydicom.multival import MultiValue
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.valuerep import format_number_as_ds

from .colour_profile import colours_only
from .dicom_pixels import MOST_FRAMES

UIDS = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
OTHER_UIDS = ("FrameOfReferenceUID", "SynchronizationFrameOfReferenceUID")
DATES = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "DateOfSecondaryCapture", "AcquisitionDateTime")
TIMES = ("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime", "TimeOfSecondaryCapture")
_NUMBERS = (
    *("SeriesNumber", "AcquisitionNumber", "InstanceNumber", "ImagesInAcquisition", "RepresentativeFrameNumber"),
    *("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio", "SliceThickness"),
    *("WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept", "LossyImageCompressionRatio"),
    *("FrameTime", "FrameTimeVector", "CineRate", "RecommendedDisplayFrameRate", "PageNumberVector"),
    *("StartTrim", "StopTrim", "PreferredPlaybackSequencing", "FrameDelay"),
    *("EmmetropicMagnification", "IntraOcularPressure", "HorizontalFieldOfView", "DegreeOfDilation"),
)
_MOST = 99_999  # what is larger may be a date or an identifier
_TERMS = {
    "Modality": "XC|OP|OT|ES|GM|SM|DMS|DOC",
    "ConversionType": "DV|DI|DF|WSD|SD|SI|DRW|SYN",
    "Laterality": "[LR]",
    "ImageLaterality": "[LRUB]",
    "PatientOrientation": "[APRLHF]{1,3}",
    "LossyImageCompression": "00|01",
    "LossyImageCompressionMethod": r"ISO_\d{4,5}_\d{1,2}",
    "PresentationLUTShape": "IDENTITY|INVERSE",
    "RescaleType": "US|OD",
    "VOILUTFunction": "LINEAR|LINEAR_EXACT|SIGMOID",
    "ColorSpace": "SRGB|ADOBERGB|ROMMRGB",
    "AcquisitionTimeSynchronized": "[YN]",
    "SynchronizationTrigger": "SOURCE|EXTERNAL|PASSTHRU|NO TRIGGER",
    "PatientEyeMovementCommanded": "YES|NO",
    "PupilDilated": "YES|NO",
    "DetectorType": "CCD|CMOS|PHOTO|INT",
}
_CODES = (
    *("AnatomicRegionSequence", "PrimaryAnatomicStructureSequence", "AcquisitionDeviceTypeCodeSequence"),
    *("IlluminationTypeCodeSequence", "LightPathFilterTypeStackCodeSequence", "ImagePathFilterTypeStackCodeSequence"),
    *("LensesCodeSequence", "PatientEyeMovementCommandCodeSequence", "RelativeImagePositionCodeSequence"),
    "ChannelDescriptionCodeSequence",
)
_MODIFIERS = ("AnatomicRegionModifierSequence", "PrimaryAnatomicStructureModifierSequence")
_MOST_CODES = 8  # in one sequence
_FUNCTIONAL_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
EMPTIED = ("AcquisitionContextSequence", "RefractiveStateSequence", "PositionReferenceIndicator")


def copy_listed(source: Dataset) -> Dataset:
    """The attributes on the lists. One whose value cannot be used is empty."""
    kept = Dataset()
    readers: dict[tuple[str, ...], Callable[[str, Any], Any]] = {
        (*UIDS, *OTHER_UIDS): lambda keyword, value: valid_uid(value),
        DATES: _date,
        TIMES: lambda keyword, value: _time(value),
        _NUMBERS: _numbers,
        tuple(_TERMS): _terms,
        _CODES: lambda keyword, value: _codes(value),
        EMPTIED: lambda keyword, value: None,
        ("ICCProfile",): lambda keyword, value: colours_only(value),
    }
    for keywords, read in readers.items():
        for keyword in keywords:
            if keyword in source:
                setattr(kept, keyword, _read(source, keyword, read))
    for keyword in _FUNCTIONAL_GROUPS:
        items = [_functional_groups(item) for item in value_of(source, keyword) or []]
        if any(items) and len(items) <= MOST_FRAMES:
            setattr(kept, keyword, items)
    return kept


def _read(source: Dataset, keyword: str, read: Callable[[str, Any], Any]) -> Any:
    value = value_of(source, keyword)
    try:
        return None if value is None else read(keyword, value)
    except (ValueError, TypeError, OverflowError):
        return None


def value_of(source: Dataset, keyword: str) -> Any:
    """A value, None where it is empty, unreadable or not of the kind that the attribute has."""
    try:
        element = source[keyword]
    except Exception:  # absent, or pydicom cannot make sense of it
        return None
    return None if element.VR != dictionary_VR(keyword) or element.is_empty else element.value


def listed(value: Any) -> list[Any]:
    """The values of an attribute that may have several."""
    return list(value) if isinstance(value, MultiValue | list) else [value]


def valid_uid(value: Any) -> str | None:
    """A value if it is one UID, None otherwise."""
    return str(value) if isinstance(value, uid.UID) and value.is_valid else None


def _numbers(keyword: str, value: Any) -> list[Any] | None:
    numbers = [float(each) for each in listed(value)]
    if not all(abs(each) <= _MOST for each in numbers):
        return None
    representation = dictionary_VR(keyword)
    if representation in ("IS", "US"):
        return [int(each) for each in numbers]
    return [format_number_as_ds(each) for each in numbers] if representation == "DS" else numbers


def _date(keyword: str, value: Any) -> str | None:
    """A date, or a date with a time; the old form 2020.01.31 too. An offset from UTC tells a place, and goes."""
    time = r"(\d{0,6}|\d{6}\.\d{1,6})([+-]\d{4})?" if keyword.endswith("DateTime") else "()()"
    found = re.fullmatch(r"(\d{4})\.?(\d\d)\.?(\d\d)" + time, str(value).strip())
    return "".join(found.groups("")[:4]) if found else None


def _time(value: Any) -> str | None:
    """A time; the old form 10:20:30 too."""
    text = str(value).strip().replace(":", "")
    return text if re.fullmatch(r"\d\d(\d\d(\d\d(\.\d{1,6})?)?)?", text) else None


def _terms(keyword: str, value: Any) -> list[str] | None:
    terms = [str(each).strip() for each in listed(value)]
    return terms if all(re.fullmatch(_TERMS[keyword], each) for each in terms) else None


def _codes(items: Any, modifiers: tuple[str, ...] = _MODIFIERS) -> list[Dataset]:
    """Those of the coded entries whose code is defined, each with its modifiers."""
    kept = []
    for item in list(items)[:_MOST_CODES]:
        found = _concept(str(value_of(item, "CodeValue")), str(value_of(item, "CodingSchemeDesignator")))
        if found is None:
            continue
        entry = coded_entry(found)
        for keyword in modifiers:
            if modifying := _codes(value_of(item, keyword) or [], modifiers=()):
                setattr(entry, keyword, modifying)
        kept.append(entry)
    return kept


@lru_cache(maxsize=1024)
def _concept(value: str, scheme: str) -> Code | None:
    """A code's entry in pydicom's dictionaries; the retired SRT codes are found as SNOMED CT."""
    sought = Code(value, scheme, "")
    known = (*codes.DCM.concepts.values(), *codes.SCT.concepts.values())
    return next((concept for concept in known if concept == sought), None)


def coded_entry(concept: Code) -> Dataset:
    """The item of a code sequence."""
    entry = Dataset()
    entry.CodeValue = concept.value
    entry.CodingSchemeDesignator = concept.scheme_designator
    entry.CodeMeaning = concept.meaning[:64]
    return entry


def _functional_groups(item: Dataset) -> Dataset:
    """Of what is said about frames, how large their pixels are."""
    kept = Dataset()
    for measures in value_of(item, "PixelMeasuresSequence") or []:
        kept.PixelMeasuresSequence = [copy_listed(measures)]
    return kept
