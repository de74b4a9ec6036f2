"""The whole way, on the embedded model: somebody else's face, everything else untouched, or nothing at all."""

import hashlib
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from medeid import MedicalDeIDPipeline, NoFaceFoundError, VerificationError
from medeid.data.faces import FaceFolder
from medeid.data.simulate import simulate
from medeid.diffusion import inpaint
from medeid.evaluation.geometry import asymmetries
from medeid.faces.alignment import crop_face, invert, transform_points
from medeid.faces.detection import box_iou, detect_faces
from medeid.faces.mesh import inter_ocular_distance
from medeid.identity.surrogate import SurrogateIdentity
from medeid.manifestations.encoder import Reading
from medeid.manifestations.taxonomy import Finding, UnknownManifestationError
from medeid.photos import Photo
from medeid.pipeline import MAX_DRAWS
from medeid.types import MAX_ATTEMPTS, FaceBox

STEPS = 4  # enough for the checks here


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_model_runs_in_float32_though_its_weights_are_stored_in_float16(pipeline):
    parts = (pipeline.unet, pipeline.vae, pipeline.structure_adapter, pipeline.identity_adapter, pipeline.landmark_net)
    assert {part.dtype for part in parts} == {torch.float32}


@pytest.fixture(scope="module")
def output(pipeline, portrait):
    return pipeline(portrait, generator=seeded())


def test_the_face_is_another_and_the_rest_is_the_same_to_the_bit(output, astronaut):
    result = np.asarray(output.images[0])
    mask = output.masks[0]
    assert output.images[0].mode == "RGB" and result.shape == astronaut.shape
    assert np.array_equal(result[~mask], astronaut[~mask])
    assert np.abs(result[mask].astype(int) - astronaut[mask]).mean() > 5
    assert 0.01 < mask.mean() < 0.3


def test_the_recognizer_no_longer_knows_the_face(output, pipeline):
    (face,) = output.records[0].faces
    for recognizer in pipeline.recognizers:
        similarity = face.similarity[recognizer.name]
        assert similarity["before"] > recognizer.match_threshold > similarity["after"]


def test_a_detector_finds_the_new_face_where_the_old_one_was(output, pipeline):
    (found,) = detect_faces(np.asarray(output.images[0]), pipeline.detectors).faces
    assert box_iou(found, FaceBox(output.records[0].faces[0].box, 1.0, None, "")) > 0.5


def test_pose_and_expression_stay(output, pipeline, astronaut):
    records, (source,) = pipeline.find_faces([_photo(astronaut)], None)
    result = crop_face(np.asarray(output.images[0]), source.crop.matrix, source.crop.size).image
    before, after = source.landmarks, pipeline.find_landmarks([result])[0]
    error = np.linalg.norm(after[:, :2] - before[:, :2], axis=1).mean() / inter_ocular_distance(before)
    assert error < 0.1


def _photo(array):
    from medeid.photos import Photo

    return Photo.open(array)


def test_a_seed_repeats_a_result_and_another_does_not(pipeline, astronaut):
    runs = [pipeline(astronaut, generator=seeded(s), num_inference_steps=STEPS) for s in (3, 3, 4)]
    first, same, other = (run.images[0] for run in runs)
    digests = [run.records[0].faces[0].attempts[-1].surrogate_digest for run in runs]
    assert np.array_equal(first, same) and digests[0] == digests[1]
    assert not np.array_equal(first, other) and digests[0] != digests[2]


def test_without_a_generator_every_call_draws_somebody_else(pipeline, astronaut):
    runs = [pipeline(astronaut, num_inference_steps=STEPS) for _ in range(2)]
    assert len({run.records[0].faces[0].attempts[-1].surrogate_digest for run in runs}) == 2


def test_a_patient_becomes_the_same_person_under_one_key_and_another_under_another(pipeline, astronaut):
    other_visit = np.clip(astronaut[:, ::-1].astype(int) + 12, 0, 255).astype(np.uint8)  # mirrored, in brighter light
    keys = SurrogateIdentity(b"a" * 32), SurrogateIdentity(b"b" * 32)
    for photo in (astronaut, other_visit):
        for key in keys:
            face = pipeline(photo, surrogate_identity=key, pseudonym="p17").records[0].faces[0]
            seed = key.seed("p17", 1 + sum(pipeline.is_recognised(tried) for tried in face.attempts)).to_bytes(8, "big")
            assert face.attempts[-1].surrogate_digest == hashlib.sha256(seed).hexdigest()[:16]


@pytest.mark.parametrize("threads", [1], indirect=True)
def test_a_batch_gives_what_single_calls_give(pipeline, astronaut, threads):
    photos = [astronaut, np.ascontiguousarray(astronaut[:, ::-1])]
    batch = pipeline(photos, generator=[seeded(1), seeded(2)], num_inference_steps=STEPS)
    for photo, seed, together in zip(photos, (1, 2), batch.images, strict=True):
        alone = pipeline(photo, generator=seeded(seed), num_inference_steps=STEPS).images[0]
        assert np.abs(alone.astype(int) - together).max() <= 2  # sums in another order


@pytest.mark.parametrize("threads", [1], indirect=True)
def test_threads_beside_the_networks_change_nothing(pipeline, astronaut, threads, monkeypatch):
    photos = [astronaut, np.ascontiguousarray(astronaut[:, ::-1])]
    options = {"num_inference_steps": STEPS, "max_attempts": 1, "on_fail": "blur"}
    one = pipeline(photos, generator=[seeded(1), seeded(2)], **options).images
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)  # while the networks go on with one
    several = pipeline(photos, generator=[seeded(1), seeded(2)], **options).images
    assert all(np.array_equal(*pair) for pair in zip(one, several, strict=True))


def test_two_faces_in_one_photo_are_both_replaced(pipeline, astronaut):
    pair = np.concatenate([astronaut[:300, 80:380], astronaut[:300, 80:380][:, ::-1]], axis=1)
    output = pipeline(pair, generator=seeded(), num_inference_steps=STEPS)
    assert len(output.records[0].faces) == 2
    assert len({face.attempts[-1].surrogate_digest for face in output.records[0].faces}) == 2


def test_a_turned_photo_is_done_too(pipeline, astronaut):
    turned = np.ascontiguousarray(np.rot90(astronaut))
    output = pipeline(turned, generator=seeded(), num_inference_steps=STEPS)
    assert output.images[0].shape == turned.shape and output.masks[0].any()


def test_tensors_come_back_as_tensors(pipeline, astronaut):
    tensor = torch.from_numpy(astronaut.copy()).permute(2, 0, 1).float() / 255.0
    (result,), _, masks = pipeline(tensor, generator=seeded(), num_inference_steps=STEPS, return_dict=False)
    outside = torch.from_numpy(~masks[0])
    assert torch.equal(result[:, outside], tensor[:, outside])


def test_own_boxes_are_used_instead_of_detection(pipeline, astronaut):
    box = FaceBox((177.0, 65.0, 272.0, 190.0), 1.0, None, "user")
    output = pipeline(astronaut, boxes=[[box]], generator=seeded(), num_inference_steps=STEPS)
    (face,) = output.records[0].faces
    assert face.detector == "user" and face.box == box.box


def test_no_face_no_result(pipeline, astronaut):
    with pytest.raises(NoFaceFoundError, match="Photo 1: no face"):
        pipeline([astronaut, np.full((64, 64, 3), 127, np.uint8)], num_inference_steps=STEPS)


def test_a_face_that_is_still_recognised_is_withheld(pipeline, astronaut, monkeypatch):
    monkeypatch.setattr(pipeline.recognizers[0], "match_threshold", -1.0)
    with pytest.raises(VerificationError, match="withheld") as caught:
        pipeline(astronaut, generator=seeded(), num_inference_steps=1, max_attempts=2)
    (face,) = caught.value.records[0].faces
    assert caught.value.records[0].status == "withheld" and len(face.attempts) == 2
    assert all("still takes the face" in attempt.failed[0] for attempt in face.attempts)
    assert len({attempt.surrogate_digest for attempt in face.attempts}) == 2


def test_a_face_that_is_still_recognised_can_be_blurred_instead(pipeline, astronaut, monkeypatch):
    options = {"num_inference_steps": 1, "max_attempts": 1, "preserve": "none"}
    face = pipeline(astronaut, generator=seeded(), **options).records[0].faces[0]
    reached = face.similarity["dlib"]["after"]
    monkeypatch.setattr(pipeline.recognizers[0], "match_threshold", reached - 0.001)
    with pytest.raises(VerificationError):
        pipeline(astronaut, generator=seeded(), **options)
    output = pipeline(astronaut, generator=seeded(), on_fail="blur", **options)
    (face,) = output.records[0].faces
    assert output.records[0].status == "blurred" and face.blurred
    inside = output.masks[0]
    assert np.array_equal(output.images[0][~inside], astronaut[~inside])
    gradients = [
        np.abs(np.diff(image.astype(int), axis=0))[inside[1:]].mean() for image in (astronaut, output.images[0])
    ]
    assert gradients[1] < gradients[0] / 2


def test_a_blurred_face_that_is_still_recognised_is_withheld(pipeline, astronaut, monkeypatch):
    monkeypatch.setattr(pipeline.recognizers[0], "match_threshold", -1.0)
    with pytest.raises(VerificationError, match="withheld") as caught:
        pipeline(astronaut, generator=seeded(), num_inference_steps=1, max_attempts=1, on_fail="blur")
    assert caught.value.records[0].status == "withheld"


@pytest.fixture
def lost_jaundice(pipeline, monkeypatch):
    """The encoder finds jaundice on the first crops that it sees, and on none after them; may be cleared."""
    label = pipeline.manifestation_encoder.config.labels.index("jaundice")
    calls = []

    def see(crops, *generators, see=pipeline.see):
        seen = see(crops, *generators)
        for each in seen:
            each.probabilities[label] = 0.0 if calls else 0.9
            if not calls:
                each.readings.append(Reading("jaundice", "both", 0.9, 0.5))
        calls.append(len(crops))
        return seen

    monkeypatch.setattr(pipeline, "see", see)
    return calls


def test_a_face_that_lost_its_sign_is_drawn_again_and_withheld(pipeline, astronaut, lost_jaundice):
    with pytest.raises(VerificationError, match="no longer finds a sign: jaundice") as caught:
        pipeline(astronaut, generator=seeded(), num_inference_steps=1, max_attempts=2)
    first, second = caught.value.records[0].faces[0].attempts
    assert first.surrogate_digest != second.surrogate_digest
    lost_jaundice.clear()
    pipeline(astronaut, preserve="none", generator=seeded(), num_inference_steps=STEPS)


def test_a_face_that_shows_a_sign_which_was_not_there_is_drawn_again(pipeline, astronaut, monkeypatch):
    calls = []

    def see(crops, *generators, see=pipeline.see):
        seen = see(crops, *generators)
        calls.append(len(crops))
        if len(calls) == 2:  # the first result
            seen[0].readings.append(Reading("vitiligo", "both", 0.9, 0.5))
        return seen

    monkeypatch.setattr(pipeline, "see", see)
    face = pipeline(astronaut, generator=seeded()).records[0].faces[0]
    (told,) = face.attempts[0].failed
    assert told.startswith("the encoder finds a sign that was not there: ") and "vitiligo" in told
    assert len(face.attempts) > 1 and not face.attempts[-1].failed


def test_a_patient_whose_sign_was_lost_stays_the_same_person(pipeline, astronaut, lost_jaundice, monkeypatch):
    monkeypatch.setattr(pipeline.recognizers[0], "match_threshold", 1.1)
    key = SurrogateIdentity(b"a" * 32)
    with pytest.raises(VerificationError, match="no longer finds a sign") as caught:
        pipeline(astronaut, surrogate_identity=key, pseudonym="p17", num_inference_steps=1, max_attempts=2)
    first, second = caught.value.records[0].faces[0].attempts
    assert first.surrogate_digest == second.surrogate_digest and first.similarity != second.similarity


def test_a_patient_whose_signs_are_lost_again_and_again_becomes_a_relative_and_at_last_somebody_else(
    pipeline, astronaut
):
    key, surrogates = SurrogateIdentity(b"a" * 32), []
    _, (face,) = pipeline.find_faces([_photo(astronaut)], None)
    pipeline.embed_sources([face])
    face.pseudonym = "p17"
    for _ in range(MAX_ATTEMPTS):
        surrogates.append(pipeline.draw_surrogate(face, None, key))
        face.record.attempts[-1].similarity = {each.name: 0.0 for each in pipeline.recognizers}
    kinships = [torch.nn.functional.cosine_similarity(each, surrogates[0], dim=0).item() for each in surrogates]
    assert kinships == pytest.approx([1.0] * 6 + [0.7] * 2 + [0.4] * 2 + [0.0] * 2, abs=0.2)
    assert len({attempt.surrogate_digest for attempt in face.record.attempts}) == 4


def test_a_higher_privacy_level_replaces_more(pipeline, astronaut):
    levels = (0.25, 0.5, 0.75, 1.0)
    crops = [pipeline.find_faces([_photo(astronaut)], None, level)[1][0] for level in levels]
    for less, more in zip(crops, crops[1:], strict=False):
        assert (more.mask >= less.mask - 1e-6).all() and more.hole.sum() > less.hole.sum()
    output = pipeline(astronaut, privacy=1.0, generator=seeded(), num_inference_steps=1)
    default = pipeline(astronaut, generator=seeded(), num_inference_steps=1)
    assert output.masks[0].sum() > 1.2 * default.masks[0].sum()


def test_suppression_guidance_leads_away_from_the_source(pipeline, astronaut):
    options = {"num_inference_steps": STEPS, "max_attempts": 1, "preserve": "none"}
    runs = [pipeline(astronaut, generator=seeded(), identity_guidance_scale=scale, **options) for scale in (0.0, 1.0)]
    (plain,), (away,) = (list(run.records[0].faces[0].similarity.values()) for run in runs)
    assert away["before"] == plain["before"] and away["after"] < plain["after"]


def test_each_time_that_a_source_is_recognised_the_next_face_is_led_further_away(pipeline, astronaut):
    _, (face,) = pipeline.find_faces([_photo(astronaut)], None)
    pipeline.embed_sources([face])
    for similarity, suppression in ((None, 0.0), (1.0, 0.5), (0.0, 0.5), (1.0, 1.0), (1.0, 1.0)):
        for attempt in face.record.attempts[-1:]:
            attempt.similarity = {each.name: similarity for each in pipeline.recognizers}
        pipeline.draw_surrogate(face, seeded())
        assert face.suppression == suppression


def test_the_callback_sees_and_may_change_the_latents(pipeline, astronaut):
    seen = []

    def callback(pipe, step, timestep, kwargs):
        seen.append(step)
        return {"latents": kwargs["latents"] * 0.95}

    plain = pipeline(astronaut, generator=seeded(), num_inference_steps=2).images[0]
    changed = pipeline(astronaut, generator=seeded(), num_inference_steps=2, callback_on_step_end=callback).images[0]
    assert seen[:2] == [0, 1] and not np.array_equal(plain, changed)


@pytest.fixture
def draws(pipeline, monkeypatch):
    """What is drawn in a call, and the faces that were taken, before anything is set or pasted."""
    drawn, taken = [], []

    def noted_inpaint(*args, **kwargs):
        drawn.append(inpaint(*args, **kwargs))
        return drawn[-1]

    def noted_masks(self, faces, privacy):
        taken.extend(face.generated for face in faces)
        return fit_masks(self, faces, privacy)

    fit_masks = MedicalDeIDPipeline.fit_masks
    monkeypatch.setattr("medeid.pipeline.inpaint", noted_inpaint)
    monkeypatch.setattr(MedicalDeIDPipeline, "fit_masks", noted_masks)
    before = pipeline.config.max_denoising_error
    yield drawn, taken
    pipeline.register_to_config(max_denoising_error=before)


@pytest.mark.parametrize(("worst", "count"), [(None, 1), (1e9, 1), (1e-9, MAX_DRAWS)])
def test_what_the_unet_finds_unlikely_is_drawn_again(pipeline, astronaut, draws, worst, count):
    drawn, taken = draws
    pipeline.register_to_config(max_denoising_error=worst)
    pipeline(astronaut, generator=seeded(), num_inference_steps=1, max_attempts=1, on_fail="blur")
    assert len(drawn) == count
    likeliest = min(drawn, key=lambda each: each.errors.item() if worst else 0.0)
    assert np.array_equal(taken[0], (likeliest.images[0] * 255).round().byte().permute(1, 2, 0).numpy())


@pytest.mark.parametrize(
    "options, name",
    [
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"guidance_scale": 0.5}, "guidance_scale"),
        ({"output_type": "jpeg"}, "output_type"),
        ({"generator": [seeded(), seeded()]}, "generator"),
        ({"boxes": [[], []]}, "boxes"),
        ({"max_attempts": 0}, "max_attempts"),
        ({"on_fail": "release"}, "on_fail"),
        ({"privacy": 0.0}, "privacy"),
        ({"identity_guidance_scale": -1.0}, "identity_guidance_scale"),
        ({"preserve": "all"}, "preserve"),
        ({"pseudonym": "p17"}, "surrogate_identity"),
        ({"pseudonym": ["p17", None], "surrogate_identity": SurrogateIdentity(b"a" * 16)}, "pseudonym"),
    ],
)
def test_wrong_arguments_are_named(pipeline, astronaut, options, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        pipeline(astronaut, **options)


def test_an_empty_list_is_an_error(pipeline):
    with pytest.raises(ValueError, match="empty list"):
        pipeline([])


def test_saved_and_loaded_gives_the_same_to_the_bit(pipeline, astronaut, tmp_path):
    pipeline.save_pretrained(tmp_path)
    loaded = MedicalDeIDPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert not any("ip" in key for key in _keys(tmp_path / "unet"))
    results = [p(astronaut, generator=seeded(), num_inference_steps=2).images[0] for p in (pipeline, loaded)]
    assert np.array_equal(*results)


def _keys(folder):
    from safetensors import safe_open

    (path,) = folder.glob("*.safetensors")
    with safe_open(path, "pt") as file:
        return list(file.keys())


def test_a_copy_for_another_process_gives_the_same_to_the_bit(pipeline, astronaut, output):
    copied = pickle.loads(pickle.dumps(pipeline))
    assert np.array_equal(copied(astronaut, generator=seeded()).images[0], np.asarray(output.images[0]))


def test_grey_and_transparent_photos_keep_their_mode(pipeline, portrait):
    for mode in ("L", "RGBA"):
        source = portrait.convert(mode)
        result = pipeline(source, generator=seeded(), num_inference_steps=STEPS).images[0]
        assert isinstance(result, Image.Image) and (result.mode, result.size) == (mode, source.size)


@pytest.fixture(scope="module")
def cheek(pipeline, astronaut):
    """bool [512, 512]: a spot on the astronaut's cheek, as a clinician would paint it."""
    _, (face,) = pipeline.find_faces([_photo(astronaut)], None)
    matrix = invert(face.crop.matrix)
    x, y = transform_points(face.landmarks[[50], :2], matrix)[0]
    return cv2.circle(np.zeros(astronaut.shape[:2], np.uint8), (round(x), round(y)), 7, 1, cv2.FILLED) > 0


def test_what_is_painted_stays_but_in_the_new_skin(pipeline, astronaut, cheek):
    photo = astronaut.copy()
    photo[cheek] = photo[cheek] // 3  # a dark mole
    kept = pipeline(photo, generator=seeded(), manifestation_mask=cheek, num_inference_steps=STEPS)
    lost = pipeline(photo, generator=seeded(), preserve="none", num_inference_steps=STEPS)
    around = grown(cheek, 21) & ~grown(cheek, 9)
    contrast = [result[cheek].mean() / result[around].mean() for result in (photo, kept.images[0], lost.images[0])]
    assert contrast[1] == pytest.approx(contrast[0], abs=0.1) and contrast[2] > contrast[0] + 0.3
    assert np.array_equal(kept.images[0][~kept.masks[0]], photo[~kept.masks[0]])


def grown(mask, side):
    return cv2.dilate(mask.astype(np.uint8), np.ones((side, side))) > 0


def test_who_paints_the_whole_face_gets_nothing(pipeline, astronaut):
    everything = Image.new("1", (512, 512), 1)
    with pytest.raises(VerificationError, match="still takes the face for the source's"):
        pipeline(astronaut, generator=seeded(), manifestation_mask=everything, num_inference_steps=1, max_attempts=1)


def test_records_tell_the_signs_before_and_after(pipeline, astronaut):
    output = pipeline(astronaut, preserve=["jaundice", "ptosis:left"], generator=seeded(1), num_inference_steps=STEPS)
    told = {(sign.manifestation, sign.side): sign for sign in output.records[0].faces[0].manifestations}
    for key in (("jaundice", "both"), ("ptosis", "left")):
        assert told[key].preserved
        assert all(0.0 <= told[key].probability[when] <= 1.0 for when in ("before", "after"))
    assert ("ptosis", "right") not in {key for key, sign in told.items() if sign.preserved}


def test_manifestations_can_be_read_alone(pipeline, astronaut):
    ((face,),) = pipeline.encode_manifestations(astronaut)
    assert box_iou(FaceBox(face.box, 1.0, None, ""), FaceBox((177.0, 65.0, 272.0, 190.0), 1.0, None, "")) > 0.5
    assert set(face.masks) == {reading.label for reading in face.readings}
    assert all(mask.shape == astronaut.shape[:2] for mask in face.masks.values())
    config = pipeline.manifestation_encoder.config
    assert face.tokens.shape == (config.num_tokens, config.token_dim)
    with pytest.raises(NoFaceFoundError):
        pipeline.encode_manifestations(np.full((64, 64, 3), 127, np.uint8))


@torch.no_grad()
def test_the_noise_in_the_tokens_is_drawn_as_all_else_is(pipeline, astronaut):
    _, (face,) = pipeline.find_faces([Photo.open(astronaut)], None)

    def tokens(generator=None, key=None):
        pipeline.read_manifestations([face], [pipeline.draw_seed(face, generator, key and SurrogateIdentity(key))])
        return face.seen.tokens

    assert torch.equal(tokens(seeded(1)), tokens(seeded(1)))
    assert not torch.equal(tokens(seeded(1)), tokens(seeded(2)))
    assert not torch.equal(tokens(), tokens())
    face.pseudonym = "P-1"
    assert torch.equal(tokens(key=b"a" * 16), tokens(seeded(1), key=b"a" * 16))
    assert not torch.equal(tokens(key=b"a" * 16), tokens(key=b"b" * 16))


def test_an_unknown_sign_is_told_the_nearest_names(pipeline, astronaut):
    with pytest.raises(UnknownManifestationError, match="did you mean rosacea"):
        pipeline(astronaut, preserve=["rosacee"])


@pytest.mark.parametrize(
    "mask, message",
    [
        (Image.new("L", (256, 256)), "is 256 x 256 px, but the upright photo is 512 x 512 px"),
        (Image.new("RGB", (512, 512)), "has mode RGB"),
        (np.zeros((512, 512, 3), np.uint8), r"must be bool, uint8 or float \[H, W\]"),
        ([None, None], "is a list of 2 for 1 photos"),
    ],
)
def test_a_wrong_mask_is_named(pipeline, astronaut, mask, message):
    with pytest.raises(ValueError, match=message):
        pipeline(astronaut, manifestation_mask=mask)


def test_a_stain_is_read_in_the_source_and_in_the_result(pipeline):
    faces = FaceFolder(Path(__file__).parents[1] / "examples" / "faces", "train")
    image, landmarks = faces.image(8), faces.landmarks(8)
    stain = Finding("port_wine_stain", "left", 0.8)
    patient = simulate(image, landmarks, [stain], np.random.default_rng(0))
    output = pipeline(patient.image, generator=seeded())
    told = {sign.label: sign for sign in output.records[0].faces[0].manifestations}
    sign = told["port_wine_stain:left"]
    assert sign.preserved and min(sign.probability.values()) > 0.5
    assert sign.mask_overlap > 0.6 and abs(sign.severity["after"] - sign.severity["before"]) < 0.3
    assert "port_wine_stain:right" not in told


def test_lids_that_hang_on_one_side_hang_on_the_new_face(pipeline):
    faces = FaceFolder(Path(__file__).parents[1] / "examples" / "faces", "train")
    ptosis = Finding("ptosis", "left", 0.8)
    patient = simulate(faces.image(8), faces.landmarks(8), [ptosis], np.random.default_rng(0))
    found = []
    for image in (
        patient.image,
        pipeline(patient.image, preserve=["ptosis:left"], generator=seeded(1)).images[0],
        pipeline(patient.image, preserve="none", generator=seeded()).images[0],
    ):
        found.append(asymmetries(torch.from_numpy(pipeline.find_landmarks([np.asarray(image)])))[0, 0].item())
    source, preserved, without = found
    assert preserved == pytest.approx(source, rel=0.4)
    assert abs(without) < 0.5 * abs(source)
