"""Headers of DICOM photos: checked, built anew from what a picture needs, and taken through PS3.15's profile.

Two nets, one behind the other. First, [`medeid.clinical.dicom_attributes`] lists what goes over into a new header, so
that nothing else has a way in. Second, `dicom-anonymizer` (Kitware) applies the Basic Application Level Confidentiality
Profile to what is left, item by item: it is kept up and the only maintained package that carries Table E.1-1 of PS3.15
itself (edition 2026c), and lets its actions be replaced by keyed ones. `dicognito` keeps whatever it does not know, and
`deid` leaves the rules to a recipe of the user's own.

Applied and recorded: 113100 Basic Profile, 113102 Clean Recognizable Visual Features, 113107 Retain Longitudinal
Temporal Information with Modified Dates; and 113101 Clean Pixel Data where somebody has looked at the pixels.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from dicomanonymizer.simpledicomanonymizer import anonymize_dataset, initialize_actions, keep
from pydicom import Dataset, uid
from pydicom.dataset import FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.tag import Tag

from .dicom_attributes import (
    DATES,
    EMPTIED,
    OTHER_UIDS,
    TIMES,
    UIDS,
    coded_entry,
    copy_listed,
    listed,
    valid_uid,
    value_of,
)
from .dicom_pixels import LOSSY_METHODS
from .dicom_pseudonyms import Pseudonyms
from .images import ImageFileError

_EDITION = "dicomfields_2026c"
_VIDEOS = (uid.VideoPhotographicImageStorage,)
_SOP_CLASSES = (
    uid.VLPhotographicImageStorage,
    uid.OphthalmicPhotography8BitImageStorage,
    uid.OphthalmicPhotography16BitImageStorage,
    uid.SecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    uid.MultiFrameTrueColorSecondaryCaptureImageStorage,
)
# Attributes of Type 2 that every image has, and that are never known of nobody.
_EMPTY = ("PatientBirthDate", "PatientSex", "ReferringPhysicianName", "StudyID", "AccessionNumber", "Manufacturer")


def check_header(dataset: Dataset, burned_in_checked: bool) -> None:
    """Checks that it is a photo with all its UIDs, and that nothing in its pixels but the face identifies anybody.

    Raises:
        ImageFileError: it is not, or that is not known.
    """
    kind = dataset.get("SOPClassUID")
    if kind in _VIDEOS:
        raise ImageFileError("it is a video, but only stills can be used; export frames of it")
    if kind not in _SOP_CLASSES:
        raise ImageFileError(
            "it is no photo: only VL Photographic, Ophthalmic Photography and Secondary Capture images can be used"
        )
    if not all(valid_uid(value_of(dataset, keyword)) for keyword in UIDS):
        raise ImageFileError("its header lacks a UID (SOP Instance, Series or Study); export it again")
    if any(tag.group & 0xFF01 == 0x6000 and tag.element in (0x3000, 0x0102) for tag in dataset.keys()):
        raise ImageFileError("it has overlay planes (60xx), which may hold names; export it without them")
    stated = str(dataset.get("BurnedInAnnotation") or "").strip().upper()
    if stated == "YES":
        raise ImageFileError("it says that text is burned into its pixels; blacken the text and say so in the header")
    if stated != "NO" and not burned_in_checked:
        raise ImageFileError(
            "it does not say whether text is burned into its pixels (Burned In Annotation); look at it, and pass "
            "`burned_in_checked=True` if there is none"
        )


def is_identifier(text: str) -> bool:
    """Whether a text can be a Patient ID and a Patient's Name."""
    return bool(text.strip()) and len(text) <= 64 and text.isprintable() and not set(text) & set("\\^=")


def deidentified_header(
    source: Dataset, burned_in_checked: bool, pseudonyms: Pseudonyms, pseudonym: str | None
) -> Dataset:
    """A header for the de-identified image, all but its pixels.

    Args:
        source (`Dataset`):
            The source's header.
        burned_in_checked (`bool`):
            Whether somebody has looked at the pixels.
        pseudonyms (`Pseudonyms`):
            Where UIDs, dates and codes come from.
        pseudonym (`str`, *optional*):
            What the patient is called in the study.

    Raises:
        Exception: it is damaged; pydicom raises what it likes.
    """
    header = copy_listed(source)
    patient = pseudonym or _patient(source)
    _complete(header, source)
    _apply_profile(header, pseudonyms, patient)
    header.PatientID = header.PatientName = pseudonym or pseudonyms.patient(patient)
    _record(header, burned_in_checked)
    header.file_meta = FileMetaDataset()
    return header


def _patient(source: Dataset) -> str:
    """What tells this patient from others; where there is no Patient ID, the study does."""
    if patient := str(value_of(source, "PatientID") or "").strip():
        return f"{str(value_of(source, 'IssuerOfPatientID') or '').strip()}\0{patient}"
    return f"\0\0{value_of(source, 'StudyInstanceUID')}"


def _complete(header: Dataset, source: Dataset) -> None:
    """What the image must have, and what follows from how it was coded and that it was changed."""
    header.SOPClassUID = source.SOPClassUID
    image_type = listed(value_of(source, "ImageType") or "")
    header.ImageType = ["DERIVED", "SECONDARY" if image_type[1:2] == ["SECONDARY"] else "PRIMARY"]
    header.Modality = header.get("Modality") or "OT"
    if method := LOSSY_METHODS.get(source.file_meta.TransferSyntaxUID):
        header.LossyImageCompression, header.LossyImageCompressionMethod = "01", method
    for keyword in _EMPTY:
        setattr(header, keyword, "")
    header.PatientID = header.PatientName = ""
    frames = source.get("NumberOfFrames") or 1
    if "FrameIncrementPointer" in source:
        vectors = ("FrameTime", "FrameTimeVector", "PageNumberVector")
        present = [keyword for keyword in vectors if header.get(keyword)]
        if not present:
            header.PageNumberVector, present = list(range(1, frames + 1)), ["PageNumberVector"]
        header.FrameIncrementPointer = Tag(present[0])


def _apply_profile(header: Dataset, pseudonyms: Pseudonyms, patient: str) -> None:
    """The Basic Profile, in every item of every sequence."""
    days = timedelta(pseudonyms.days(patient))

    def replace_uid(dataset: Dataset, tag: tuple[int, int]) -> None:
        element = dataset.get(tag)
        # UIDs that the standard defines, such as that of UTC as a time base, are of no instance.
        if element is not None and element.value and element.value.name == element.value:
            element.value = pseudonyms.uid(element.value)

    def shift(dataset: Dataset, tag: tuple[int, int]) -> None:
        element = dataset.get(tag)
        if element is not None and element.value:
            element.value = _shifted(element.value, days)

    def tags(keywords: tuple[str, ...]) -> list[tuple[int, int]]:
        return [(Tag(keyword).group, Tag(keyword).element) for keyword in keywords]

    actions = {tag: replace_uid for tag in tags((*UIDS, *OTHER_UIDS))}
    actions |= {tag: shift for tag in tags(DATES)}
    # Times stay; and what is empty by now is left so, where dicom-anonymizer would put a dummy.
    actions |= {tag: keep for tag in tags((*TIMES, *_EMPTY, *EMPTIED, "PatientID", "PatientName"))}
    rules = initialize_actions(_EDITION) | actions
    for dataset in _with_items(header):
        anonymize_dataset(dataset, base_rules_gen=rules.copy)


def _with_items(dataset: Dataset) -> list[Dataset]:
    nested = [item for element in dataset if element.VR == "SQ" for item in element.value]
    return [dataset, *(each for item in nested for each in _with_items(item))]


def _shifted(moment: str, days: timedelta) -> str:
    """A date some days earlier, at the same time of the day; empty where there is no such day."""
    try:
        day = datetime(int(moment[:4]), int(moment[4:6]), int(moment[6:8])) - days
    except (ValueError, OverflowError):
        return ""
    return f"{day.year:04}{day:%m%d}{moment[8:]}"


def _record(header: Dataset, burned_in_checked: bool) -> None:
    """Says in the header what was done."""
    options = [codes.DCM.BasicApplicationConfidentialityProfile]
    if burned_in_checked:
        options.append(codes.DCM.CleanPixelDataOption)
    options.append(codes.DCM.CleanRecognizableVisualFeaturesOption)
    options.append(codes.DCM.RetainLongitudinalTemporalInformationModifiedDatesOption)
    header.SpecificCharacterSet = "ISO_IR 192"
    header.PatientIdentityRemoved = "YES"
    header.DeidentificationMethod = "medeid"
    header.DeidentificationMethodCodeSequence = [coded_entry(option) for option in options]
    header.LongitudinalTemporalInformationModified = "MODIFIED"
    header.RecognizableVisualFeatures = "NO"
    header.BurnedInAnnotation = "NO"
