"""`medeid keygen` and `medeid deid`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..types import MAX_ATTEMPTS, WHOLE_FACE, OnFail
from .app import app
from .console import NOT_ALL_RELEASED, prepare_output, progress_bar, quiet, say, usage_error
from .options import Boxes, Device, Model, output_names, parse_preserve, read_boxes, read_key, read_masks


@app.command()
def keygen(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file for the key.", show_default=False)],
) -> None:
    """Make a secret key for --pseudonym and write it to FILE, readable by you alone.

    Under one key a patient becomes the same person in every photo. Who has the key
    and a list of pseudonyms can tell whose photos belong together: keep it apart
    from the results, and keep it, as it cannot be made again.

    Example: medeid keygen study.key && medeid deid visit1.jpg -o out/ --pseudonym P17 --key-file study.key
    """
    from ..identity.keys import InvalidKeyError, write_key

    try:
        write_key(file)
    except InvalidKeyError as error:
        raise usage_error(str(error)) from error
    except OSError as error:
        raise usage_error(f"{file}: cannot be written to ({error.strerror}); choose another place") from error
    print(f"a new key is in {file}; keep it secret, apart from the results, and for as long as the study lasts")


@app.command()
def deid(
    photos: Annotated[
        list[Path], typer.Argument(metavar="PHOTO...", help="Photos to de-identify.", show_default=False)
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
    key_file: Annotated[
        Path | None,
        typer.Option(help="Secret key for --pseudonym, as medeid keygen writes it. Without it MEDEID_KEY is read."),
    ] = None,
    max_attempts: Annotated[
        int, typer.Option(min=1, help="Surrogates that are tried for a face that fails verification.")
    ] = MAX_ATTEMPTS,
    on_fail: Annotated[
        OnFail, typer.Option(help="What becomes of a photo with a face for which none of them passed.")
    ] = "withhold",
    device: Device = "cpu",
    boxes: Boxes = None,
) -> None:
    """Replace every face in each PHOTO by that of somebody who does not exist.

    Writes OUT/NAME.png, lossless and without metadata: everything but the face stays as it was to the bit.
    What was done is told in OUT/records.jsonl, without names.
    Verification asks recognizers whether they still know the face, the encoder whether a sign is lost or has come
    up, and a detector whether there is a face. A photo that cannot be used, has no face or fails is not written
    (--on-fail blur: the face is blurred instead); the others go on.

    Exit status: 0 all photos were released, 2 at least one was not, 1 wrong usage.

    Example: medeid deid photo.jpg -o out/
    """
    given, masks, signs = read_boxes(boxes, photos), read_masks(mask, photos), parse_preserve(preserve)
    key = read_key(pseudonym, key_file)
    prepare_output(out)
    quiet()
    from ..clinical.batch import Deidentifier  # imports torch and diffusers: not for --help
    from ..identity.surrogate import SurrogateIdentity

    identity = None if key is None else SurrogateIdentity(key)
    try:
        worker = Deidentifier(
            model,
            device,
            num_inference_steps=steps,
            guidance_scale=guidance,
            preserve=signs,
            seed=seed,
            surrogate_identity=identity,
            pseudonym=pseudonym,
            identity_guidance_scale=identity_guidance,
            privacy=privacy,
            max_attempts=max_attempts,
            on_fail=on_fail,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise usage_error(f"--model {model} --device {device}: {error}") from error
    failures: list[str] = []
    records_path = out / "records.jsonl"
    with progress_bar() as progress, open(records_path, "w") as records:
        task = progress.add_task("De-identifying", total=len(photos))
        for index, (photo, name) in enumerate(zip(photos, output_names(photos), strict=True)):
            result = worker.run(index, photo, out, name, given.get(photo), masks.get(photo))
            records.write(json.dumps(asdict(result.record)) + "\n")
            records.flush()
            if result.reason:
                failures.append(f"{photo}: {result.reason}")
                say(progress.console, "[bold red]not released:[/]", failures[-1])
            elif result.record.status == "blurred":
                note = f"{photo}: a face was blurred, as no surrogate passed verification"
                say(progress.console, "[bold yellow]note:[/]", note)
            elif result.record.rejected:
                note = f"{photo}: look at it, candidates for a face were left: {'; '.join(result.record.rejected)}"
                say(progress.console, "[bold yellow]note:[/]", note)
            progress.advance(task)
    released = len(photos) - len(failures)
    print(f"{released} of {len(photos)} photos released to {out}")
    if failures:
        raise typer.Exit(NOT_ALL_RELEASED)
