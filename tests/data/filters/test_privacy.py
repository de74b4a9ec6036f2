import json

import numpy as np
import pytest
from PIL import Image

from medeid.data.filters.privacy import calibrate, embed, read_originals
from medeid.faces.mesh import points5_from_mesh
from medeid.identity.recognizer import DlibRecognizer


@pytest.fixture(scope="module")
def recognizer() -> DlibRecognizer:
    return DlibRecognizer()


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_the_limit_is_reached_by_the_given_share_of_impostor_pairs(recognizer):
    embeddings = unit(np.random.default_rng(0).normal(size=(300, 16)))
    subjects = [str(index) for index in range(300)]
    limit = calibrate(embeddings, subjects, 0.01, recognizer)
    pairs = (embeddings @ embeddings.T)[np.triu_indices(300, 1)]
    assert (pairs > limit.high).mean() == pytest.approx(0.01, abs=1e-3)
    assert "44,850 pairs" in limit.basis


def test_photos_of_one_person_do_not_raise_the_limit(recognizer):
    generator = np.random.default_rng(0)
    people = generator.normal(size=(100, 16))
    twice = unit(np.repeat(people, 2, axis=0) + 0.01 * generator.normal(size=(200, 16)))
    subjects = [str(index // 2) for index in range(200)]
    once = calibrate(unit(people), subjects[::2], 0.01, recognizer).high
    assert calibrate(twice, subjects, 0.01, recognizer).high == pytest.approx(once, abs=0.01)
    strangers = calibrate(twice, [str(index) for index in range(200)], 0.005, recognizer, unnamed=200)
    assert strangers.high > once + 0.1 and "200 of the originals are without a `subject_id`" in strangers.basis


def test_few_originals_leave_the_recognizers_own_threshold(recognizer):
    embeddings = unit(np.random.default_rng(0).normal(size=(10, 16)))
    limit = calibrate(embeddings, list("abcdefghij"), 0.001, recognizer)
    assert limit.high == recognizer.match_threshold and "45 pairs" in limit.basis


def test_an_original_is_found_again_in_its_crop(recognizer, astronaut, varied, tmp_path):
    Image.fromarray(astronaut).save(tmp_path / "clinic.jpg", quality=85)
    (tmp_path / "notes.txt").write_text("no picture")
    originals = read_originals(tmp_path, recognizer)
    assert originals.unusable == [] and len(originals.embeddings) == 1
    points = points5_from_mesh(varied[0].landmarks)
    stranger = embed(recognizer, varied[0].image[None], [points])
    crop = astronaut[20:276, 90:346]
    own = read_originals_of(crop, recognizer, tmp_path / "crop")
    (near,), (far,) = originals.nearest(own), originals.nearest(stranger)
    assert originals.limit.judge(float(near)) and not originals.limit.judge(float(far))


def read_originals_of(image: np.ndarray, recognizer, folder) -> np.ndarray:
    folder.mkdir()
    Image.fromarray(image).save(folder / "0.png")
    return read_originals(folder, recognizer).embeddings


def test_originals_without_a_face_are_told(recognizer, astronaut, tmp_path):
    Image.fromarray(astronaut).save(tmp_path / "face.png")
    Image.new("RGB", (64, 64)).save(tmp_path / "black.png")
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    originals = read_originals(tmp_path, recognizer)
    assert len(originals.embeddings) == 1
    black, torn = originals.unusable
    assert "black.png: no face" in black and "torn.jpg" in torn


def test_metadata_says_who_is_who_and_hides_no_photo(recognizer, astronaut, tmp_path):
    for name in ("first.png", "second.png", "unlisted.png"):
        Image.fromarray(astronaut).save(tmp_path / name)
    rows = [{"file_name": name, "subject_id": "p1"} for name in ("first.png", "second.png")]
    (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    originals = read_originals(tmp_path, recognizer)
    assert len(originals.embeddings) == 3
    assert "2 pairs of different people" in originals.limit.basis


def test_a_row_without_mask_or_subject_is_a_photo_of_somebody_else(recognizer, astronaut, tmp_path):
    rows = [{"file_name": name, "subject_id": None, "mask_file_name": None} for name in ("first.png", "second.png")]
    for row in rows:
        Image.fromarray(astronaut).save(tmp_path / row["file_name"])
    (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    originals = read_originals(tmp_path, recognizer)
    assert len(originals.embeddings) == 2 and "1 pairs of different people" in originals.limit.basis


def test_wrong_originals_say_what_is_wrong(recognizer, tmp_path):
    with pytest.raises(ValueError, match="holds no picture"):
        read_originals(tmp_path, recognizer)
    Image.new("RGB", (64, 64)).save(tmp_path / "black.png")
    with pytest.raises(ValueError, match="holds no face"):
        read_originals(tmp_path, recognizer)
    (tmp_path / "metadata.jsonl").write_text('{"image": "black.png"}\n')
    with pytest.raises(ValueError, match="line 1.*file_name"):
        read_originals(tmp_path, recognizer)
    with pytest.raises(ValueError, match="false_accept_rate"):
        read_originals(tmp_path, recognizer, false_accept_rate=0.0)
