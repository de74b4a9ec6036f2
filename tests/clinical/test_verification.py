"""Finished pairs are looked at once more: what the pipeline released passes, and whoever is still seen does not."""

import numpy as np
import pytest
import torch
from dicom_samples import sample, save
from PIL import Image

from medeid.clinical.sources import list_photos, name_results
from medeid.clinical.verification import Pair, PairVerifier, pair_folders, verify_pair
from medeid.data.simulate import simulate
from medeid.manifestations.taxonomy import Finding
from medeid.photos import Photo
from medeid.records import NoFaceFoundError
from medeid.types import FaceBox

STEPS = 4


def deidentify(pipeline, photo, **options):
    generator = torch.Generator().manual_seed(1)
    return pipeline(photo, generator=generator, num_inference_steps=STEPS, **options)


@pytest.fixture(scope="module")
def result(pipeline, astronaut):
    return deidentify(pipeline, astronaut)


@pytest.fixture(scope="module")
def released(result):
    return result.images[0]


def report_of(pipeline, source, output, **options):
    return verify_pair(pipeline, Photo.open(source), Photo.open(output), **options)


def test_what_was_released_passes_with_the_figures_of_the_run(pipeline, astronaut, result):
    report = report_of(pipeline, astronaut, result.images[0])
    assert report.status == "passed" and report.reasons == []
    (face,), (recorded,) = report.faces, result.records[0].faces
    for recognizer in pipeline.recognizers:
        after, before = face.similarity[recognizer.name], recorded.similarity[recognizer.name]
        assert after == pytest.approx(before, abs=1e-4)
    assert [sign.label for sign in face.manifestations] == [sign.label for sign in recorded.manifestations]


def test_a_source_that_is_its_own_output_fails(pipeline, astronaut):
    report = report_of(pipeline, astronaut, astronaut)
    assert report.status == "failed"
    assert any("still takes the face for the source's" in reason for reason in report.reasons)
    assert report.faces[0].similarity["dlib"]["after"] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("change", [lambda photo: photo[:, ::-1], lambda photo: photo // 2 + 60])
def test_a_source_that_was_only_edited_fails(pipeline, astronaut, change):
    centred = np.ascontiguousarray(astronaut[:300, 74:374])  # the face stays in its place when mirrored
    assert report_of(pipeline, centred, np.ascontiguousarray(change(centred))).status == "failed"


def test_one_face_of_two_that_was_left_fails(pipeline, astronaut, released):
    source = np.concatenate([astronaut[:300, 80:380], astronaut[:300, 80:380][:, ::-1]], axis=1)
    output = source.copy()
    output[:, :300] = released[:300, 80:380]
    report = report_of(pipeline, source, output)
    assert report.status == "failed" and sorted(bool(face.attempts[-1].failed) for face in report.faces) == [
        False,
        True,
    ]


def test_a_face_that_was_not_among_those_replaced_fails(pipeline, astronaut, released):
    source = np.concatenate([astronaut[:300, 80:380], astronaut[:300, 80:380][:, ::-1]], axis=1)
    output = source.copy()
    output[:, :300] = released[:300, 80:380]
    boxes = [[FaceBox((97, 65, 192, 190), 1.0, None, "user")]]  # of the left face only
    report = report_of(pipeline, source, output, boxes=boxes)
    assert report.status == "failed"
    (reason,) = report.reasons
    assert "shows a face at" in reason and "where none of the source was replaced" in reason


def test_a_face_that_is_gone_fails(pipeline, astronaut):
    output = astronaut.copy()
    output[40:230, 150:300] = 90
    report = report_of(pipeline, astronaut, output)
    assert "no face is found where it was replaced" in report.reasons


def test_a_sign_that_is_lost_or_has_come_up_fails_unless_signs_do_not_matter(pipeline, light_face):
    stain = Finding("port_wine_stain", "left", 0.8)
    stained = simulate(*light_face, [stain], np.random.default_rng(0)).image
    output = deidentify(pipeline, light_face[0], preserve="none").images[0]
    stained_output = deidentify(pipeline, stained).images[0]
    lost = report_of(pipeline, stained, output)
    assert any("no longer finds a sign" in reason and "port_wine_stain:left" in reason for reason in lost.reasons)
    (told,) = [sign for sign in lost.faces[0].manifestations if sign.label == "port_wine_stain:left"]
    assert told.preserved and told.probability["before"] > 0.5 > told.probability["after"]
    new = report_of(pipeline, light_face[0], stained_output)
    assert any("a sign that was not there" in reason and "port_wine_stain:left" in reason for reason in new.reasons)
    for source, result in ((stained, output), (light_face[0], stained_output)):
        assert report_of(pipeline, source, result, preserve="none").status == "passed"


def test_another_size_fails_without_a_guess(pipeline, astronaut, released):
    report = report_of(pipeline, astronaut, np.ascontiguousarray(released[:500]))
    assert report.status == "failed" and "512 x 512 px" in report.reasons[0]


def test_a_source_without_a_face_cannot_be_checked(pipeline):
    blank = np.full((128, 128, 3), 90, np.uint8)
    with pytest.raises(NoFaceFoundError):
        report_of(pipeline, blank, blank)


@pytest.fixture(scope="module")
def verifier():
    return PairVerifier()


@pytest.mark.parametrize(
    "source, output, status, reason",
    [
        ("photo.png", None, "missing", None),
        (None, "photo.png", "unusable", "no source of this name"),
        ("empty.png", "photo.png", "unusable", "the source: the file is empty"),
        ("photo.png", "text.png", "unusable", "the output: it is no image"),
        ("blank.png", "photo.png", "unusable", "the source: no face was found"),
        ("none.png", "photo.png", "unusable", "the source: there is no such file"),
    ],
)
def test_files_that_cannot_be_checked_are_told(verifier, portrait, tmp_path, source, output, status, reason):
    portrait.save(tmp_path / "photo.png")
    Image.new("RGB", portrait.size).save(tmp_path / "blank.png")
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("This is no picture.")
    paths = [None if name is None else tmp_path / name for name in (source, output)]
    report = verifier.run(Pair("photo", *paths))
    assert report.status == status and (not reason or reason in report.reasons[0])


def test_a_turned_source_is_compared_upright(verifier, portrait, released, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying
    portrait.rotate(90, expand=True).save(tmp_path / "source.jpg", quality=98, exif=exif)
    Image.fromarray(released).save(tmp_path / "output.png")
    report = verifier.run(Pair("photo", tmp_path / "source.jpg", tmp_path / "output.png"))
    assert report.status == "passed", report.reasons


@pytest.mark.parametrize("left", [False, True])
def test_of_dicom_every_frame_is_compared(verifier, astronaut, released, tmp_path, left):
    before, after = astronaut[:256, 100:356], released[:256, 100:356]
    source = save(sample(np.stack([before, before])), tmp_path / "source.dcm")
    output = save(sample(np.stack([after, before if left else after])), tmp_path / "output.dcm")
    report = verifier.run(Pair("scan", source, output))
    assert report.status == ("failed" if left else "passed"), report.reasons
    assert report.frames == [1, 2] and len(report.faces) == 2
    assert all(reason.startswith("frame 2: ") for reason in report.reasons)


def test_a_frame_that_is_missing_fails(verifier, astronaut, tmp_path):
    face = astronaut[:256, 100:356]
    source = save(sample(np.stack([face, face])), tmp_path / "source.dcm")
    output = save(sample(face), tmp_path / "output.dcm")
    report = verifier.run(Pair("scan", source, output))
    assert report.status == "failed" and "1 frames, but the source 2" in report.reasons[0]


def test_folders_are_paired_as_a_run_names_its_results(portrait, tmp_path):
    sources, outputs = tmp_path / "in", tmp_path / "out"
    small = portrait.resize((8, 8))
    for name in ("a.jpg", "a.png", "visit/a.jpg", "withheld.jpg"):
        (sources / name).parent.mkdir(parents=True, exist_ok=True)
        small.save(sources / name)
    for name in ("a.png", "a-2.png", "visit/a.png", "visit/unknown.tif", "a.tif", ".partial-1.png"):
        (outputs / name).parent.mkdir(parents=True, exist_ok=True)
        small.save(outputs / name)
    for path in (sources / "scan.dcm", outputs / "scan.dcm", outputs / "records.jsonl"):
        path.touch()
    photos = list_photos([sources], True, outputs).photos
    names = dict(zip(photos, name_results(list(photos), "keep"), strict=True))
    found = [
        tuple(path and path.relative_to(tmp_path).as_posix() for path in (pair.source, pair.output))
        for pair in pair_folders(names, photos, outputs)
    ]
    assert sorted(found, key=str) == sorted(
        [
            ("in/a.jpg", "out/a.png"),
            ("in/a.png", "out/a-2.png"),
            ("in/visit/a.jpg", "out/visit/a.png"),
            ("in/scan.dcm", "out/scan.dcm"),
            ("in/withheld.jpg", None),
            (None, "out/a.tif"),
            (None, "out/visit/unknown.tif"),
        ],
        key=str,
    )
