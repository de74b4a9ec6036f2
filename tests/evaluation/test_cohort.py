"""Patients come twice, under keys that a seed draws; who is no patient is there for the attacker."""

import json
import shutil

import numpy as np
import pytest

from medeid.evaluation.cohort import prepare_cohort

PATIENTS = 4


@pytest.fixture(scope="module")
def cohort(faces_dir, tmp_path_factory, pipeline):
    """Of twelve faces that are all for validation."""
    folder = tmp_path_factory.mktemp("cohort")
    faces = shutil.copytree(faces_dir, folder / "faces")
    rows = [json.loads(line) for line in (faces / "metadata.jsonl").read_text().splitlines()]
    (faces / "metadata.jsonl").write_text("".join(json.dumps(row | {"split": "validation"}) + "\n" for row in rows))
    told = []
    made = prepare_cohort(faces, folder / "out", PATIENTS, 5, pipeline, told.append)
    assert [sorted(subjects) for subjects in told] == [sorted(made.originals.subjects)]
    return made


def test_without_a_training_split_the_others_are_those_who_are_no_patients(cohort):
    patients, others = set(cohort.patients.subjects), set(cohort.others.subjects)
    assert len(cohort.patients) == len(cohort.visits) == PATIENTS and len(cohort.originals) == 12
    assert others and not patients & others and patients | others <= set(cohort.originals.subjects)
    crops, landmarks = cohort.reference
    assert len(cohort.others) == (12 - len(patients)) // 2
    assert len(crops) == len(landmarks) == 12 - len(patients) - len(cohort.others)


def test_a_visit_is_another_photo_of_the_same_patient(cohort):
    assert list(cohort.visits.subjects) == list(cohort.patients.subjects)
    change = np.abs(cohort.visits.photos.astype(int) - cohort.patients.photos).mean((1, 2, 3))
    assert (change > 1.0).all() and (change < 60.0).all()


def test_the_face_is_in_its_box(cohort):
    for row in range(PATIENTS):
        x0, y0, x1, y1 = cohort.patients.box(row).box
        points5 = cohort.patients.box(row).points5
        assert 80 < x1 - x0 < 200 and 100 < y1 - y0 < 240
        assert ((points5 > (x0, y0)) & (points5 < (x1, y1))).all()


def test_keys_are_two_for_the_patients_and_as_many_as_photos_for_the_attacker(cohort):
    tasks = {task.name: task for task in cohort.tasks}
    assert list(tasks) == ["photos", "visits", "visits_other_key", "attacker"]
    keys = {name: {alias.key for alias in task.aliases} for name, task in tasks.items()}
    assert len(keys["photos"]) == 1 and keys["photos"] == keys["visits"] != keys["visits_other_key"]
    assert len(keys["attacker"]) == len(cohort.others) and not keys["attacker"] & (keys["photos"] | keys["visits"])
    for task in tasks.values():
        assert [alias.pseudonym for alias in task.aliases] == list(task.people.subjects)
