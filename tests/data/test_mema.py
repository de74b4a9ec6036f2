"""Small data sets of an astronaut, as `medeid simulate` and as hospitals write them, and what the loader says."""

import csv
import io
import json
import shutil
import tarfile
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from medeid.data.mema import DataSetError, decode_masks, encode_masks, load_mema, masks_by_manifestation
from medeid.manifestations.taxonomy import LABELS, TAXONOMY

SIZE = 48
PTOSIS = {"manifestation": "ptosis", "side": "left", "severity": 0.62}
ROSACEA = {"manifestation": "rosacea", "side": "both", "severity": 0.3}
COLUMNS = {
    "image", "mask", "findings", "labels", "severities", "landmarks", "subject_id",
    "source", "seed", "skin_tone", "sex", "group",
}  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Whatever `datasets` caches goes with the test."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def photo(astronaut) -> Image.Image:
    return Image.fromarray(astronaut[:240, 120:360]).resize((SIZE, SIZE))


def masks_of(findings) -> np.ndarray:
    """bool [F, 48, 48]: a box for each finding, each over half of the last."""
    masks = np.zeros((len(findings), SIZE, SIZE), bool)
    for i in range(len(findings)):
        masks[i, 8 : 8 + 10 * (i + 1), 10:30] = True
    return masks


def landmarks(shift: float = 0.0) -> list[list[float]]:
    return (np.random.default_rng(0).uniform(40, 200, (478, 3)) + shift).round(2).tolist()


def row(number: int, findings, **more) -> dict:
    return {
        "file_name": f"images/000/{number:06d}.jpg",
        "mask_file_name": f"masks/000/{number:06d}.png",
        "subject_id": f"s{number}",
        "findings": findings,
        "landmarks": landmarks(number),
        "source": f"face{number}",
        "seed": number,
        "skin_tone": "brown",
        "sex": "",
        "group": "",
    } | more


def write_pictures(folder: Path, rows: list[dict], photo: Image.Image) -> None:
    for each in rows:
        image, mask = folder / each["file_name"], folder / each["mask_file_name"]
        image.parent.mkdir(parents=True, exist_ok=True)
        mask.parent.mkdir(parents=True, exist_ok=True)
        photo.save(image, quality=95, subsampling=0)
        encode_masks(masks_of(each["findings"])).save(mask)


def write_jsonl(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))


def write_csv(path: Path, rows: list[dict], delimiter: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def simulated(tmp_path, photo) -> Path:
    """A data set as `medeid simulate` writes it: three rows to train on, one to validate."""
    folder = tmp_path / "simulated"
    for split, rows in {
        "train": [row(0, [PTOSIS, ROSACEA]), row(1, []), row(2, [ROSACEA], sex="female", group="Asian")],
        "validation": [row(3, [PTOSIS])],
    }.items():
        write_jsonl(folder / split / "metadata.jsonl", rows)
        write_pictures(folder / split, rows, photo)
    return folder


def change(folder: Path, number: int, split: str = "train", **values) -> None:
    """Overwrites values of one row of a simulated data set; None takes a column away."""
    path = folder / split / "metadata.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[number] = {key: value for key, value in (rows[number] | values).items() if value is not None}
    write_jsonl(path, rows)


def same(left: dict, right: dict) -> None:
    """Asserts that two rows are the same, pictures by their pixels."""
    assert left.keys() == right.keys()
    for name in left:
        if name in ("image", "mask", "landmarks", "severities"):
            np.testing.assert_array_equal(np.asarray(left[name]), np.asarray(right[name]))
        else:
            assert left[name] == right[name]


def test_simulated_set(simulated, photo):
    loaded = load_mema(simulated)
    assert len(loaded) == 3 and set(loaded.column_names) == COLUMNS
    first, healthy, last = loaded
    assert first["image"].mode == "RGB" and first["image"].size == (SIZE, SIZE)
    assert np.abs(np.asarray(first["image"]).astype(int) - np.asarray(photo)).mean() < 4
    np.testing.assert_array_equal(decode_masks(first["mask"], 2), masks_of([PTOSIS, ROSACEA]))
    assert first["findings"] == [PTOSIS, ROSACEA] and healthy["findings"] == []
    assert [LABELS[i] for i in np.flatnonzero(first["labels"])] == ["ptosis:left", "rosacea"]
    assert first["severities"][LABELS.index("ptosis:left")] == pytest.approx(0.62)
    assert not any(healthy["labels"]) and not decode_masks(healthy["mask"], 0).any()
    np.testing.assert_allclose(first["landmarks"], landmarks(0), rtol=1e-6)
    assert (first["subject_id"], first["source"], first["seed"], first["sex"]) == ("s0", "face0", 0, None)
    assert (last["sex"], last["group"], last["skin_tone"]) == ("female", "Asian", "brown")
    assert len(load_mema(simulated, "validation")) == 1


def test_masks_for_an_encoder(simulated):
    first = load_mema(str(simulated))[0]
    planes = masks_by_manifestation(first["mask"], first["findings"])
    np.testing.assert_array_equal(planes[list(TAXONOMY).index("rosacea")], masks_of([PTOSIS, ROSACEA])[1])


def test_types_for_training(simulated):
    loaded = load_mema(simulated)
    batch = loaded.select_columns(["labels", "severities", "landmarks"]).with_format("numpy")[:]
    assert {name: values.shape for name, values in batch.items()} == {
        "labels": (3, len(LABELS)), "severities": (3, len(LABELS)), "landmarks": (3, 478, 3),
    }  # fmt: skip
    assert batch["severities"].dtype == batch["landmarks"].dtype == np.float32
    assert loaded.features["labels"].feature.dtype == "uint8"


def test_streaming_gives_the_same_rows(simulated):
    loaded, stream = load_mema(simulated), load_mema(simulated, streaming=True)
    assert isinstance(stream, datasets.IterableDataset)
    assert stream.features == loaded.features
    rows = list(stream)
    assert len(rows) == 3
    for left, right in zip(loaded, rows, strict=True):
        same(left, right)


def test_streaming_reads_no_further_than_it_must(simulated):
    with (simulated / "train" / "metadata.jsonl").open("a") as file:
        file.write(" " * (8 << 20) + "\nnot json\n")  # beyond what is in memory at a time
    rows = iter(load_mema(simulated, streaming=True))
    assert [next(rows)["subject_id"] for _ in range(3)] == ["s0", "s1", "s2"]
    with pytest.raises(DataSetError, match="is not JSON"):
        next(rows)


def test_sets_can_be_joined(simulated, hospital):
    own = load_mema(hospital, **HOSPITAL)
    joined = datasets.concatenate_datasets([load_mema(simulated), own])
    assert len(joined) == 3 + len(own)


def test_imagefolder_of_datasets_reads_a_simulated_set(simulated):
    loaded = datasets.load_dataset("imagefolder", data_dir=str(simulated), split="train")
    assert isinstance(loaded.features["mask"], datasets.Image)
    assert loaded[0]["findings"] == [PTOSIS, ROSACEA] and loaded[0]["mask"].mode == "P"


def test_only_what_a_filter_kept(simulated, tmp_path):
    kept = tmp_path / "kept.txt"
    names = [f"train/{name}" for name in ("images/000/000000.jpg", "images/000/000002.jpg")]
    kept.write_text("\n".join([*names, "validation/images/000/000001.jpg"]))
    whole = load_mema(simulated)
    for loaded in (load_mema(simulated, kept=kept), list(load_mema(simulated, kept=kept, streaming=True))):
        assert [row["subject_id"] for row in loaded] == [whole[0]["subject_id"], whole[2]["subject_id"]]
    kept.write_text("images/000/000001.jpg\n")  # of a report on another folder
    with pytest.raises(DataSetError, match="split 'train', of those in `kept`: no row is left"):
        load_mema(simulated, kept=kept)
    with pytest.raises(ValueError, match="`kept` cannot be read"):
        load_mema(simulated, kept=tmp_path / "none.txt")


@pytest.fixture
def parquet(simulated, tmp_path) -> Path:
    """The simulated set as the Hub keeps it after `push_to_hub`: Parquet files with the pictures in them."""
    folder = tmp_path / "parquet"
    folder.mkdir()
    for split in ("train", "validation"):
        loaded = datasets.load_dataset("imagefolder", data_dir=str(simulated), split=split)
        embedded = [each | {"image": png(each["image"]), "mask": png(each["mask"])} for each in loaded]
        datasets.Dataset.from_list(embedded, features=loaded.features).to_parquet(folder / f"{split}-00000.parquet")
    return folder


@pytest.fixture
def hub_id(simulated, tmp_path, monkeypatch) -> str:
    """A name on the Hub, as it is known off the net: by what an earlier download left in the cache."""
    made = Path(
        datasets.load_dataset("imagefolder", data_dir=str(simulated))["train"].cache_files[0]["filename"]
    ).parent
    kept = tmp_path / "cache" / "clinic___mema" / "default" / "0.0.0" / made.name
    shutil.copytree(made, kept)
    for split in ("train", "validation"):
        (kept / f"imagefolder-{split}.arrow").rename(kept / f"mema-{split}.arrow")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return "clinic/mema"


def png(image: Image.Image) -> dict:
    file = io.BytesIO()
    image.save(file, "PNG")
    return {"path": None, "bytes": file.getvalue()}


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("source", ["parquet", "hub_id"])
def test_a_set_that_datasets_loads(simulated, source, streaming, check, request):
    """A name on the Hub goes the same way as a folder that holds no table."""
    loaded = load_mema(request.getfixturevalue(source), streaming=streaming, check=check)
    rows = list(loaded)
    assert len(rows) == 3 and loaded.features == load_mema(simulated).features
    for left, right in zip(load_mema(simulated), rows, strict=True):
        same(left, right)


def test_a_set_that_datasets_loads_is_checked(parquet):
    with pytest.raises(DataSetError, match="no split 'test'; there are: train, validation"):
        load_mema(parquet, "test")
    with pytest.raises(DataSetError, match="no column `patient`; there are: image, mask, subject_id"):
        load_mema(parquet, columns={"subject_id": "patient"})
    with pytest.raises(ValueError, match="`table`, `images`, `masks` and `kept`"):
        load_mema(parquet, masks="masks/{stem}.png")
    with pytest.raises(ValueError, match="`label_map` leaves out a sign that has a bit"):
        load_mema(parquet, label_map={"rosacea": None})
    loaded = datasets.load_dataset("parquet", data_dir=str(parquet), split="validation")
    bad = [loaded[0] | {"subject_id": "s1", "image": png(loaded[0]["image"]), "mask": png(loaded[0]["mask"])}]
    datasets.Dataset.from_list(bad, features=loaded.features).to_parquet(parquet / "validation-00000.parquet")
    with pytest.raises(DataSetError, match="column `subject_id`: 1 subjects are in 'train' and in 'validation'"):
        load_mema(parquet)
    bad[0]["findings"] = [{"manifestation": "ptosys", "side": "left", "severity": 0.5}]
    datasets.Dataset.from_list(bad, features=loaded.features).to_parquet(parquet / "validation-00000.parquet")
    for streaming in (False, True):
        with pytest.raises(DataSetError, match="parquet, split 'validation', row 0, column `findings`: .*mean ptosis"):
            list(load_mema(parquet, "validation", streaming=streaming))


# A hospital's folder: photos and masks apart, semicolons, German words, no landmarks.
HOSPITAL = {
    "table": "befunde.csv",
    "columns": {"file_name": "foto", "subject_id": "pseudonym", "findings": "befund", "age": "alter"},
    "label_map": {"Hängelid": "ptosis", "Gelbsucht": "jaundice", "Kopfschmerz": None},
    "images": "fotos/{file_name}.png",
    "masks": "masken/{stem}_{label}.png",
    "validation_share": 0.0,
}
BEFUNDE = [
    {
        "foto": "a1",
        "pseudonym": "p1",
        "befund": "Hängelid:left=0.8; Kopfschmerz; Gelbsucht",
        "alter": "61",
        "arzt": "A",
    },
    {"foto": "a2", "pseudonym": "p1", "befund": "", "alter": "61", "arzt": "A"},
    {"foto": "b1", "pseudonym": "p2", "befund": "gelbsucht", "alter": "", "arzt": "B"},
]


@pytest.fixture
def hospital(tmp_path, photo) -> Path:
    folder = tmp_path / "hospital"
    write_csv(folder / "befunde.csv", BEFUNDE, ";")
    for name in ("fotos", "masken"):
        (folder / name).mkdir()
    for each in BEFUNDE:
        photo.save(folder / "fotos" / f"{each['foto']}.png")
    lid, skin = masks_of([PTOSIS, ROSACEA])
    Image.fromarray(lid).save(folder / "masken" / "a1_Hängelid_left.png")
    Image.fromarray(skin.astype(np.uint8) * 255).convert("RGB").save(folder / "masken" / "a1_Gelbsucht.png")
    return folder


@pytest.mark.parametrize("streaming", [False, True])
def test_hospital_set(hospital, streaming):
    first, healthy, unsegmented = load_mema(hospital, streaming=streaming, check=True, **HOSPITAL)
    assert set(first) == COLUMNS | {"age"}  # and the doctors' names stay where they are
    assert [(each["manifestation"], each["severity"]) for each in first["findings"]] == [
        ("ptosis", 0.8), ("jaundice", 0.6),
    ]  # fmt: skip
    np.testing.assert_array_equal(decode_masks(first["mask"], 2), masks_of([PTOSIS, ROSACEA]))
    # With jaundice the whites of the eyes are yellow, whether a table says so or not.
    assert [LABELS[i] for i in np.flatnonzero(first["labels"])] == ["ptosis:left", "scleral_icterus", "jaundice"]
    assert (first["subject_id"], first["age"], first["landmarks"]) == ("p1", "61", None)
    assert healthy["findings"] == [] and healthy["mask"] is None
    assert unsegmented["findings"][0]["manifestation"] == "jaundice" and unsegmented["mask"] is None
    assert unsegmented["age"] is None


def test_a_column_for_each_sign(tmp_path, photo):
    rows = [
        {"file_name": "1.png", "subject_id": "1", "droop l": "1", "yellow": "0", "fold": "0"},
        {"file_name": "2.png", "subject_id": "2", "droop l": "", "yellow": "0.9", "fold": "1"},
    ]
    write_csv(tmp_path / "metadata.csv", rows)
    for each in rows:
        photo.save(tmp_path / each["file_name"])
    options = {
        "columns": {"findings": ["droop l", "yellow"], "split": "fold"},
        "label_map": {"droop l": "ptosis:left", "yellow": "jaundice"},
    }
    (first,) = load_mema(tmp_path, "0", default_severity=0.5, **options)
    assert first["findings"] == [{"manifestation": "ptosis", "side": "left", "severity": 0.5}]
    (second,) = load_mema(tmp_path, "1", **options)
    assert second["findings"] == [{"manifestation": "jaundice", "side": "both", "severity": 0.9}]
    with pytest.raises(DataSetError, match="split '7': no row"):
        load_mema(tmp_path, "7", **options)


def test_bit_fields_by_pattern_and_columns_in_json(simulated):
    rows = [json.loads(line) for line in (simulated / "train" / "metadata.jsonl").read_text().splitlines()]
    for each in rows:
        del each["mask_file_name"]
        each["file_name"] = each["file_name"].removeprefix("images/")
        each["subject_id"] = int(each["subject_id"][1:])  # Arrow was promised text, so `json` reads these rows
    write_jsonl(simulated / "train" / "labels.jsonl", rows)
    options = {"table": "{split}/labels.jsonl", "images": "images/{file_name}", "masks": "masks/{stem}.png"}
    for left, right in zip(load_mema(simulated), load_mema(simulated, **options), strict=True):
        same(left, right | {"subject_id": f"s{right['subject_id']}"})


def test_landmarks_in_a_csv(tmp_path, photo):
    photo.save(tmp_path / "1.png")
    only = {"file_name": "1.png", "subject_id": "1", "findings": "", "landmarks": json.dumps(landmarks())}
    write_csv(tmp_path / "metadata.csv", [only])
    loaded = load_mema(tmp_path, validation_share=0.0)
    np.testing.assert_allclose(loaded[0]["landmarks"], landmarks(), rtol=1e-6)


def test_splits_by_subject(tmp_path, photo):
    photo.save(tmp_path / "x.png")
    rows = [{"file_name": f"{i}/../x.png", "subject_id": f"s{i // 2}", "findings": ""} for i in range(400)]
    for i in range(400):
        (tmp_path / str(i)).mkdir()
    write_csv(tmp_path / "metadata.csv", rows)
    train, validation = (load_mema(tmp_path, split, validation_share=0.25) for split in ("train", "validation"))
    assert len(train) + len(validation) == 400 and 70 < len(validation) < 130
    assert not set(train["subject_id"]) & set(validation["subject_id"])
    write_csv(tmp_path / "metadata.csv", rows[::-1])
    again = load_mema(tmp_path, "validation", validation_share=0.25, streaming=True)
    assert sorted(each["subject_id"] for each in again) == sorted(validation["subject_id"])
    assert set(validation["subject_id"]) < set(load_mema(tmp_path, "validation", validation_share=0.5)["subject_id"])
    with pytest.raises(DataSetError, match='without a column `split` the splits are "train" and "validation"'):
        load_mema(tmp_path, "test")


def test_a_photo_is_turned_upright(tmp_path, photo):
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    photo.crop((0, 0, 40, 30)).save(tmp_path / "1.jpg", exif=exif)
    encode_masks(np.ones((1, 40, 30), bool)).save(tmp_path / "1.png")
    write_csv(tmp_path / "metadata.csv", [{"file_name": "1.jpg", "subject_id": "1", "findings": "rosacea"}])
    loaded = load_mema(tmp_path, masks="{stem}.png", validation_share=0.0, check=True)
    assert loaded[0]["image"].size == loaded[0]["mask"].size == (30, 40)


@pytest.mark.parametrize(
    ("number", "values", "told"),
    [
        (0, {"findings": [PTOSIS | {"manifestation": "ptosys"}]}, "line 1, column `findings`: .*did you mean ptosis"),
        (1, {"findings": [PTOSIS | {"severity": 7.0}]}, "line 2, column `findings`: `severity` of ptosis"),
        (1, {"findings": [ROSACEA] * 9}, "line 2, column `findings`: 9 findings"),
        (1, {"findings": None}, "line 2, column `findings`: is missing"),
        (2, {"file_name": "images/none.jpg"}, "line 3, column `file_name`: there is no picture .*images/none.jpg"),
        (2, {"mask_file_name": "masks/none.png"}, "line 3, column `mask_file_name`: there is no mask"),
        (2, {"file_name": row(0, [])["file_name"]}, "line 3, column `file_name`: the same picture .*line 1"),
        (1, {"landmarks": landmarks()[:68]}, r"line 2, column `landmarks`: .*has \[68, 3\]"),
        (1, {"landmarks": [point[:2] for point in landmarks()]}, r"line 2, column `landmarks`: .*has \[478, 2\]"),
        (1, {"landmarks": landmarks(300)}, "line 2, column `landmarks`: points lie outside"),
        (1, {"subject_id": ""}, "line 2, column `subject_id`: is empty"),
        (1, {"subject_id": None}, "line 2, column `subject_id`: is empty"),
        (0, {"subject_id": None}, "no column `subject_id`; there are: file_name, mask_file_name, findings"),
        (0, {"subject_id": "s3"}, "line 1, column `subject_id`: the subject is also in .*train"),
    ],
)
def test_rows_that_cannot_be(simulated, number, values, told):
    change(simulated, number, **values)
    with pytest.raises(DataSetError, match=f"metadata.jsonl.*{told}"):
        load_mema(simulated)


@pytest.mark.parametrize("number", [0, 2])
def test_a_stream_says_what_is_wrong_when_it_gets_there(simulated, number):
    change(simulated, number, file_name="images/none.jpg")
    rows = iter(load_mema(simulated, streaming=True))
    for _ in range(number):
        next(rows)
    with pytest.raises(DataSetError, match=f"line {number + 1}, column `file_name`"):
        next(rows)


def test_errors_are_told_together(simulated):
    change(simulated, 0, file_name="images/none.jpg")
    change(simulated, 2, seed="x")
    with pytest.raises(DataSetError) as error:
        load_mema(simulated)
    first, second = str(error.value).splitlines()
    assert "line 1, column `file_name`" in first and "line 3, column `seed`" in second


def test_no_more_than_ten_errors(simulated):
    path = simulated / "train" / "metadata.jsonl"
    write_jsonl(path, [row(9, [], file_name=f"{i}.jpg", landmarks=None) for i in range(30)])
    with pytest.raises(DataSetError) as error:
        load_mema(simulated)
    assert len(str(error.value).splitlines()) == 10


def test_a_subject_in_two_splits_of_one_table(tmp_path, photo):
    rows = []
    for name, split in (("1.png", "train"), ("2.png", "test")):
        photo.save(tmp_path / name)
        rows.append({"file_name": name, "subject_id": "s", "findings": "", "split": split})
    write_csv(tmp_path / "metadata.csv", rows)
    with pytest.raises(DataSetError, match="line 3, column `subject_id`: .* in split 'train' and in 'test'"):
        load_mema(tmp_path)


def test_pixels_are_looked_at_when_asked(simulated):
    load_mema(simulated, check=True)
    train = simulated / "train"
    encode_masks(masks_of([PTOSIS] * 3)).save(train / "masks/000/000000.png")
    encode_masks(masks_of([])[:, :20]).save(train / "masks/000/000001.png")
    (train / "images/000/000002.jpg").write_bytes((train / "images/000/000002.jpg").read_bytes()[:300])
    assert len(load_mema(simulated)) == 3
    with pytest.raises(DataSetError) as error:
        load_mema(simulated, check=True)
    first, second, third = str(error.value).splitlines()
    assert "line 1, column `mask`: `picture` has bit 2 set" in first
    assert "line 2, column `mask`: has 48 x 20 px, but the upright picture 48 x 48" in second
    assert "line 3, column `image`: cannot be decoded" in third
    with pytest.raises(DataSetError, match="line 1, column `mask`"):
        next(iter(load_mema(simulated, streaming=True, check=True)))
    Image.fromarray(np.zeros((SIZE, SIZE), np.uint16)).save(train / "images/000/000000.jpg", "PNG")
    with pytest.raises(DataSetError, match="line 1, column `image`: has more than 8 bits"):
        load_mema(simulated, check=True)


def test_masks_of_a_hospital_that_cannot_be(hospital, photo):
    skin = hospital / "masken" / "a1_Gelbsucht.png"
    kept = skin.read_bytes()
    skin.unlink()
    with pytest.raises(DataSetError, match="line 2, column `befund`: no mask .*a1_Gelbsucht.png, but there are others"):
        load_mema(hospital, **HOSPITAL)
    skin.write_bytes(b"no picture")
    with pytest.raises(DataSetError, match="line 2: the mask .*a1_Gelbsucht.png cannot be read"):
        load_mema(hospital, **HOSPITAL)
    Image.new("L", (9, 9)).save(skin)
    with pytest.raises(DataSetError, match=r"line 2: the mask .*a1_Gelbsucht.png has size \[9, 9\]"):
        load_mema(hospital, **HOSPITAL)
    skin.write_bytes(kept)
    with pytest.raises(DataSetError, match="is the path of no file"):
        load_mema(hospital, **HOSPITAL | {"masks": "masks/{stem}_{label}.png"})
    for word in ("Hängelid_left", "Gelbsucht"):
        photo.save(hospital / "masken" / f"a1_{word}.jpg")
    with pytest.raises(DataSetError, match="line 2: the mask .*a1_Hängelid_left.jpg is in a lossy format"):
        load_mema(hospital, **HOSPITAL | {"masks": "masken/{stem}_{label}.jpg"})
    encode_masks(masks_of([PTOSIS, PTOSIS, ROSACEA])).save(hospital / "masken" / "a1.png")
    with pytest.raises(DataSetError, match="line 2, column `befund`: `label_map` leaves out a sign that has a bit"):
        load_mema(hospital, **HOSPITAL | {"masks": "masken/{stem}.png"})


def test_tables_that_cannot_be_read(tmp_path, simulated):
    path = simulated / "train" / "metadata.jsonl"
    whole = path.read_text()
    for text, told in [
        (whole + '{"file_name": \n', "line 4: is not JSON"),
        (whole + "[1, 2]\n", "line 4: must be an object"),
        ("\n\n", "has no rows"),
    ]:
        path.write_text(text)
        with pytest.raises(DataSetError, match=f"metadata.jsonl.*{told}"):
            load_mema(simulated)
    path.write_bytes(b'{"file_name": "\xe4"}\n')
    with pytest.raises(DataSetError, match="metadata.jsonl, line 1: is not UTF-8"):
        load_mema(simulated)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("file_name,subject_id,findings\n1.png,s1,ptosis,jaundice\n", "line 2: has more cells"),
        ("file_name,subject_id,findings\n\n1.png,s1\n", "line 3: has fewer cells"),
        ('file_name,subject_id,findings\n1.png,s1,"ptosis\n', "line 2: is not CSV"),
        ("file_name,subject_id,subject_id,findings\n1.png,s1,s1,\n", "line 1: two columns are called `subject_id`"),
        ("file_name,findings\n1.png,\n", "no column `subject_id`; there are: file_name, findings"),
        ("file_name,subject_id,findings\n", "has no rows"),
    ],
)
def test_csv_that_cannot_be_read(tmp_path, text, told):
    (tmp_path / "metadata.csv").write_text(text)
    with pytest.raises(DataSetError, match=f"metadata.csv.*{told}"):
        load_mema(tmp_path)


def test_csv_in_another_encoding(tmp_path):
    (tmp_path / "metadata.csv").write_bytes("file_name,subject_id,findings\n1.png,s1,Hängelid\n".encode("latin-1"))
    with pytest.raises(DataSetError, match="Save the table as UTF-8"):
        load_mema(tmp_path)


def test_a_spreadsheets_csv(tmp_path, photo):
    photo.save(tmp_path / "1.png")
    text = "\ufefffile_name;subject_id;findings\r\n1.png;s1;rosacea\r\n"
    (tmp_path / "metadata.csv").write_bytes(text.encode())
    assert load_mema(tmp_path, validation_share=0.0)[0]["findings"][0]["manifestation"] == "rosacea"


def test_a_table_that_is_not_found(simulated, hospital, tmp_path):
    with pytest.raises(DataSetError, match="no table for `split` 'test'; there are: train/metadata.jsonl, validation/"):
        load_mema(simulated, "test")
    with pytest.raises(DataSetError, match="Name it by `table`; there are: befunde.csv"):
        load_mema(hospital)
    with pytest.raises(DataSetError, match="no `table` labels.csv; there are: befunde.csv"):
        load_mema(hospital, table="labels.csv")
    with pytest.raises(ValueError, match="`path_or_hub_id` is no folder"):
        load_mema(tmp_path / "none")


def test_arguments_that_cannot_be(simulated):
    for options, told in [
        ({"validation_share": 1.0}, "`validation_share`"),
        ({"images": "photos"}, r"`images` must be a path with \{file_name\}, \{stem\}"),
        ({"masks": "masks/{name}.png"}, "`masks` must be a path with"),
        ({"data_files": "*.tar"}, "Pass `streaming=True`"),
        ({"data_files": {"test": "*.tar"}}, "`data_files` names no files of `split` 'train', only of: test"),
    ]:
        with pytest.raises(ValueError, match=told):
            load_mema(simulated, **options)


@pytest.fixture
def shards(simulated, tmp_path) -> Path:
    """The simulated set as two WebDataset shards: the rows of the first are healthy faces without landmarks."""
    folder = tmp_path / "shards"
    folder.mkdir()
    train = simulated / "train"
    rows = [json.loads(line) for line in (train / "metadata.jsonl").read_text().splitlines()]
    healthy = [rows[1] | {"findings": [], "landmarks": None}] * 6
    for number, (name, part) in enumerate({"train-000.tar": healthy, "train-001.tar": [rows[0], rows[2]]}.items()):
        with tarfile.open(folder / name, "w") as archive:
            for i, each in enumerate(part):
                files = {
                    "json": json.dumps(each).encode(),
                    "jpg": (train / each["file_name"]).read_bytes(),
                    "png": (train / each["mask_file_name"]).read_bytes(),
                }
                for suffix, data in files.items():
                    member = tarfile.TarInfo(f"{number}/{i:05d}.{suffix}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    return folder


@pytest.mark.parametrize("pattern", ["train-*.tar", {"train": "train-*.tar"}])
def test_tar_shards(simulated, shards, pattern):
    stream = load_mema(shards, data_files=pattern, streaming=True, check=True)
    assert stream.num_shards == 2  # so that two workers can read
    *healthy, first, last = stream
    assert len(healthy) == 6 and all(each["findings"] == [] and each["landmarks"] is None for each in healthy)
    loaded = load_mema(simulated)
    same(loaded[0], first)
    same(loaded[2], last)


def test_tar_shards_that_cannot_be(shards):
    with pytest.raises(DataSetError, match="`data_files` 'test-.*' matches no file"):
        load_mema(shards, data_files="test-*.tar", streaming=True)
    with pytest.raises(DataSetError, match='holds tar shards. Name them: `data_files="'):
        load_mema(shards, streaming=True)
    stream = load_mema(shards, data_files="train-001.tar", label_map={"rosacea": None}, streaming=True)
    with pytest.raises(DataSetError, match="train-001.tar, sample 1/00000, column `findings`: `label_map` leaves out"):
        list(stream)
    whole = (shards / "train-001.tar").read_bytes()
    (shards / "train-001.tar").write_bytes(whole[:6000])
    with pytest.raises(DataSetError, match="train-001.tar: is not a whole tar"):
        list(load_mema(shards, data_files="train-001.tar", streaming=True))
    with tarfile.open(shards / "train-001.tar", "w") as archive:
        archive.add(shards / "train-000.tar", "x.jpg")
    with pytest.raises(DataSetError, match="sample x: has no member .json with the row; there are: jpg"):
        list(load_mema(shards, data_files="train-001.tar", streaming=True))
