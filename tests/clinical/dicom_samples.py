"""DICOM files made for the tests, of valid images with planted names."""

import numpy as np
from PIL import ImageCms
from pydicom import Dataset, uid
from pydicom.dataset import FileMetaDataset
from pydicom.pixels import set_pixel_data
from pydicom.sr.codedict import codes
from skimage import data

NAME, NUMBER, BIRTH = "Zebediah", "MRN7391155", "19431207"


def photo(bits=8, grey=False, frames=0):
    """Stored values of an image, or of several frames that differ."""
    rgb = data.astronaut()[:40, 100:147].astype(np.uint16)
    values = (rgb * 257 + np.arange(47)[None, :, None]).clip(max=65535) >> (16 - bits)
    values = values[..., 1] if grey else values
    values = values.astype(np.uint8 if bits <= 8 else np.uint16)
    return np.stack([values[::-1] if index % 2 else values for index in range(frames)]) if frames else values


def sample(pixels=None, photometric="RGB", bits=8, sop_class=uid.VLPhotographicImageStorage):
    """A valid image of a patient of whom everything is known."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.file_meta.SourceApplicationEntityTitle = NAME
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, "1.2.3.73911.1"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3.73911.2", "1.2.3.73911.3"
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = f"{NAME}^X", NUMBER, BIRTH
    dataset.PatientSex, dataset.ReferringPhysicianName, dataset.StudyID, dataset.AccessionNumber = "M", NAME, "7", "9"
    dataset.StudyDate, dataset.StudyTime, dataset.ContentDate, dataset.ContentTime = ("20240229", "101112") * 2
    dataset.AcquisitionDateTime = "20240301235959.123456+0100"
    dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = "XC", 3, 4
    dataset.ImageType, dataset.PixelSpacing = ["ORIGINAL", "PRIMARY"], [0.25, 0.125]
    dataset.Manufacturer, dataset.BurnedInAnnotation, dataset.LossyImageCompression = NAME, "NO", "00"
    dataset.Laterality, dataset.PatientOrientation = None, ["L", "F"]
    dataset.AnatomicRegionSequence = [coded(codes.SCT.Face)]
    dataset.AcquisitionContextSequence = []
    set_pixel_data(dataset, photo() if pixels is None else pixels, photometric, bits, generate_instance_uid=False)
    return dataset


def coded(concept):
    entry = Dataset()
    entry.CodeValue, entry.CodingSchemeDesignator, entry.CodeMeaning = concept[0], concept[1], f"of {NAME}"
    return entry


def srgb_profile():
    """A colour profile with a name in its description."""
    made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert "sRGB".encode("utf-16be") in made
    return made.replace("sRGB built-in".encode("utf-16be"), f"{NAME} 1234".encode("utf-16be"))


def save(dataset, path):
    dataset.save_as(path, enforce_file_format=True)
    return path
