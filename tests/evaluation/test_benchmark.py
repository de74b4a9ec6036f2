"""A benchmark of methods whose figures are known: the photo as it was, and the same face for everybody."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from medeid.data.faces import FaceFolder
from medeid.evaluation import run_benchmark
from medeid.evaluation.clip_features import ClipFeatures
from medeid.evaluation.protocol import PhotoByPhoto
from medeid.faces.mesh import flip_landmarks

PATIENTS = 8


class Constant(PhotoByPhoto):
    """Everybody gets the same face. It counts its calls, and may be stopped as by a kill."""

    name = "constant"

    def __init__(self, face, stop_at=None):
        self.face, self.stop_at, self.calls = face, stop_at, 0

    def hide(self, photo, box, alias):
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        self.calls += 1
        return self.face.copy()


@pytest.fixture(scope="module")
def faces(tmp_path_factory, faces_dir):
    """Twelve people to make patients of, and twice their mirror images as other people."""
    root = tmp_path_factory.mktemp("faces")
    rows, landmarks = [], []

    def add(name, split, image, points):
        Image.fromarray(image).save(root / name)
        rows.append(json.dumps({"file_name": name, "split": split, "group": name[0]}))
        landmarks.append(points + (0.5, 0.5, 0.0))

    for split in ("train", "validation"):
        folder = FaceFolder(faces_dir, split)
        for index in range(len(folder)):
            image, points = folder.image(index), folder.landmarks(index)
            name, mirrored = f"{split}{index}.png", flip_landmarks(points)
            add(name, "validation", image, points)
            add(f"mirrored-{name}", "train", image[:, ::-1], mirrored)
            add(f"pale-{name}", "train", image[:, ::-1] // 2 + 90, mirrored)
    (root / "metadata.jsonl").write_text("\n".join(rows))
    np.savez(root / "landmarks.npz", landmarks=np.stack(landmarks).astype(np.float32))
    return root


@pytest.fixture(scope="module")
def few_faces():
    """Twelve faces make 66 pairs, a short training on a few people does for the attacker, and few signs are enough."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("medeid.evaluation.benchmark.FALSE_ACCEPT_RATE", 0.2)
        patch.setattr("medeid.evaluation.attacker._TRIALS", 1)
        patch.setattr("medeid.evaluation.attacker._FEWEST_SUBJECTS", 4)
        patch.setattr("medeid.evaluation.downstream._FEWEST", 2)
        yield


@pytest.fixture(scope="module")
def measured(faces, tmp_path_factory, pipeline, few_faces, light_face):
    out = tmp_path_factory.mktemp("benchmark") / "out"
    results, _ = run_benchmark(faces, out, ["original", Constant(light_face[0])], PATIENTS, 3, pipeline)
    return out, results


def figures_of(measured, method):
    return measured[1]["methods"][method]


def attacks_on(figures):
    return [attack for crops in figures["privacy"].values() for attack in crops.values()]


def pictures_of(folder):
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in folder.rglob("*.png")}


def test_a_photo_as_it_was_is_always_found_and_read_the_same(measured):
    figures = figures_of(measured, "original")
    assert figures["photos"] == {"released": PATIENTS, "withheld": 0, "failed": 0}
    for attack in attacks_on(figures):
        for name in ("rank1", "rank5", "worst_rank1", "verified"):
            assert attack[name]["value"] == 1.0 and attack[name]["count"] == PATIENTS
        # The gallery holds what these photos look like, but no pupil of the attacker's.
        assert attack["rank1"]["chance"] == pytest.approx(1 / 12, abs=1e-5)
        assert attack["linked_two_keys"]["value"] > 0.5 and attack["attacker_rank1"] is not None
        assert attack["diversity"]["key_distance"] == pytest.approx(0.0, abs=1e-5)
    assert figures["landmarks"]["rank1"]["value"] == 1.0 and figures["landmarks"]["linked_two_keys"]["value"] > 0.5
    signs = figures["utility"]["signs"]["medeid"]
    assert len(signs["by_label"]) > 3
    assert (signs["kappa"], signs["dice"], signs["accuracy"]) == (1.0, 1.0, 1.0)
    assert (signs["severity_error"], signs["lost"], signs["new"]) == (0.0, 0.0, 0.0)
    downstream = figures["utility"]["downstream"]
    assert downstream["auroc"] == downstream["auroc_originals"] and downstream["auroc"]["count"] == downstream["photos"]
    assert downstream["photos"] > PATIENTS and len(downstream["by_region"]) > 2
    assert figures["utility"]["colour_change"] == 0.0 and not any(figures["utility"]["geometry"].values())
    assert figures["quality"]["pixels_changed_outside"] == 0 and figures["quality"]["face_found"] == 1.0
    assert figures["worst"]["similarity"][0]["value"] == pytest.approx(1.0, abs=1e-5)


def test_one_face_for_everybody_is_nobody_and_says_nothing_of_a_disease(measured):
    figures = figures_of(measured, "constant")
    for attack in attacks_on(figures):
        # One person's photos are nearest to it, whoever is asked for.
        assert attack["worst_rank1"]["value"] <= 0.3 and attack["worst_rank1"]["low"] <= attack["rank1"]["chance"]
        assert attack["linked_one_key"]["value"] <= 0.3
        assert abs(attack["recovery"]["difference"]) < 0.05
        assert attack["diversity"]["effective_surrogates"] == pytest.approx(1.0, abs=0.01)
    assert figures["landmarks"]["rank1"]["value"] <= 0.3
    signs = figures["utility"]["signs"]["medeid"]
    assert abs(signs["kappa"]) < 0.05 and signs["dice"] < 0.2
    assert figures["utility"]["colour_change"] > 3.0 and figures["quality"]["pixels_changed_outside"] > 0
    assert figures["utility"]["downstream"]["auroc"]["value"] == 0.5
    groups = figures["by_group"]["group"]
    assert sum(row["photos"] for row in groups.values()) == PATIENTS and set(groups) == {"t", "v"}


def test_results_tell_no_folder_and_the_report_needs_no_other_file(measured, faces):
    out, results = measured
    text = (out / "results.json").read_text()
    assert json.loads(text) == json.loads(json.dumps(results))
    assert str(out) not in text and str(faces) not in text and "seconds" not in text
    assert set(json.loads((out / "timing.json").read_text())) == {"original", "constant"}
    assert json.loads((out / "constant" / "figures.json").read_text()) == results["methods"]["constant"]
    report = (out / "report.html").read_text()
    assert "constant" in report and "http" not in report


def test_an_interrupted_run_goes_on_and_comes_to_the_same_bytes(measured, faces, tmp_path, pipeline, light_face):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(faces, out, ["original", Constant(light_face[0], stop_at=7)], PATIENTS, 3, pipeline)
    before = pictures_of(out)
    assert not (out / "results.json").exists() and len(list((out / "constant").rglob("*.png"))) == 7
    again = Constant(light_face[0])
    run_benchmark(faces, out, ["original", again], PATIENTS, 3, pipeline)
    after = pictures_of(out)
    assert before.items() <= after.items()
    assert again.calls == len(list((out / "constant").rglob("*.png"))) - 7
    assert (out / "results.json").read_bytes() == (measured[0] / "results.json").read_bytes()


class Broken(PhotoByPhoto):
    """Crashes, gives another size, withholds, and gives a photo back, in turn."""

    name = "/opt/tools/broken {input} {output}"

    def __init__(self):
        self.calls = 0

    def hide(self, photo, box, alias):
        self.calls += 1
        if self.calls % 4 == 1:
            raise RuntimeError("no /tmp/here/model.bin")
        return (photo, photo, None, photo[:100])[self.calls % 4]


class Hopeless(PhotoByPhoto):
    name = "hopeless"

    def hide(self, photo, box, alias):
        raise OSError("not installed")


def test_a_method_that_breaks_is_told_and_leaves_the_others_alone(measured, faces, tmp_path, pipeline, clip_folder):
    out = shutil.copytree(measured[0], tmp_path / "out")
    clip = ClipFeatures(clip_folder)
    results, timing = run_benchmark(faces, out, [Hopeless(), Broken(), "blur"], PATIENTS, 3, pipeline, clip=clip)
    hopeless, blur = results["methods"]["hopeless"], results["methods"]["blur"]
    assert hopeless["photos"] == {"released": 0, "withheld": 0, "failed": PATIENTS}
    assert hopeless["failures"] == {"OSError: not installed": 10} and "privacy" not in hopeless
    assert timing["hopeless"] == {"photos": 0, "seconds_a_photo": None}
    (label,) = results["methods"].keys() - {"hopeless", "blur"}
    broken = results["methods"][label]
    assert label.startswith("broken-") and broken["photos"] == {"released": 2, "withheld": 2, "failed": 4}
    assert "RuntimeError: no model.bin" in broken["failures"] and len(broken["failures"]) == 2
    assert broken["privacy"]["dlib"]["face_only"]["rank1"]["count"] == 2
    assert blur["photos"]["released"] == PATIENTS
    assert blur["privacy"]["dlib"]["face_only"]["rank1"]["value"] < 1.0
    assert blur["utility"]["signs"]["medeid"]["kappa"] < 0.8 and blur["quality"]["pixels_changed_outside"] == 0
    assert results["settings"]["clip"]["name"] == clip_folder.name
    assert blur["quality"]["clip"]["kernel_distance"] is not None
    assert (out / "original" / "figures.json").is_file()
    report = (out / "report.html").read_text()
    assert f"{label} failed on" in report and "hopeless failed on" in report


def test_too_few_faces_are_told_with_how_many_it_takes(faces, tmp_path, pipeline, monkeypatch):
    monkeypatch.setattr("medeid.evaluation.benchmark.FALSE_ACCEPT_RATE", 0.001)
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="12 faces of 12 people, which is too few .* give 142 faces"):
        run_benchmark(faces, out, ["original"], PATIENTS, 3, pipeline)
    assert not list(out.iterdir())


def test_faces_without_a_validation_split_are_refused(faces, tmp_path, pipeline):
    other = shutil.copytree(faces, tmp_path / "faces")
    metadata = other / "metadata.jsonl"
    metadata.write_text(metadata.read_text().replace('"split": "validation"', '"split": "train"'))
    with pytest.raises(ValueError, match="has no split validation, only train"):
        run_benchmark(other, tmp_path / "out", ["original"], PATIENTS, 3, pipeline)


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        (["blurr"], "did you mean blur"),
        ([], "`methods` is empty"),
        (["blur", "blur"], "names blur twice"),
        (["medeid", "medeid-0.75"], "names medeid twice"),
    ],
)
def test_wrong_methods_are_told_before_anything_is_made(methods, message, faces, tmp_path, pipeline):
    with pytest.raises(ValueError, match=message):
        run_benchmark(faces, tmp_path / "out", methods, PATIENTS, 3, pipeline)
    assert not (tmp_path / "out").exists()


def test_a_folder_is_for_one_benchmark_and_faces_are_only_read(measured, faces, tmp_path, pipeline):
    for seed, count, message in ((4, PATIENTS, "seed was 3 and is 4"), (3, 12, "patients was 8 and is 12")):
        with pytest.raises(ValueError, match=message):
            run_benchmark(faces, measured[0], ["blur"], count, seed, pipeline)
    (tmp_path / "thesis.txt").write_text("mine")
    for out, message in (
        (tmp_path, "is not empty"),
        (tmp_path / "thesis.txt", "is a file"),
        (faces / "out", "lies inside of FACES"),
    ):
        with pytest.raises(ValueError, match=message):
            run_benchmark(faces, out, ["blur"], PATIENTS, 3, pipeline)
    with pytest.raises(ValueError, match="there is no such folder"):
        run_benchmark(tmp_path / "nowhere", tmp_path / "out", ["blur"], PATIENTS, 3, pipeline)
