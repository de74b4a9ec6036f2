"""`medeid keygen` and `medeid deid`."""

from __future__ import annotations

import secrets
from concurrent.futures import BrokenExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..clinical.sources import Names, PhotoFile, name_results
from ..identity.keys import LEAST_BYTES, InvalidKeyError, key_check
from ..types import MAX_ATTEMPTS, WHOLE_FACE, OnFail
from .app import app
from .console import NOT_ALL_RELEASED, errors, num_cores, prepare_output, progress_bar, quiet, say, usage_error
from .options import (
    Boxes,
    Device,
    Model,
    Recursive,
    find_key,
    find_masks,
    find_pseudonyms,
    list_sources,
    parse_preserve,
    read_boxes,
)

if TYPE_CHECKING:
    from ..clinical.audit import AuditLog
    from ..clinical.batch import Engine
    from ..clinical.run import Run
    from ..clinical.vault import Vault

AUDIT = "audit.jsonl"
_MANY = 16  # photos, from which on it pays to start processes and load a model in each
_MOST_JOBS = 4  # unless somebody says that there is memory for more
EngineName = Literal["local", "ray"]


@app.command()
def keygen(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file for the key.", show_default=False)],
    recipient: Annotated[
        bool,
        typer.Option(
            "--recipient",
            help="Make a pair for opening vaults instead: FILE opens what is sealed for FILE.pub, which may be public.",
        ),
    ] = False,
) -> None:
    """Make a secret key for --pseudonym and write it to FILE, readable by you alone.

    Under one key a patient becomes the same person in every photo. Who has the key
    and a list of pseudonyms can tell whose photos belong together: keep it apart
    from the results, and keep it, as it cannot be made again.

    Example: medeid keygen study.key && medeid deid visit1.jpg -o out/ --pseudonym P17 --key-file study.key
    """
    from ..clinical.recipients import write_recipient
    from ..identity.keys import write_key

    try:
        if recipient:
            public = write_recipient(file)
        else:
            write_key(file)
    except InvalidKeyError as error:
        raise usage_error(str(error)) from error
    except OSError as error:
        raise usage_error(f"{file}: cannot be written to ({error.strerror}); choose another place") from error
    if recipient:
        print(f"{public} is for those who seal; keep {file} secret, as it opens what they have sealed")
    else:
        print(f"a new key is in {file}; keep it secret, apart from the results, and for as long as the study lasts")


@app.command()
def deid(
    photos: Annotated[
        list[Path],
        typer.Argument(metavar="PHOTO...", help="Photos to de-identify, or folders of them.", show_default=False),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the results.", show_default=False)],
    model: Model = "medeid-tiny",
    steps: Annotated[int | None, typer.Option(min=1, help="Denoising steps; the model's own by default.")] = None,
    guidance: Annotated[float | None, typer.Option(min=1.0, help="Guidance towards the new identity.")] = None,
    identity_guidance: Annotated[
        float | None, typer.Option(min=0.0, help="Guidance away from the source identity; a half more time a step.")
    ] = None,
    privacy: Annotated[
        float,
        typer.Option(
            min=0.01,
            max=1.0,
            help="How much of what tells a person is replaced: below 0.75 the eyes are spared, 0.75 is the face, "
            "1 the head with hairline and ears.",
        ),
    ] = WHOLE_FACE,
    preserve: Annotated[
        str,
        typer.Option(
            help="Signs to preserve: auto (those that medeid finds), none, or names with commas, found or not: "
            "rosacea,ptosis:left. An unknown name gets the nearest ones."
        ),
    ] = "auto",
    recursive: Recursive = False,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes, each with one thread and a model of its own (700 MB): the results are the same for any "
            "number. By default, for 16 photos or more on a CPU, one a core, up to 4; else one with all threads.",
        ),
    ] = None,
    engine: Annotated[
        EngineName,
        typer.Option(
            help="Where the work is done: local, or ray (the cluster at RAY_ADDRESS, or else one of this machine's "
            "cores or GPUs; pip install medeid[ray]). The result is the same, but for rounding."
        ),
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="Of --engine ray: how many, each with a model of its own. One a core by default, or one a GPU."
        ),
    ] = None,
    names: Annotated[
        Names,
        typer.Option(
            help="What results are called: keep (as the photos), keyed (by a code under the key), or sequence (by "
            "number). A file's name often is a patient's."
        ),
    ] = "keep",
    mask: Annotated[
        Path | None,
        typer.Option(
            help="What is to stay on top, painted white on black in the photo's size: a picture, or for several photos "
            "a folder with NAME.png for NAME.jpg."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Repeats a result; by default every run is new.")] = None,
    pseudonym: Annotated[
        str | None,
        typer.Option(
            help="What the patient on every PHOTO is called in your study, who under one key becomes the same person "
            "each time. Needs --key-file or MEDEID_KEY. Written nowhere."
        ),
    ] = None,
    pseudonyms: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV",
            help="The same for many patients: a table with the columns photo (its path below PHOTO) and pseudonym. Who "
            "is not in it becomes somebody new in each photo.",
        ),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(
            help="Secret key for --pseudonym, --pseudonyms, --names keyed and --vault, as medeid keygen writes it; it "
            "also seals the audit log. Without it MEDEID_KEY is read."
        ),
    ] = None,
    vault: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Seal the sources of all released photos into this file, encrypted, so that medeid reveal can restore "
            "them under the key, or by a --recipient. Nothing of a source is kept otherwise.",
        ),
    ] = None,
    recipient: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE.pub",
            help="Who may open the vault, too: the public half that medeid keygen --recipient has made. Can be given "
            "several times.",
        ),
    ] = None,
    max_attempts: Annotated[
        int, typer.Option(min=1, help="Surrogates that are tried for a face that fails verification.")
    ] = MAX_ATTEMPTS,
    on_fail: Annotated[
        OnFail, typer.Option(help="What becomes of a photo with a face for which none of them passed.")
    ] = "withhold",
    burned_in_checked: Annotated[
        bool,
        typer.Option(
            "--burned-in-checked",
            help="Somebody has looked: no name or date is written into the pixels. DICOM that does not say so itself "
            "is withheld otherwise.",
        ),
    ] = False,
    device: Device = "cpu",
    boxes: Boxes = None,
) -> None:
    """Replace every face in each PHOTO by that of somebody who does not exist.

    Writes OUT/NAME.png, lossless and without metadata: everything but the face stays as it was to the bit. DICOM
    stays DICOM (OUT/NAME.dcm), uncompressed, with a header that names nobody (pip install medeid[dicom]). Of a
    folder all pictures are taken, and the results lie in OUT as the photos do in it.
    What was done is told in OUT/records.jsonl, without names, and in OUT/audit.jsonl, which nobody changes unseen
    (medeid audit verify).
    Verification asks recognizers whether they still know the face, the encoder whether a sign is lost or has come
    up, and a detector whether there is a face. A photo that cannot be used, has no face or fails is not written
    (--on-fail blur: the face is blurred instead), and OUT/withheld/NAME.txt says why; the others go on.
    After an interruption the same command goes on where it was.

    Exit status: 0 all photos were released, 2 at least one was not, 1 wrong usage.

    Example: medeid deid photo.jpg -o out/
    """
    options = {
        "model": model,
        "device": device,
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "preserve": parse_preserve(preserve),
        "seed": seed,
        "identity_guidance_scale": identity_guidance,
        "privacy": privacy,
        "max_attempts": max_attempts,
        "on_fail": on_fail,
        "burned_in_checked": burned_in_checked,
    }
    quiet()
    from ..clinical.audit import AuditError  # these import torch and diffusers: not for --help
    from ..clinical.ray_engine import RayEngineError
    from ..clinical.run import Run, RunError
    from ..clinical.vault import VaultError

    sources = list_sources(photos, recursive, out)
    named = find_pseudonyms(pseudonym, pseudonyms, sources)
    uses = {
        "--pseudonym": pseudonym is not None,
        "--pseudonyms": pseudonyms is not None,
        "--names keyed": names == "keyed",
        "--vault": vault is not None and not recipient,
    }
    key = find_key(key_file, [name for name, used in uses.items() if used])
    if key_file is not None and not any(uses.values()):
        note = "the key seals the audit log; every face is drawn anew, as there is no --pseudonym"
        say(errors, "[bold yellow]note:[/]", note)
    files = _photo_files(sources, names, key, named, read_boxes(boxes, sources), find_masks(mask, sources))
    run_photos = _engine(engine, jobs, workers, device, len(files))
    prepare_output(out)
    try:
        run = Run(out, files, {**options, "key": None if key is None else key_check(key)})
        if run.statuses:
            note = f"going on: {len(run.statuses)} of {len(files)} photos were done before"
            say(errors, "[bold yellow]note:[/]", note)
        with _audit_log(out, options, key) as audit, _vault(vault, key, recipient) as opened:
            # Without a study's key one that is forgotten: UIDs still agree among the files of this run.
            secret = {"key": key, "header_key": key or secrets.token_bytes(LEAST_BYTES)}
            _deidentify(run, {**options, **secret}, run_photos, audit, opened)
    except KeyboardInterrupt:
        raise usage_error(f"interrupted; the same command goes on with {out}") from None
    except BrokenExecutor as error:
        raise usage_error(
            "a process died; the same command goes on, with fewer --jobs or --workers if memory is short"
        ) from error
    except RunError as error:
        raise usage_error(str(error)) from error
    except RayEngineError as error:
        raise usage_error(f"--engine ray: {error}") from error
    except AuditError as error:
        raise usage_error(f"{out / AUDIT}: {error}") from error
    except VaultError as error:
        raise usage_error(f"--vault {vault}: {error}") from error
    except (OSError, ValueError, RuntimeError) as error:
        raise usage_error(f"--model {model} --device {device}: {error}") from error
    released = sum(status in ("released", "blurred") for status in run.statuses.values())
    print(f"{released} of {len(files)} photos released to {out}")
    if released < len(files):
        raise typer.Exit(NOT_ALL_RELEASED)


def _engine(name: EngineName, jobs: int | None, workers: int | None, device: str, count: int) -> Engine:
    from ..clinical.batch import deidentify_all
    from ..clinical.ray_engine import RayEngineError, check_ray, deidentify_on_ray

    if name == "local":
        if workers is not None:
            raise usage_error("--workers: is for --engine ray; give --jobs")
        if jobs is None and device == "cpu" and count >= _MANY:
            jobs = min(num_cores(), _MOST_JOBS)
        return partial(deidentify_all, jobs=jobs)
    if jobs is not None:
        raise usage_error("--jobs: is for --engine local; give --workers")
    try:
        check_ray(device)
    except RayEngineError as error:
        raise usage_error(f"--engine ray: {error}") from error
    return partial(deidentify_on_ray, workers=workers)


def _audit_log(out: Path, options: dict[str, Any], key: bytes | None) -> AuditLog:
    from ..clinical.audit import AuditLog
    from ..clinical.digests import model_sha256
    from ..pipeline import find_model

    folder = find_model(options["model"])
    # The model's name may be a path that tells of the hospital: its digest says what it is.
    settings = {name: value for name, value in options.items() if name != "model"}
    return AuditLog.open(out / AUDIT, {**settings, "model_sha256": model_sha256(folder)}, key)


def _vault(path: Path | None, key: bytes | None, recipients: list[Path] | None) -> Vault | AbstractContextManager[None]:
    from ..clinical.recipients import read_recipient
    from ..clinical.vault import Vault

    if path is None:
        if recipients:
            raise usage_error(f"--recipient {recipients[0]}: is for --vault, which is not given")
        return nullcontext()
    try:
        public = [read_recipient(each) for each in recipients or ()]
    except InvalidKeyError as error:
        raise usage_error(str(error)) from error
    return Vault.open(path, key, public)


def _photo_files(
    sources: dict[str, Path],
    names: Names,
    key: bytes | None,
    pseudonyms: dict[str, str],
    boxes: dict[str, list],
    masks: dict[str, Path],
) -> list[PhotoFile]:
    return [
        PhotoFile(index, path, called, name, pseudonyms.get(called), boxes.get(called), masks.get(called))
        for index, ((called, path), name) in enumerate(
            zip(sources.items(), name_results(list(sources), names, key), strict=True)
        )
    ]


def _deidentify(run: Run, options: dict[str, Any], engine: Engine, audit: AuditLog, vault: Vault | None) -> None:
    """Does what is left of a run, and tells what is to be told of it."""
    with progress_bar() as progress:
        task = progress.add_task("De-identifying", total=len(run.photos), completed=len(run.statuses))
        for photo, result in engine(run.left, run.out, options):
            # In this order, so that what a kill leaves out is done once more: the record says that all is there.
            if vault is not None and result.record.output_sha256:
                vault.seal(result.record.output_sha256, photo.source.read_bytes())
            audit.append({"source": audit.conceal(photo.called, photo.source), **asdict(result.record)})
            run.add(photo, result.record, result.reason)
            if result.reason:
                say(progress.console, "[bold red]not released:[/]", f"{photo.source}: {result.reason}")
            elif result.record.status == "blurred":
                note = f"{photo.source}: a face was blurred, as no surrogate passed verification"
                say(progress.console, "[bold yellow]note:[/]", note)
            elif result.record.rejected:
                rejected = "; ".join(result.record.rejected)
                note = f"{photo.source}: look at it, candidates for a face were left: {rejected}"
                say(progress.console, "[bold yellow]note:[/]", note)
            progress.advance(task)
    run.finish()
