"""Pipelines on the Hugging Face Hub: what is downloaded and checked, and what is uploaded."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from diffusers.schedulers.scheduling_utils import SCHEDULER_CONFIG_NAME
from diffusers.utils import CONFIG_NAME
from huggingface_hub import (
    ModelCard,
    ModelCardData,
    create_repo,
    file_exists,
    hf_hub_download,
    snapshot_download,
    upload_folder,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import safe_open

from .files import write_file

INDEX = "model_index.json"
CARD = "README.md"
LICENSES = "LICENSE*"
ENTRY = "medical_deid.py"  # the code of the pipeline, by diffusers' `custom_pipeline="medical_deid"`
DOWNLOAD_OPTIONS = ("cache_dir", "force_download", "local_files_only", "revision", "token")
UPLOAD_OPTIONS = ("repo_id", "commit_message", "private", "token", "create_pr")
_WEIGHTS = "diffusion_pytorch_model"
_LOG_IN = "log in by `hf auth login` or give `token`"
# What the HTTP client of huggingface_hub raises on lost connections, too; which client that is depends on its version.
_ClientError: type[Exception] = HfHubHTTPError.__bases__[0]
_PICTURE = re.compile(r"!\[[^\]]*\]\(([^)\s:]+)\)")
_LINK_OUT = re.compile(r"\[([^\]]+)\]\(\.\./[^)]*\)")

_CODE = '''"""`{name}` of medeid for diffusers. The code itself is in the package, which must be installed."""

try:
    from {module} import {name}
except ModuleNotFoundError as error:
    if error.name is None or error.name.partition(".")[0] != "medeid":
        raise
    raise ImportError("`{name}` is in the package medeid: `pip install --upgrade medeid`.") from error

__all__ = ["{name}"]
'''

_NEW_CARD = """# {title}

A pipeline of medeid, which replaces the faces in photos by those of people who do not exist.

```python
from medeid import MedicalDeIDPipeline

pipeline = MedicalDeIDPipeline.from_pretrained("{repo_id}")
```

{parts}

This card was written when the pipeline was uploaded. Nothing has been measured on these weights: how well they hide
a person and keep a disease is not known (`medeid benchmark FACES -o out/` measures it). A model may remember faces that
it has learned from: tell here whose they were, and what the weights may be used for. No medical device.
"""


def download_pipeline(repo_id: str, variant: str | None = None, given: Collection[str] = (), **hub: Any) -> Path:
    """Brings a pipeline from the Hub to its cache, if it is not there: configs and safetensors, and nothing else.

    Args:
        repo_id (`str`):
            Of the repository, `"org/name"`.
        variant (`str`, *optional*):
            Of the weights, such as `"fp16"`, where a component has it.
        given (collection of `str`, *optional*):
            Components that are not needed.
        hub:
            `cache_dir`, `force_download`, `local_files_only`, `revision` and `token`, as in huggingface_hub.

    Returns:
        `Path`: the folder in the cache.

    Raises:
        `FileNotFoundError`: there is no such repository or revision, or no pipeline in it; or it is not in the cache,
            offline.
        `PermissionError`: the repository is not for whoever asks.
        `ConnectionError`: the Hub cannot be reached, or sends nonsense.
        `OSError`: the files are not those of the repository.
    """
    with _explained(repo_id, hub.get("revision")):
        index = Path(hf_hub_download(repo_id, INDEX, **hub))
        folder = index.parent
        parts = [name for name in component_names(index) if name not in given]
        hub["revision"] = folder.name  # a commit: all files are of one version, whatever is uploaded meanwhile
        snapshot_download(repo_id, allow_patterns=_needed_names(parts, variant), **hub)
        if variant:
            others = [part for part in parts if not any((folder / part).glob(f"{_WEIGHTS}.{variant}*"))]
            snapshot_download(repo_id, allow_patterns=_needed_names(others, None), **hub)
    check_digests(folder)
    return folder


def component_names(index: Path) -> list[str]:
    """The folders of the components that a model_index.json lists."""
    listed = json.loads(index.read_text())
    return [name for name, value in listed.items() if isinstance(value, list) and name[0] != "_" and any(value)]


def _needed_names(parts: list[str], variant: str | None) -> list[str]:
    kind = f".{variant}" if variant else ""
    weights = [f"{_WEIGHTS}{kind}.safetensors", f"{_WEIGHTS}{kind}-*-of-*.safetensors"]
    names = [CONFIG_NAME, SCHEDULER_CONFIG_NAME, *weights, f"{_WEIGHTS}.safetensors.index{kind}.json"]
    return [f"{part}/{name}" for part in parts for name in names]


def check_weights(folder: Path, given: Collection[str] = ()) -> None:
    """Makes sure that the weights of a pipeline are safetensors, before any other kind is looked for.

    Args:
        folder (`Path`):
            Of the pipeline.
        given (collection of `str`, *optional*):
            Components that are not needed.

    Raises:
        `OSError`: some are not.
    """
    if not (folder / INDEX).is_file():
        return  # diffusers says so
    parts = [name for name in component_names(folder / INDEX) if name not in given]
    models = [part for part in parts if (folder / part / CONFIG_NAME).is_file()]
    lacking = [part for part in models if not any((folder / part).glob("*.safetensors"))]
    if lacking:
        raise OSError(
            f"There are no safetensors for {', '.join(lacking)}. Other weights (.bin, .ckpt) are not loaded, as they "
            "can run code: load them where you trust them, and save them by `save_pretrained`."
        )


@contextmanager
def _explained(repo_id: str, revision: str | None) -> Iterator[None]:
    """Says in one sentence what the Hub meant and what to do about it."""
    try:
        yield
    except HFValidationError as error:
        raise FileNotFoundError(f"{repo_id} is no folder, and cannot be the name of a repository.") from error
    except GatedRepoError as error:
        message = f"The owner of {repo_id} has not let you in: ask for access on its page, then {_LOG_IN}."
        raise PermissionError(message) from error
    except RevisionNotFoundError as error:
        raise FileNotFoundError(f"{repo_id} has no revision {revision}.") from error
    except RepositoryNotFoundError as error:
        message = f"The Hub has no repository {repo_id}, or it is private: look at the name; if it is right, {_LOG_IN}."
        raise FileNotFoundError(message) from error
    except LocalEntryNotFoundError as error:
        raise _unreachable(repo_id, error.__cause__) from error
    except EntryNotFoundError as error:
        raise FileNotFoundError(f"{repo_id} holds no pipeline: it has no {INDEX}.") from error
    except _ClientError as error:
        raise _unreachable(repo_id, error) from error


def _unreachable(repo_id: str, cause: BaseException | None) -> OSError:
    """Why a repository that may well be there was not found."""
    if cause is None or isinstance(cause, OfflineModeIsEnabled):
        return FileNotFoundError(f"{repo_id} is not, or not whole, in the cache: load it once with a connection.")
    if isinstance(cause, FileMetadataError):
        return ConnectionError("What answers is not the Hub: look at HF_ENDPOINT, the proxy and the firewall.")
    if not isinstance(cause, HfHubHTTPError):
        return ConnectionError(f"The connection to the Hub failed before {repo_id} was here: try again.")
    status = cause.response.status_code
    if status in (401, 403):
        return PermissionError(f"The Hub does not let you read {repo_id} ({status}): {_LOG_IN}, one that may read it.")
    return ConnectionError(f"The Hub answers {status} when asked for {repo_id}: try again later.")


def check_digests(folder: Path) -> None:
    """Compares a pipeline in the Hub's cache with the digests that the Hub gave; what differs is deleted.

    huggingface_hub itself compares sizes. A cache without links, as on some Windows, does not hold the digests.

    Args:
        folder (`Path`):
            The snapshot, whose files are links to blobs that are named by their digests.

    Raises:
        `OSError`: files differ.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".safetensors") and path.is_symlink())
    damaged = [path for path in files if not _is_whole(path, Path(os.readlink(path)).name)]
    for path in damaged:
        with suppress(OSError):  # a cache that only others may write
            (path.parent / os.readlink(path)).unlink()
            path.unlink()
    if damaged:
        names = ", ".join(path.relative_to(folder).as_posix() for path in damaged)
        raise OSError(f"Not what the Hub has, damaged in the cache or on the way: {names}. Load it again.")


def _is_whole(path: Path, digest: str) -> bool:
    """Whether a file has a digest: SHA-256, or git's SHA-1 for small files. Others are not the Hub's."""
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", digest):
        return True
    found = hashlib.sha256() if len(digest) == 64 else hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest() == digest


def loading_code(module: str, name: str) -> str:
    """Python that gives diffusers a class of the installed package."""
    return _CODE.format(module=module, name=name)


def write_code(folder: Path) -> None:
    """Writes what `DiffusionPipeline.from_pretrained(..., custom_pipeline="medical_deid")` asks for beside weights.

    From the Hub diffusers takes no component of another library without a file of that library's module in its folder.

    Args:
        folder (`Path`):
            Of a saved pipeline.
    """
    write_file(folder / ENTRY, loading_code("medeid.pipeline", "MedicalDeIDPipeline").encode())
    listed = json.loads((folder / INDEX).read_text())
    for part in component_names(folder / INDEX):
        module, name = listed[part]
        if module.startswith("medeid."):
            write_file(folder / part / f"{module}.py", loading_code(module, name).encode())


def upload_pipeline(
    folder: Path,
    repo_id: str,
    source: Path | None = None,
    commit_message: str = "Upload MedicalDeIDPipeline",
    private: bool = True,
    token: str | None = None,
    create_pr: bool = False,
) -> str:
    """Uploads a saved pipeline with model card, pictures and licence, and without the paths of this machine.

    Args:
        folder (`Path`):
            Of the pipeline; what is in it besides is not uploaded.
        repo_id (`str`):
            Of the repository, which is made if it is not there.
        source (`Path`, *optional*):
            The folder that the pipeline was loaded from: its licence goes along, and its card if `folder` has none and
            the weights are still the same. Else the repository keeps its own card, or gets one that claims nothing.
        commit_message (`str`, *optional*, defaults to `"Upload MedicalDeIDPipeline"`):
            Of the upload.
        private (`bool`, *optional*, defaults to `True`):
            Whether a new repository is private. Weights that learned from patients may remember them.
        token (`str`, *optional*):
            Of the Hub, where you are not logged in.
        create_pr (`bool`, *optional*, defaults to `False`):
            Whether to open a pull request instead.

    Returns:
        `str`: the address of the commit.
    """
    repo_id = create_repo(repo_id, private=private, token=token, exist_ok=True).repo_id
    parts = component_names(folder / INDEX)
    _forget_paths(folder, parts)
    if source:
        for path in source.glob(LICENSES):
            _copy(path, folder / path.name)
    if not (folder / CARD).is_file():
        if source and (source / CARD).is_file() and _same_weights(folder, source):
            _copy_card(source, folder)
        elif not file_exists(repo_id, CARD, token=token):
            _write_card(folder, repo_id, parts)
    pictures = _pictures(folder) if (folder / CARD).is_file() else []
    return upload_folder(
        repo_id=repo_id,
        folder_path=folder,
        allow_patterns=[INDEX, ENTRY, CARD, LICENSES, *pictures, *(f"{part}/*" for part in parts)],
        commit_message=commit_message,
        token=token,
        create_pr=create_pr,
    )


def _forget_paths(folder: Path, parts: list[str]) -> None:
    """Takes from the configs which folders of this machine their models came from."""
    for path in (folder / INDEX, *(folder / part / CONFIG_NAME for part in parts)):
        if path.is_file():
            config = json.loads(path.read_text())
            if config.pop("_name_or_path", None) is not None:
                write_file(path, (json.dumps(config, indent=2, sort_keys=True) + "\n").encode())


def _pictures(folder: Path) -> list[str]:
    """The files in a folder that its card shows."""
    names = _PICTURE.findall((folder / CARD).read_text())
    return [name for name in names if ".." not in Path(name).parts and (folder / name).is_file()]


def _copy_card(source: Path, folder: Path) -> None:
    """Copies a card and the pictures that it shows; links that lead out of its folder become plain text."""
    for name in _pictures(source):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        _copy(source / name, folder / name)
    write_file(folder / CARD, _LINK_OUT.sub(r"\1", (source / CARD).read_text()).encode())


def _copy(source: Path, target: Path) -> None:
    with suppress(shutil.SameFileError):  # it was saved to where it came from
        shutil.copyfile(source, target)


def _same_weights(saved: Path, source: Path) -> bool:
    """Whether two pipelines have the same weights, to the precision of the coarser."""
    files = [path.relative_to(saved) for path in saved.glob("*/*.safetensors")]
    return all((source / file).is_file() and _same_tensors(saved / file, source / file) for file in files)


def _same_tensors(one: Path, other: Path) -> bool:
    with safe_open(one, "pt") as first, safe_open(other, "pt") as second:
        if set(first.keys()) != set(second.keys()):
            return False
        for name in first.keys():
            pair = first.get_tensor(name), second.get_tensor(name)
            coarser = min((tensor.dtype for tensor in pair), key=lambda dtype: dtype.itemsize)
            if not torch.equal(pair[0].to(coarser), pair[1].to(coarser)):
                return False
    return True


def _write_card(folder: Path, repo_id: str, parts: list[str]) -> None:
    listed = json.loads((folder / INDEX).read_text())
    rows = ["| folder | model | weights |", "| --- | --- | ---: |"]
    for part in parts:
        size = sum(path.stat().st_size for path in (folder / part).glob("*.safetensors"))
        rows.append(f"| {part} | {listed[part][1]} | {f'{size / 1e6:.1f} MB' if size else ''} |")
    data = ModelCardData(
        library_name="diffusers", pipeline_tag="image-to-image", tags=["medical", "de-identification", "face"]
    )
    text = _NEW_CARD.format(title=repo_id.split("/")[-1], repo_id=repo_id, parts="\n".join(rows))
    ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}").save(folder / CARD)
