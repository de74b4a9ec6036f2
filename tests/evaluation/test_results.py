"""What is there is not made again, whatever becomes of a photo."""

import json

import numpy as np
import pytest

from medeid.evaluation.classical import Pixelate
from medeid.evaluation.cohort import People, Task
from medeid.evaluation.protocol import Alias
from medeid.evaluation.results import MethodFolder, run_method


@pytest.fixture
def task():
    photos = np.arange(12, dtype=np.uint8).repeat(8 * 8 * 3).reshape(12, 8, 8, 3)
    subjects = np.array([str(number) for number in range(12)])
    landmarks = np.random.default_rng(0).uniform(0, 255, (12, 478, 3)).astype(np.float32)
    return Task("photos", People(photos, subjects, landmarks), tuple(Alias(b"k" * 16, name) for name in subjects))


class Tool:
    """Does with each photo what it is told to; by default it inverts it."""

    name = "tool"

    def __init__(self, **special):
        self.special, self.seen = special, []

    def __call__(self, photos, boxes, aliases):
        (photo,), (box,), (alias,) = photos, boxes, aliases
        self.seen.append(alias.pseudonym)
        assert -0.5 <= box.box[0] < box.box[2] <= 7.5 and box.points5.shape == (5, 2)
        result = self.special.get(f"of_{alias.pseudonym}", 255 - photo)
        if isinstance(result, BaseException):
            raise result
        photo[:] = 0  # no method can spoil the photos of the others
        return [result]


def run(method, task, root, jobs=None):
    folder, progress = MethodFolder(root), []
    run_method(method, [task], folder, lambda done, total: progress.append((done, total)), jobs)
    return folder, progress


def test_every_photo_is_asked_for_once(task, tmp_path):
    tool = Tool(of_3=None)
    folder, progress = run(tool, task, tmp_path)
    assert tool.seen == list(task.people.subjects) and progress[-1] == (12, 12)
    assert folder.counts(task) == {"released": 11, "withheld": 1, "failed": 0}
    assert sorted(path.name for path in (tmp_path / "photos").iterdir()) == [
        f"{row:06d}.png" for row in range(12) if row != 3
    ]
    again = Tool()
    folder, progress = run(again, task, tmp_path)
    assert again.seen == [] and progress == []
    assert folder.counts(task) == {"released": 11, "withheld": 1, "failed": 0}


def test_what_was_lost_or_failed_is_tried_again_and_nothing_else(task, tmp_path):
    run(Tool(of_2=ValueError("busy"), of_4=None), task, tmp_path)
    (tmp_path / "photos" / "000007.png").unlink()
    with open(tmp_path / "index.jsonl", "a") as file:
        file.write('{"picture": "photos/000005.png", "status": "with')  # a kill cut it short
    tool = Tool()
    folder, _ = run(tool, task, tmp_path)
    assert tool.seen == ["2", "7"]
    assert folder.counts(task) == {"released": 11, "withheld": 1, "failed": 0}
    assert all(json.loads(line) for line in (tmp_path / "index.jsonl").read_text().splitlines())


def test_two_processes_give_the_same_pictures_as_this_one(task, tmp_path):
    run(Pixelate(), task, tmp_path / "here")
    folder, progress = run(Pixelate(), task, tmp_path / "shared", jobs=2)
    assert folder.counts(task) == {"released": 12, "withheld": 0, "failed": 0} and progress[-1] == (12, 12)
    for row in range(12):
        here, shared = (tmp_path / where / f"photos/{row:06d}.png" for where in ("here", "shared"))
        assert here.read_bytes() == shared.read_bytes()


def test_failures_are_kept_with_their_reason_and_without_folders(task, tmp_path):
    halved = task.people.photos[1][:4]
    folder, _ = run(Tool(of_0=RuntimeError("no '/home/jane/x y.bin'"), of_1=halved, of_2="text"), task, tmp_path)
    reasons = [outcome.reason for outcome in folder.outcomes(task)[:3]]
    assert reasons[0] == "RuntimeError: no 'x y.bin'"
    assert reasons[1] == "ValueError: gave uint8 [4, 8, 3] for a photo of uint8 [8, 8, 3]"
    assert reasons[2].startswith("AttributeError")
    assert folder.counts(task) == {"released": 9, "withheld": 0, "failed": 3}


def test_a_method_that_only_fails_is_given_up(task, tmp_path):
    tool = Tool(**{f"of_{number}": OSError("not installed") for number in range(12)})
    folder, _ = run(tool, task, tmp_path)
    assert len(tool.seen) == 10 and folder.counts(task) == {"released": 0, "withheld": 0, "failed": 10}


def test_a_stop_is_no_failure(task, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(Tool(of_5=KeyboardInterrupt()), task, tmp_path)
    assert MethodFolder(tmp_path).counts(task) == {"released": 5, "withheld": 0, "failed": 0}
