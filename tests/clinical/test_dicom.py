"""Pixels come out as they are shown, and go back bit for bit; whatever is wrong with a file gets one clear error."""

import hashlib
import random
import sys

import numpy as np
import pydicom
import pytest
from dicom_samples import NAME, photo, sample, save
from PIL import Image
from pydicom import uid
from pydicom.data import get_testdata_file

from medeid.clinical import dicom_pixels
from medeid.clinical.dicom import DicomFile, is_dicom, write_dicom
from medeid.clinical.dicom_pseudonyms import Pseudonyms
from medeid.clinical.images import ImageFileError
from medeid.photos import Photo

PSEUDONYMS = Pseudonyms(b"0123456789abcdef")


def palette_sample(bits):
    dataset = sample(photo(grey=True), "PALETTE COLOR", sop_class=uid.SecondaryCaptureImageStorage)
    ramp = (np.arange(256, dtype=np.uint16) << (bits - 8)).astype(f"<u{bits // 8}")
    for index, colour in enumerate(("Red", "Green", "Blue")):
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, bits])
        setattr(dataset, f"{colour}PaletteColorLookupTableData", np.roll(ramp, 9 * index).tobytes())
    return dataset


def subsampled():
    """YBR_FULL_422 holds a colour for two pixels, so neighbours agree in it."""
    return np.repeat(photo()[:, :15], 2, axis=1)


SAMPLES = {
    "RGB": lambda: sample(),
    "RGB frames": lambda: sample(photo(frames=3), sop_class=uid.MultiFrameTrueColorSecondaryCaptureImageStorage),
    "RGB 16 bits": lambda: sample(photo(16), bits=16, sop_class=uid.OphthalmicPhotography16BitImageStorage),
    "RGB 12 bits": lambda: sample(photo(12), bits=12, sop_class=uid.OphthalmicPhotography16BitImageStorage),
    "YBR_FULL": lambda: sample(photo(), "YBR_FULL"),
    "YBR_FULL_422": lambda: sample(subsampled(), "YBR_FULL_422"),
    "MONOCHROME1": lambda: sample(photo(grey=True), "MONOCHROME1"),
    "MONOCHROME1 12 bits": lambda: sample(photo(12, grey=True), "MONOCHROME1", 12),
    "MONOCHROME2": lambda: sample(photo(grey=True), "MONOCHROME2"),
    "MONOCHROME2 8 of 16 bits": lambda: sample(photo(grey=True).astype(np.uint16), "MONOCHROME2"),
    "MONOCHROME2 7 bits": lambda: sample(photo(7, grey=True), "MONOCHROME2", 7),
    "MONOCHROME2 16 bits": lambda: sample(
        photo(16, grey=True, frames=2),
        "MONOCHROME2",
        16,
        uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    ),
    "one frame of many": lambda: sample(
        photo(grey=True, frames=1), "MONOCHROME2", 8, uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage
    ),
    "PALETTE COLOR": lambda: palette_sample(8),
    "PALETTE COLOR 16 bits": lambda: palette_sample(16),
}


def shown(path):
    """What pydicom shows of a file, in RGB or grey."""
    dataset = pydicom.dcmread(path)
    pixels = dataset.pixel_array
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        return pydicom.pixels.apply_color_lut(pixels, dataset)
    return pixels


@pytest.fixture(params=SAMPLES)
def path(request, tmp_path):
    return save(SAMPLES[request.param](), tmp_path / "source.dcm")


def test_unchanged_frames_come_back_bit_for_bit(path, tmp_path):
    source = DicomFile.read(path)
    write_dicom(source.deidentified(source.frames, PSEUDONYMS), tmp_path / "result.dcm")
    result = pydicom.dcmread(tmp_path / "result.dcm")
    assert np.array_equal(result.pixel_array, shown(path))
    assert result.file_meta.TransferSyntaxUID == uid.ExplicitVRLittleEndian
    before = pydicom.dcmread(path)
    grey = before.PhotometricInterpretation.startswith("MONOCHROME")
    assert result.PhotometricInterpretation == (before.PhotometricInterpretation if grey else "RGB")
    assert result.PixelSpacing == before.PixelSpacing
    assert result.get("NumberOfFrames") == before.get("NumberOfFrames")
    if before.PhotometricInterpretation != "PALETTE COLOR":
        assert (result.BitsAllocated, result.BitsStored) == (before.BitsAllocated, before.BitsStored)


def test_only_the_changed_pixels_of_each_frame_change(path, tmp_path):
    """As the pipeline does it: it sees a photo, and puts new pixels in."""
    source = DicomFile.read(path)
    changed = np.zeros(source.pixels.shape[1:3], bool)
    changed[5:12, 6:20] = True
    new = np.full((*changed.shape, 3), 255, np.uint8)
    frames = [Photo.open(frame).restore(new, changed) for frame in source.frames]
    write_dicom(source.deidentified(frames, PSEUDONYMS), tmp_path / "result.dcm")
    pixels = np.asarray(pydicom.dcmread(tmp_path / "result.dcm").pixel_array).reshape(source.pixels.shape)
    assert np.array_equal(pixels[:, ~changed], shown(path).reshape(source.pixels.shape)[:, ~changed])
    white = 0 if source.photometric == "MONOCHROME1" else (1 << source.stored) - 1
    assert (pixels[:, changed] == white).all()


def test_the_pipeline_sees_a_positive_of_full_range(tmp_path):
    negative = sample(4095 - photo(12, grey=True), "MONOCHROME1", 12)
    frame = DicomFile.read(save(negative, tmp_path / "source.dcm")).frames[0]
    assert np.abs(Photo.open(frame).rgb[..., 0].astype(int) - photo(8, grey=True)).max() <= 1


def test_frames_must_be_those_of_the_source(tmp_path):
    source = DicomFile.read(save(sample(), tmp_path / "source.dcm"))
    with pytest.raises(ValueError, match="has 0 frames"):
        source.deidentified([], PSEUDONYMS)
    with pytest.raises(ValueError, match="shape and type"):
        source.deidentified([source.frames[0].convert("L")], PSEUDONYMS)


@pytest.mark.parametrize("values", ["RGB frames", "MONOCHROME2 16 bits", "PALETTE COLOR"])
def test_run_length_coded_files_are_read(values, tmp_path):
    dataset = SAMPLES[values]()
    save(dataset, tmp_path / "plain.dcm")
    dataset.compress(uid.RLELossless, generate_instance_uid=False)
    source = DicomFile.read(save(dataset, tmp_path / "source.dcm"))
    assert np.array_equal(source.pixels, DicomFile.read(tmp_path / "plain.dcm").pixels)


@pytest.mark.parametrize(
    "name",
    [
        "SC_rgb_dcmtk_+eb+cy+n1.dcm",  # JPEG baseline, YBR_FULL
        "SC_rgb_jpeg_dcmtk.dcm",  # JPEG baseline, YBR_FULL
        "SC_rgb_jpeg_gdcm.dcm",  # JPEG lossless, RGB
        "SC_rgb_rle_16bit_2frame.dcm",
        "SC_rgb_small_odd_big_endian.dcm",
        "SC_ybr_full_422_uncompressed.dcm",
        "SC_rgb_jls_lossy_sample.dcm",
    ],
)
def test_compressed_files_of_others_are_read(name, tmp_path):
    dataset = pydicom.dcmread(get_testdata_file(name))
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.4"  # some lack them
    path = save(dataset, tmp_path / "source.dcm")
    source = DicomFile.read(path, burned_in_checked=True)
    write_dicom(source.deidentified(source.frames, PSEUDONYMS), tmp_path / "result.dcm")
    assert np.array_equal(pydicom.dcmread(tmp_path / "result.dcm").pixel_array, pydicom.dcmread(path).pixel_array)


def test_jpeg_2000_is_read(tmp_path):
    dataset = sample()
    pixels = dataset.pixel_array
    dataset.compress(uid.JPEG2000Lossless, generate_instance_uid=False)
    assert np.array_equal(DicomFile.read(save(dataset, tmp_path / "source.dcm")).pixels[0], pixels)


def test_lossy_coding_is_told(tmp_path):
    source = DicomFile.read(get_testdata_file("SC_rgb_jpeg_dcmtk.dcm"), burned_in_checked=True)
    result = source.deidentified(source.frames, PSEUDONYMS)
    assert (result.LossyImageCompression, result.LossyImageCompressionMethod) == ("01", "ISO_10918_1")


def altered(**values):
    def write(path):
        dataset = sample()
        for keyword, value in values.items():
            setattr(dataset, keyword, value)
        save(dataset, path)

    return write


def without_pixels(path):
    dataset = sample()
    del dataset.PixelData
    save(dataset, path)


def recoded(syntax):
    def write(path):
        dataset = sample()
        save(dataset, path)
        dataset.file_meta.TransferSyntaxUID = syntax
        if syntax != uid.DeflatedExplicitVRLittleEndian:
            dataset.PixelData = pydicom.encaps.encapsulate([b"\0" * 64])
            dataset["PixelData"].VR = "OB"
            dataset["PixelData"].is_undefined_length = True
        save(dataset, path)

    return write


def overlaid(path):
    dataset = sample()
    dataset.add_new(0x60003000, "OW", b"\1\2")
    save(dataset, path)


def larger_inside(path):
    """A header of few pixels around a JPEG that claims many: a decoder would reserve the memory."""
    dataset = sample(photo(grey=True), "MONOCHROME2")
    dataset.compress(uid.JPEG2000Lossless, generate_instance_uid=False)
    place = dataset.PixelData.index(b"\xff\x4f\xff\x51") + 8
    dataset.PixelData = dataset.PixelData[:place] + b"\0\0\xff\xff" * 2 + dataset.PixelData[place + 8 :]
    save(dataset, path)


BAD_FILES = {
    "no such file": lambda path: None,
    "empty": lambda path: path.write_bytes(b""),
    "no DICOM file": lambda path: path.write_text("This is no DICOM file, but long enough to have a preamble." * 9),
    "no photo": altered(SOPClassUID=uid.CTImageStorage),
    "is a video": altered(SOPClassUID=uid.VideoPhotographicImageStorage),
    "holds a video": recoded(uid.MPEG4HP41),
    "transfer syntax": recoded(uid.DeflatedExplicitVRLittleEndian),
    "no pixel data": without_pixels,
    "photometric interpretation": altered(PhotometricInterpretation="CMYK"),
    "photometric interpretation is": altered(SamplesPerPixel=1),
    "palette is segmented": altered(SegmentedRedPaletteColorLookupTableData=b"\0\0"),
    "bit depth": altered(BitsAllocated=32),
    "bit depth is": altered(HighBit=15),
    "signed": altered(PixelRepresentation=1),
    "makes no sense": altered(NumberOfFrames=0),
    "more than 4096 frames": altered(NumberOfFrames=2**31 - 1),
    "more than 179 megapixels": altered(Rows=65535, Columns=65535),
    "no usable Rows": altered(Rows=None),
    "damaged": altered(Rows=41),
    "burned into its pixels; blacken": altered(BurnedInAnnotation="YES"),
    "burned_in_checked=True": altered(BurnedInAnnotation=None),
    "overlay planes": overlaid,
    "do not fit its header": larger_inside,
}


@pytest.mark.parametrize("message", BAD_FILES)
def test_a_bad_file_gets_one_clear_error_without_its_name(message, tmp_path, caplog):
    path = tmp_path / f"{NAME}.dcm"
    BAD_FILES[message](path)
    with pytest.raises(ImageFileError, match=message) as caught:
        DicomFile.read(path)
    told = "".join(map(str, (caught.value, caught.value.__cause__, caplog.text)))
    assert NAME not in told and str(tmp_path) not in told


def test_pixels_that_were_looked_at_are_taken(tmp_path):
    altered(BurnedInAnnotation=None)(tmp_path / "source.dcm")
    source = DicomFile.read(tmp_path / "source.dcm", burned_in_checked=True)
    assert source.deidentified(source.frames, PSEUDONYMS).BurnedInAnnotation == "NO"


def test_too_many_frames_are_refused_before_decoding(tmp_path, monkeypatch):
    monkeypatch.setattr(dicom_pixels, "MAX_PIXELS", 2000)
    save(SAMPLES["RGB frames"](), tmp_path / "source.dcm")
    with pytest.raises(ImageFileError, match="megapixels"):
        DicomFile.read(tmp_path / "source.dcm")


def test_without_pydicom_the_remedy_is_told(tmp_path, monkeypatch):
    path = save(sample(), tmp_path / "source.dcm")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert is_dicom(path)
    with pytest.raises(ImageFileError, match=r"pip install medeid\[dicom\]"):
        DicomFile.read(path)


def test_dicom_is_known_by_its_content(tmp_path):
    Image.fromarray(photo()).save(tmp_path / "photo.png")
    assert is_dicom(save(sample(), tmp_path / "photo"))
    assert not is_dicom(tmp_path / "photo.png")
    assert not is_dicom(tmp_path / "absent")


def rle_bytes():
    dataset = SAMPLES["RGB frames"]()
    dataset.compress(uid.RLELossless, generate_instance_uid=False)
    return dataset


def jpeg_2000_bytes():
    dataset = sample()
    dataset.compress(uid.JPEG2000Lossless, generate_instance_uid=False)
    return dataset


@pytest.fixture(params=[SAMPLES["RGB"], SAMPLES["PALETTE COLOR"], rle_bytes, jpeg_2000_bytes])
def content(request, tmp_path):
    return save(request.param(), tmp_path / "valid.dcm").read_bytes()


def try_to_use(path):
    """Whether a file can be used; any error but the one for bad files is a failure of the test."""
    try:
        source = DicomFile.read(path)
        write_dicom(source.deidentified(source.frames, PSEUDONYMS), path.with_suffix(".result"))
    except ImageFileError:
        return False
    return True


def test_truncated_files_are_refused(content, tmp_path):
    for share in np.linspace(0, 0.98, 20):
        (tmp_path / "cut.dcm").write_bytes(content[: int(share * len(content))])
        assert not try_to_use(tmp_path / "cut.dcm")


def test_flipped_bits_never_raise_anything_else(content, tmp_path):
    draw = random.Random(7)
    refused = 0
    for _ in range(75):  # of each of the four files
        flipped = bytearray(content)
        for _ in range(draw.choice((1, 3, 20))):
            flipped[draw.randrange(132, min(len(content), 2400))] ^= 1 << draw.randrange(8)
        (tmp_path / "flipped.dcm").write_bytes(flipped)
        refused += not try_to_use(tmp_path / "flipped.dcm")
    assert refused > 5


def test_written_files_are_whole_or_absent(tmp_path, monkeypatch):
    source = DicomFile.read(save(sample(), tmp_path / "source.dcm"))
    result = source.deidentified(source.frames, PSEUDONYMS)
    digest = write_dicom(result, tmp_path / "result.dcm")
    assert digest == hashlib.sha256((tmp_path / "result.dcm").read_bytes()).hexdigest()

    def fail(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError):
        write_dicom(result, tmp_path / "other.dcm")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["result.dcm", "source.dcm"]
