import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_list_of_signs_is_that_of_the_taxonomy():
    table = runpy.run_path(str(ROOT / "examples" / "make_signs.py"))["table"]
    assert (ROOT / "docs" / "signs.md").read_text() == table(), "run: python examples/make_signs.py"
