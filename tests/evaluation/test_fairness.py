import numpy as np
import pytest

from medeid.evaluation.fairness import NOT_STATED, macro_f1_by_group, patient_groups


def test_macro_f1_of_each_group():
    labels = np.array([[1, 0], [0, 1], [1, 1], [0, 0], [0, 0]], bool)
    claimed = np.array([[1, 0], [0, 0], [1, 1], [0, 0], [1, 0]], bool)
    result = macro_f1_by_group(claimed, labels, ["light", "light", "light", "dark", "dark"])
    assert list(result) == ["light", "dark"]
    assert result["light"] == {"faces": 3, "macro_f1": pytest.approx((1 + 2 / 3) / 2)}
    assert result["dark"]["faces"] == 2 and np.isnan(result["dark"]["macro_f1"])


def test_groups_are_those_that_the_set_states(rows):
    groups = patient_groups(rows)
    assert groups["skin_tone"] == list(rows["skin_tone"])
    assert set(groups["sex"]) == {value or NOT_STATED for value in rows["sex"]}


def test_skin_tone_that_is_not_stated_is_measured_where_no_sign_changes_it(rows):
    stated = list(rows["skin_tone"])
    measured = patient_groups(rows.map(lambda row: {"skin_tone": None}))["skin_tone"]
    for tone, own, findings in zip(stated, measured, rows["findings"], strict=True):
        names = {finding["manifestation"] for finding in findings}
        if "jaundice" in names:
            assert own == NOT_STATED
        elif not names:
            assert own == tone
    bare = rows.select(range(3)).map(lambda row: {"skin_tone": "", "landmarks": None})
    assert patient_groups(bare)["skin_tone"] == [NOT_STATED] * 3
