"""What a classifier learns, where it is known what there is to learn."""

import numpy as np
import pytest

from medeid.evaluation.cohort import Cohort, People
from medeid.evaluation.downstream import REGIONS, DownstreamTest, affected_regions, auroc, ridge_scores
from medeid.evaluation.results import Released

NOBODY = np.zeros(0, np.int64)


def test_auroc_is_the_share_of_pairs_in_the_right_order():
    scores, labels = np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, True, False, False])
    same = np.zeros(4, int)
    weights = np.array([[1, 1, 1, 1], [0, 2, 1, 0], [0, 0, 1, 1]])
    # Of four pairs one is equal; then the equal one alone; then there is no pair.
    np.testing.assert_allclose(auroc(scores, labels, same, weights), [0.875, 0.5, np.nan])


def test_only_photos_of_one_fold_are_compared():
    # Another classifier's scores lie elsewhere altogether.
    scores, labels = np.array([0.2, 0.1, 5.2, 5.1]), np.array([True, False, True, False])
    folds, once = np.array([0, 0, 1, 1]), np.ones((1, 4))
    assert auroc(scores, labels, folds, once) == 1.0
    assert auroc(scores, labels, np.zeros(4, int), once) == 0.75


def test_a_ridge_learns_what_a_channel_shows_and_nothing_from_a_blank_one():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(2, 300, 3, 4))
    labels = np.stack([features[0, :, 0, 1] > 0, features[0, :, 1, 2] > 0], 1)
    features[1] = features[0]
    tested = features[:, 200:].copy()
    features[:, :, 1] = 0.5  # all that tells the second label is blacked out
    scores = ridge_scores(features[:, :200], labels[:200], tested)
    ((first,), (second,)) = (
        auroc(*each, np.zeros(100, int), np.ones((1, 100))) for each in zip(scores.T, labels[200:].T, strict=True)
    )
    assert first > 0.95 and 0.35 < second < 0.65
    assert not ridge_scores(np.ones((2, 4, 3, 4)), labels[:4], tested).any()


def test_regions_are_those_of_the_signs_and_of_what_they_imply(rows):
    affected = affected_regions(rows)
    for row, found in zip(rows, affected, strict=True):
        names = {finding["manifestation"] for finding in row["findings"]}
        expected = {"half_face"} if "port_wine_stain" in names else set()
        expected |= {"face"} if names & {"jaundice", "scar"} else set()
        expected |= {"conjunctiva"} if "jaundice" in names else set()
        assert {REGIONS[region] for region in np.flatnonzero(found)} == expected
    assert affected.any(0).sum() == 3


@pytest.fixture
def people(rows):
    photos = np.stack([np.asarray(image) for image in rows["image"]])
    return People(photos, np.array(rows["subject_id"]), np.array(rows["landmarks"], np.float32))


@pytest.fixture
def downstream(rows, people, monkeypatch):
    monkeypatch.setattr("medeid.evaluation.downstream._FEWEST", 5)
    none = people[:0]
    return DownstreamTest(Cohort(rows, people, none, none, none, None, None, 0))


def results(people, kept=slice(None)):
    rows = np.arange(len(people))[kept]
    return {"photos": Released(rows, people[rows]), "attacker": Released(NOBODY, people[:0])}


def test_originals_teach_what_originals_teach(downstream, people):
    figures = downstream.run(results(people))
    assert figures["photos"] == figures["auroc"].count == len(people)
    assert figures["auroc"] == figures["auroc_originals"] and figures["auroc"].chance == 0.5
    assert figures["auroc"].low < figures["auroc"].value < figures["auroc"].high
    assert {row["auroc"] == row["auroc_originals"] for row in figures["by_region"].values()} == {True}


def test_the_same_face_for_everybody_teaches_nothing(downstream, people):
    same = People(
        people.photos[:1].repeat(len(people), 0), people.subjects, people.landmarks[:1].repeat(len(people), 0)
    )
    figures = downstream.run(results(same))
    assert figures["auroc"].value == figures["auroc"].low == 0.5
    assert figures["auroc_originals"] == downstream.run(results(people))["auroc_originals"]


def test_what_is_marked_in_training_and_not_on_originals_is_of_no_use(downstream, rows, people):
    marked = people.photos // 4
    marked[affected_regions(rows)[:, REGIONS.index("face")]] += 180
    figures = downstream.run(results(People(marked, people.subjects, people.landmarks)))
    assert figures["by_region"]["face"]["auroc"] < 0.8


def test_few_results_teach_less_but_are_tried_on_all_originals(downstream, people):
    figures = downstream.run(results(people, slice(0, 6)))
    assert figures["photos"] == 6 and figures["auroc"].count == len(people)
    assert figures["auroc"] != figures["auroc_originals"]


def test_without_enough_signs_there_is_no_figure(rows, people, monkeypatch):
    monkeypatch.setattr("medeid.evaluation.downstream._FEWEST", 100)
    none = people[:0]
    downstream = DownstreamTest(Cohort(rows, people, none, none, none, None, None, 0))
    assert downstream.run(results(people)) is None
