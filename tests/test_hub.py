"""Pipelines on the Hub: one on 127.0.0.1, which huggingface_hub's own client downloads from and uploads to."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import dynamic_modules_utils
from hub_server import Hub, read_folder, sha256
from huggingface_hub import constants, hf_api
from safetensors.torch import load_file

from medeid import MedicalDeIDPipeline
from medeid.hub import loading_code
from medeid.pipeline import PACKAGED_WEIGHTS, find_model

TINY = PACKAGED_WEIGHTS / "medeid-tiny"
ENTRY = Path(__file__).parents[1] / "pipelines" / "medical_deid.py"
UNET = "unet/diffusion_pytorch_model.safetensors"
SMALL = {  # what find_model sees of a pipeline
    "model_index.json": b'{"_class_name": "MedicalDeIDPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}',
    "unet/config.json": b"{}",
    UNET: bytes(range(256)) * 1000,
}


@pytest.fixture
def hub(monkeypatch):
    """A Hub that this process takes for the Hub, as one with `HF_ENDPOINT` does from its start."""
    with Hub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # a protocol of its own
        monkeypatch.setattr(hf_api.api, "endpoint", server.url)
        yield server


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def draw(pipeline, photo):
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(photo, generator=torch.Generator().manual_seed(0), num_inference_steps=2).images[0]


@pytest.fixture(scope="module")
def drawn(pipeline, astronaut):
    """What the packaged pipeline makes of the photo."""
    return draw(pipeline, astronaut)


def test_a_pipeline_from_the_hub_is_the_one_that_was_uploaded_and_no_file_more_comes(hub, cache, drawn, astronaut):
    other = {"unet/diffusion_pytorch_model.bin": b"pickle", "unet/flax_model.msgpack": b"flax", "sd.ckpt": b"pickle"}
    other |= {"unet/checkpoint-1/" + Path(UNET).name: b"old", "identity_adapter/medeid.identity.adapter.py": b"exit(1)"}
    hub.add("clinic/tiny", {**read_folder(TINY), **other})
    loaded = MedicalDeIDPipeline.from_pretrained("clinic/tiny")
    needed = {path for path in read_folder(TINY) if path.endswith((".json", ".safetensors"))}
    assert len(hub.downloads()) == len(needed)
    assert {path.relative_to(cache).parts[3:] for path in cache.rglob("snapshots/*/**/*") if path.is_file()} == {
        Path(path).parts for path in needed
    }
    assert np.array_equal(draw(loaded, astronaut), drawn)


def test_what_is_in_the_cache_is_not_asked_for_again(hub, cache):
    hub.add("clinic/small", SMALL)
    first = find_model("clinic/small")
    hub.requests.clear()
    assert find_model("clinic/small") == first
    assert not hub.downloads()


def test_what_is_given_is_not_downloaded_and_a_variant_is(hub, cache):
    half = "unet/diffusion_pytorch_model.fp16.safetensors"
    hub.add("clinic/small", {**SMALL, half: b"half"})
    assert not (find_model("clinic/small", given=["unet"]) / "unet").exists()
    folder = find_model("clinic/small", variant="fp16")
    assert (folder / half).read_bytes() == b"half" and not (folder / UNET).exists()
    folder = find_model("clinic/small", variant="bf16")  # which it does not have
    assert (folder / UNET).read_bytes() == SMALL[UNET]


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub, cache):
    repository = hub.add("clinic/small", SMALL, ref="v1")
    hub.add("clinic/small", {**SMALL, UNET: b"second"})
    assert (find_model("clinic/small") / UNET).read_bytes() == b"second"
    for revision in ("v1", repository.refs["v1"]):
        assert (find_model("clinic/small", revision=revision) / UNET).read_bytes() == SMALL[UNET]
    with pytest.raises(FileNotFoundError, match="clinic/small has no revision v2"):
        find_model("clinic/small", revision="v2")


def test_a_cut_download_goes_on_where_it_was_cut(hub, cache, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)  # what is kept of a cut one; so the file can be small
    hub.add("clinic/small", SMALL)
    hub.cut_after[sha256(SMALL[UNET])] = 100_000
    assert (find_model("clinic/small") / UNET).read_bytes() == SMALL[UNET]
    assert [asked for method, path, asked in hub.requests if path.startswith("/large/")] == ["", "bytes=100000-"]


@pytest.mark.parametrize(
    "sent, message",
    [
        (SMALL[UNET][::-1], rf"damaged in the cache or on the way: {UNET}"),
        (SMALL[UNET] + b"more", "should be of size 256000 but has size 256004"),
        (SMALL[UNET][:-1], "should be of size 256000 but has size 255999"),
    ],
    ids=["digest", "longer", "shorter"],
)
def test_what_is_not_what_the_hub_has_is_not_used_and_not_kept(hub, cache, sent, message):
    hub.add("clinic/small", SMALL)
    hub.sent_instead[sha256(SMALL[UNET])] = sent
    for _ in range(2):
        with pytest.raises(OSError, match=message):
            find_model("clinic/small")
    hub.sent_instead.clear()
    assert (find_model("clinic/small") / UNET).read_bytes() == SMALL[UNET]


def test_what_is_damaged_in_the_cache_is_not_used(hub, cache):
    hub.add("clinic/small", SMALL)
    (find_model("clinic/small") / "unet" / "config.json").write_text("[]")
    with pytest.raises(OSError, match="damaged in the cache or on the way: unet/config.json"):
        find_model("clinic/small", local_files_only=True)


@pytest.mark.parametrize(
    "refusal, error, message",
    [
        ((401, "RepoNotFound"), FileNotFoundError, "no repository clinic/secret, or it is private: .* `hf auth login`"),
        ((403, "GatedRepo"), PermissionError, "owner of clinic/secret has not let you in: ask for access"),
        ((403, ""), PermissionError, r"does not let you read clinic/secret \(403\): log in"),
        ((503, ""), ConnectionError, "answers 503 when asked for clinic/secret"),
    ],
)
def test_who_may_not_read_a_repository_is_told_what_to_do(hub, cache, monkeypatch, refusal, error, message):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between tries
    hub.add("clinic/secret", SMALL, token="hf_right", refusal=refusal)
    for token in (False, "hf_wrong"):
        with pytest.raises(error, match=message):
            MedicalDeIDPipeline.from_pretrained("clinic/secret", token=token)
    assert (find_model("clinic/secret", token="hf_right") / UNET).is_file()


@pytest.mark.parametrize(
    "name, message",
    [
        ("clinic/unknown", "The Hub has no repository clinic/unknown"),
        ("clinic/empty", "clinic/empty holds no pipeline: it has no model_index.json"),
        ("no/such/folder", "no/such/folder is no folder, and cannot be the name of a repository"),
    ],
)
def test_what_is_no_pipeline_is_named(hub, cache, name, message):
    hub.add("clinic/empty", {"README.md": b""})
    with pytest.raises(FileNotFoundError, match=message):
        MedicalDeIDPipeline.from_pretrained(name)


def test_weights_that_can_run_code_are_neither_downloaded_nor_loaded(hub, cache, tmp_path):
    pickled = "unet/diffusion_pytorch_model.bin"
    hub.add("clinic/old", {**{path: SMALL[path] for path in SMALL if path != UNET}, pickled: b"pickle"})
    with pytest.raises(OSError, match="There are no safetensors for unet"):
        MedicalDeIDPipeline.from_pretrained("clinic/old")
    assert not list(cache.rglob("*.bin"))
    shutil.copytree(find_model("clinic/old"), tmp_path / "folder")
    (tmp_path / "folder" / pickled).write_bytes(b"pickle")
    with pytest.raises(OSError, match="There are no safetensors for unet"):
        MedicalDeIDPipeline.from_pretrained(tmp_path / "folder")


def test_offline_the_cache_is_enough_if_it_is_whole(hub, cache, tmp_path, monkeypatch):
    hub.add("clinic/small", SMALL)
    online = find_model("clinic/small")
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert find_model("clinic/small") == online
    assert find_model("clinic/small", local_files_only=True) == online
    (online / UNET).unlink()
    for name, options in (("clinic/small", {}), ("clinic/new", {}), ("clinic/small", {"cache_dir": tmp_path / "new"})):
        with pytest.raises(FileNotFoundError, match=f"{name} is not, or not whole, in the cache"):
            find_model(name, **options)
    assert not hub.requests


def test_a_lost_connection_is_told_apart(hub, cache, monkeypatch):
    hub.add("clinic/small", SMALL)
    hub.shutdown()
    hub.server_close()
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(ConnectionError, match="connection to the Hub failed"):
        find_model("clinic/small")


def test_what_is_pushed_is_complete_and_comes_back_the_same(hub, cache, pipeline, drawn, astronaut):
    pipeline.push_to_hub("clinic/tiny", commit_message="First")
    repository = hub.repositories["clinic/tiny"]
    pushed = repository.files()
    assert repository.private
    assert {*read_folder(TINY), "medical_deid.py"} <= set(pushed)
    assert "identity_adapter/medeid.identity.adapter.py" in pushed
    assert pushed["LICENSE"] == (TINY / "LICENSE").read_bytes()
    assert pushed["surrogates.jpg"] == (TINY / "surrogates.jpg").read_bytes()
    card = pushed["README.md"].decode()
    assert "| rank-1 re-identification" in card and "license: apache-2.0" in card and "](../" not in card
    assert not any(b"_name_or_path" in content for path, content in pushed.items() if path.endswith(".json"))
    loaded = MedicalDeIDPipeline.from_pretrained("clinic/tiny")
    assert np.array_equal(draw(loaded, astronaut), drawn)


@pytest.fixture
def changed(pipeline):
    """The pipeline with other weights in one place."""
    with torch.no_grad():
        pipeline.unet.conv_out.bias.add_(1.0)
    yield pipeline
    with torch.no_grad():
        pipeline.unet.conv_out.bias.copy_(load_file(TINY / UNET)["conv_out.bias"].float())


def test_changed_weights_do_not_take_the_figures_of_the_others_along(hub, cache, changed, tmp_path):
    changed.push_to_hub("clinic/other", private=False)
    pushed = hub.repositories["clinic/other"].files()
    card = pushed["README.md"].decode()
    assert (
        'MedicalDeIDPipeline.from_pretrained("clinic/other")' in card
        and "| unet | UNet2DConditionModel | 75.9 MB |" in card
    )
    assert "Nothing has been measured" in card and "rank-1" not in card
    assert "LICENSE" in pushed and "surrogates.jpg" not in pushed and not hub.repositories["clinic/other"].private
    hub.add("clinic/other", {**pushed, "README.md": b"---\n---\nWritten by hand."})
    changed.push_to_hub("clinic/other")
    assert hub.repositories["clinic/other"].files()["README.md"].endswith(b"Written by hand.")


def test_saving_can_push_and_nothing_else_in_the_folder_goes_along(hub, cache, pipeline, tmp_path):
    (tmp_path / "patient.png").write_bytes(b"a photo")
    (tmp_path / "figure.jpg").write_bytes(b"a curve")
    (tmp_path / "README.md").write_text("---\nlicense: other\n---\n![Figure](figure.jpg)\n")
    pipeline.save_pretrained(tmp_path, push_to_hub=True, repo_id="clinic/saved")
    pushed = hub.repositories["clinic/saved"].files()
    assert pushed["README.md"] == (tmp_path / "README.md").read_bytes()
    assert "figure.jpg" in pushed and "patient.png" not in pushed and "surrogates.jpg" not in pushed


def test_a_folder_as_the_hub_has_it_is_loaded_without_running_what_is_in_it(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    codes = sorted(tmp_path.rglob("*.py"))
    assert len(codes) == 6
    for code in codes:
        code.write_text("raise SystemExit('run')")
    loaded = MedicalDeIDPipeline.from_pretrained(tmp_path)
    assert type(loaded.shape_prior) is type(pipeline.shape_prior)


# What a user does who knows of diffusers only, in a process of its own; prints what was loaded.
STRANGER = """
import sys
from diffusers import DiffusionPipeline

for name in sys.argv[2:]:
    pipeline = DiffusionPipeline.from_pretrained(name, custom_pipeline=sys.argv[1], trust_remote_code=True)
    print(type(pipeline).__module__, pipeline.unet.conv_out.weight.double().sum().item())
"""


def test_diffusers_loads_it_by_custom_pipeline_from_the_hub_offline_and_from_a_folder(
    hub, cache, pipeline, tmp_path, monkeypatch
):
    pipeline.save_pretrained(tmp_path / "saved")
    hub.add("clinic/tiny", read_folder(tmp_path / "saved"))
    monkeypatch.setattr(dynamic_modules_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))  # which diffusers adds it to
    options = {"custom_pipeline": "medical_deid", "trust_remote_code": True}
    loaded = DiffusionPipeline.from_pretrained("clinic/tiny", **options)
    assert type(loaded) is MedicalDeIDPipeline
    told = f"medeid.pipeline {loaded.unet.conv_out.weight.double().sum().item()}"
    hub.requests.clear()
    paths = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_CACHE": str(cache)}
    run = subprocess.run(
        # The community file from disk: offline diffusers takes weights from its cache, but no code.
        [sys.executable, "-c", STRANGER, str(ENTRY), "clinic/tiny", str(tmp_path / "saved")],
        env={**os.environ, **paths, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "1"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert run.stdout.splitlines() == [told, told]
    assert not hub.requests


def test_by_the_real_variables_it_comes_from_another_hub(hub, tmp_path):
    hub.add("clinic/small", SMALL)
    code = "from medeid.hub import download_pipeline; print(download_pipeline('clinic/small'))"
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
    environment["HF_HUB_DISABLE_XET"] = "1"
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True, check=True, cwd=tmp_path
    )
    assert (Path(run.stdout.strip()) / UNET).read_bytes() == SMALL[UNET]


def test_the_community_file_says_how_to_install_what_is_missing(monkeypatch):
    code = ENTRY.read_text()
    assert code == loading_code("medeid.pipeline", "MedicalDeIDPipeline")
    monkeypatch.setitem(sys.modules, "medeid.pipeline", None)
    with pytest.raises(ImportError, match="pip install --upgrade medeid"):
        exec(code, {})
