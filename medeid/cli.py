"""The command line: parses, calls, prints."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from . import __version__
from .types import MAX_ATTEMPTS, WHOLE_FACE, OnFail

USAGE, NOT_ALL_RELEASED, NOT_ALL_USED = 1, 2, 2


class _Commands(typer.core.TyperGroup):
    """Ends with 1 on wrong usage, where typer ends with 2: here 2 says that a photo was not released."""

    @staticmethod
    @contextmanager
    def _usage_status() -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if getattr(error, "exit_code", None) == 2 and not isinstance(error, typer.Exit):
                error.exit_code = USAGE  # type: ignore[attr-defined]
            raise

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with self._usage_status():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        with self._usage_status():
            return super().invoke(ctx)


app = typer.Typer(
    cls=_Commands,
    help="De-identify the faces in medical photos: a photo of nobody in which a clinician reads the same disease.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
errors = Console(stderr=True)


def _print_version(value: bool) -> None:
    if value:
        print(f"medeid {__version__}")
        raise typer.Exit()


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop."),
    ] = False,
) -> None: ...


def _say(to: Console, label: str, message: str) -> None:
    """Prints a message as it is: a file's name may hold brackets, which rich would take for markup."""
    to.print(f"{label} {escape(message)}", highlight=False, soft_wrap=True)


def _usage_error(message: str) -> typer.Exit:
    _say(errors, "[bold red]error:[/]", message)
    return typer.Exit(USAGE)


def _read_boxes(path: Path | None, photos: list[Path]) -> dict[Path, list]:
    """The boxes file: a list of faces for one photo, or an object from file name to such a list."""
    if path is None:
        return {}
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise _usage_error(f"--boxes {path}: no readable JSON ({error})") from error
    if isinstance(content, list):
        if len(photos) != 1:
            raise _usage_error(
                f"--boxes {path}: holds one list, but there are {len(photos)} photos; map names to lists"
            )
        return {photos[0]: content}
    if not isinstance(content, dict):
        raise _usage_error(f"--boxes {path}: must hold a list of faces, or an object from file name to such a list")
    known = {photo.name: photo for photo in photos}
    unknown = sorted(set(content) - set(known))
    if unknown:
        raise _usage_error(f"--boxes {path}: names photos that are not given: {', '.join(unknown)}")
    return {known[name]: faces for name, faces in content.items()}


def _output_names(photos: list[Path]) -> list[str]:
    """One stem a photo; photos of the same name in different folders get a number."""
    names: list[str] = []
    for photo in photos:
        name, number = photo.stem, 2
        while name in names:
            name, number = f"{photo.stem}-{number}", number + 1
        names.append(name)
    return names


def _prepare_output(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / f".partial-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _usage_error(f"-o {out}: cannot be written to ({error.strerror}); choose another folder") from error


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=errors, transient=True)


def _stages(progress: Progress) -> Callable[[str, int, int], None]:
    """Shows work that tells what it is doing, how much of it is done, and of how much."""
    tasks: dict[str, TaskID] = {}

    def advance(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = progress.add_task(stage)
        progress.update(tasks[stage], completed=done, total=total)

    return advance


Model = Annotated[str, typer.Option(help="medeid-tiny (inside the package), a folder, or a Hub id.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps ...")]
Boxes = Annotated[
    Path | None,
    typer.Option(
        help="JSON with your own faces instead of detection: a list of objects with box (x0, y0, x1, y1) and, if "
        "you know them, points5 (x, y of both eyes, nose and both mouth corners, from image left); or an object "
        "from file name to such a list."
    ),
]


def _quiet() -> None:
    """Keeps the libraries' own bars and warnings out of the output."""
    from diffusers.utils import logging as diffusers_logging

    warnings.filterwarnings("ignore")
    logging.getLogger().setLevel(logging.ERROR)
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()


def _parse_preserve(text: str) -> str | list[str]:
    from .manifestations.taxonomy import parse_sign

    if text in ("auto", "none"):
        return text
    names = [name.strip() for name in text.split(",") if name.strip()]
    try:
        for name in names:
            parse_sign(name)
    except ValueError as error:
        raise _usage_error(f"--preserve {text}: {error}") from error
    return names


def _masks(path: Path | None, photos: list[Path]) -> dict[Path, Path]:
    """The mask of each photo that has one."""
    if path is None:
        return {}
    if path.is_dir():
        found = {photo: path / f"{photo.stem}.png" for photo in photos}
        return {photo: mask for photo, mask in found.items() if mask.is_file()}
    if len(photos) != 1:
        raise _usage_error(f"--mask {path}: is one picture for {len(photos)} photos; give a folder with NAME.png each")
    return {photos[0]: path}


def _read_key(pseudonym: str | None, key_file: Path | None) -> bytes | None:
    from .identity.keys import InvalidKeyError, key_from_environment, read_key

    if pseudonym is None:
        if key_file is not None:
            raise _usage_error(f"--key-file {key_file}: is for --pseudonym; without one every face is drawn anew")
        return None
    if not pseudonym.strip():
        raise _usage_error("--pseudonym: is empty; give what the patient is called in your study")
    try:
        key = key_from_environment() if key_file is None else read_key(key_file)
    except InvalidKeyError as error:
        raise _usage_error(str(error)) from error
    if key is None:
        raise _usage_error("--pseudonym: needs a key; make one by `medeid keygen FILE` and give --key-file FILE")
    return key


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
    from .identity.keys import InvalidKeyError, write_key

    try:
        write_key(file)
    except InvalidKeyError as error:
        raise _usage_error(str(error)) from error
    except OSError as error:
        raise _usage_error(f"{file}: cannot be written to ({error.strerror}); choose another place") from error
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
    given, masks, signs = _read_boxes(boxes, photos), _masks(mask, photos), _parse_preserve(preserve)
    key = _read_key(pseudonym, key_file)
    _prepare_output(out)
    _quiet()
    from .clinical.batch import Deidentifier  # imports torch and diffusers: not for --help
    from .identity.surrogate import SurrogateIdentity

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
        raise _usage_error(f"--model {model} --device {device}: {error}") from error
    failures: list[str] = []
    records_path = out / "records.jsonl"
    with _progress() as progress, open(records_path, "w") as records:
        task = progress.add_task("De-identifying", total=len(photos))
        for index, (photo, name) in enumerate(zip(photos, _output_names(photos), strict=True)):
            result = worker.run(index, photo, out, name, given.get(photo), masks.get(photo))
            records.write(json.dumps(asdict(result.record)) + "\n")
            records.flush()
            if result.reason:
                failures.append(f"{photo}: {result.reason}")
                _say(progress.console, "[bold red]not released:[/]", failures[-1])
            elif result.record.status == "blurred":
                note = f"{photo}: a face was blurred, as no surrogate passed verification"
                _say(progress.console, "[bold yellow]note:[/]", note)
            elif result.record.rejected:
                note = f"{photo}: look at it, candidates for a face were left: {'; '.join(result.record.rejected)}"
                _say(progress.console, "[bold yellow]note:[/]", note)
            progress.advance(task)
    released = len(photos) - len(failures)
    print(f"{released} of {len(photos)} photos released to {out}")
    if failures:
        raise typer.Exit(NOT_ALL_RELEASED)


@app.command()
def inspect(
    photos: Annotated[
        list[Path],
        typer.Argument(metavar="PHOTO...", help="Photos to look at; they are only read.", show_default=False),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the pictures.")] = Path("signs"),
    model: Model = "medeid-tiny",
    device: Device = "cpu",
    boxes: Boxes = None,
) -> None:
    """Show which signs of disease medeid reads on the faces in each PHOTO.

    Prints sign, side (the patient's own), probability, severity and region, and
    writes OUT/NAME.signs.png, the photo with the signs' masks and a legend.
    These pictures show the patient: they are as sensitive as the photos.

    Exit status: 0 every photo was read, 2 at least one could not be used or has no face, 1 wrong usage.

    Example: medeid inspect photo.jpg -o signs/
    """
    given = _read_boxes(boxes, photos)
    _prepare_output(out)
    _quiet()
    from .clinical.inspection import Inspector

    try:
        inspector = Inspector(model, device)
    except (OSError, ValueError, RuntimeError) as error:
        raise _usage_error(f"--model {model} --device {device}: {error}") from error
    failures = 0
    for photo, name in zip(photos, _output_names(photos), strict=True):
        try:
            faces = inspector.run(photo, out / f"{name}.signs.png", given.get(photo))
        except ValueError as error:
            failures += 1
            _say(errors, "[bold red]not read:[/]", f"{photo}: {error}")
            continue
        Console().print(_signs_table(photo.name, faces))
    if failures:
        raise typer.Exit(NOT_ALL_USED)


def _signs_table(title: str, faces: list[Any]) -> Table:
    table = Table(
        "face", "sign", "side", "probability", "severity", "region", title=escape(title), title_justify="left"
    )
    for number, face in enumerate(faces, start=1):
        if not face.readings:
            table.add_row(str(number), "no sign found")
        for reading in face.readings:
            row = reading.row
            table.add_row(
                str(number),
                row.title,
                reading.side if row.lateral else "",
                f"{reading.probability:.0%}",
                f"{reading.severity:.1f}",
                row.region.replace("_", " "),
            )
    return table


@app.command()
def simulate(
    faces: Annotated[
        Path,
        typer.Argument(
            metavar="FACES",
            help="Folder of photos, or of aligned crops with metadata.jsonl and landmarks.npz. It is only read.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the data set.", show_default=False)],
    count: Annotated[int, typer.Option("-n", min=1, help="Number of images.", show_default=False)],
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")] = 0,
    signs: Annotated[
        str | None, typer.Option(help="Signs to draw from, with commas: ptosis,jaundice. All by default.")
    ] = None,
    healthy: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of images without a sign.")] = 0.15,
    size: Annotated[int, typer.Option(min=64, help="Side of the images in pixels.")] = 256,
    further: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Further signs on every face that is not healthy, whatever it has already, as far as they fit: "
            "more to learn from each picture. By default 0 to 3, mostly none, as in patients.",
        ),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes; all cores by default. The result is the same for any number.")
    ] = None,
) -> None:
    """Make a data set of simulated patients: signs of disease on the faces in FACES.

    Writes images, masks and metadata.jsonl to OUT/train and OUT/validation, and
    the data card OUT/README.md, in the form of a Hugging Face imagefolder.
    No person is in both; in a folder of photos every face counts as a person.
    The signs hide nobody: made of photos of patients, it is as sensitive as they
    are. Names of photos are not in it, but those of aligned crops are (source).
    Each label (a sign on a side) leads equally many images.
    After an interruption the same command goes on where it was; the result is the
    same as without. A picture that cannot be read or shows no face is named, and
    the others are used.

    Exit status: 0 all pictures of FACES were used, 2 at least one was not, 1 wrong usage.

    Example: medeid simulate faces/ -o patients/ -n 1000 --seed 0
    """
    # These import torch: not for --help.
    from .data.build import BuildOptions, build_set
    from .data.sources import Skipped

    def skip(picture: Skipped) -> None:
        _say(progress.console, "[bold red]skipped:[/]", f"{picture.file}: {picture.reason}")

    chosen = {} if signs is None else {"signs": [name.strip() for name in signs.split(",")]}
    try:
        options = BuildOptions(count, seed, healthy=healthy, size=size, further=further, **chosen)
        with _progress() as progress:
            result = build_set(faces, out, options, jobs or _num_cores(), _stages(progress), skip)
    except KeyboardInterrupt:
        raise _usage_error(f"interrupted; the same command goes on with {out}") from None
    except BrokenExecutor as error:
        raise _usage_error("a process died; give fewer --jobs if memory is short, the rest is made then") from error
    except (OSError, ValueError) as error:
        raise _usage_error(str(error)) from error
    counts = ", ".join(f"{number} {split}" for split, number in result.counts.items())
    print(f"{count} images in {out} ({counts}); {result.made} of them made now")
    if result.skipped:
        _say(errors, "[bold yellow]note:[/]", f"{result.skipped} pictures of {faces} were not used")
        raise typer.Exit(NOT_ALL_USED)


@app.command(name="filter")
def filter_set(
    dataset: Annotated[
        Path,
        typer.Argument(
            metavar="DATASET",
            help="Folder with train/metadata.jsonl and so on, as medeid simulate writes it. It is only read.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the report.")] = Path("filter-report"),
    originals: Annotated[
        Path | None,
        typer.Option(
            metavar="FACES",
            help="Photos of the patients: no picture may be too like one of them. If there are several of a patient, "
            "say whose they are in a metadata.jsonl (file_name, subject_id), or the limit gets too high.",
        ),
    ] = None,
    far: Annotated[
        float,
        typer.Option(help="Share of pairs of different originals that count as too like; sets the limit."),
    ] = 0.001,
) -> None:
    """Find what does not belong into the data set DATASET: leaks, poor pictures, implausible labels.

    Each picture is judged by its likeness to FACES (if given), its sharpness,
    exposure, size and face, by whether it is there twice, and by whether landmarks,
    masks and labels fit it. Writes to the folder of the report: report.md,
    histograms.png, measures.csv, flagged.csv with the reasons, and kept.txt with the
    names of all other pictures. Nothing in DATASET is changed.

    Exit status: 0 all was read (whatever was flagged), 2 a row of DATASET or a photo
    of FACES could not be used, 1 wrong usage.

    Example: medeid filter patients/ --originals clinic/ -o report/
    """
    for folder in (dataset, originals):
        if folder is not None and out.resolve().is_relative_to(folder.resolve()):
            raise _usage_error(f"-o {out}: lies in {folder}, which is only read; choose another folder")
    _prepare_output(out)
    from .data.filters import run_filters  # imports torch: not for --help

    try:
        with _progress() as progress:
            report = run_filters(dataset, originals, false_accept_rate=far, on_progress=_stages(progress))
        report.save(out)
    except (OSError, ValueError, ImportError) as error:
        raise _usage_error(str(error)) from error
    for reason, number in report.counts().items():
        if number:
            print(f"{number:8d}  {reason}")
    for problem in report.not_run:
        _say(errors, "[bold yellow]not run:[/]", problem)
    for problem in (*report.unreadable, *report.unusable_originals):
        _say(errors, "[bold red]not read:[/]", problem)
    print(f"{len(report.kept)} of {len(report.rows)} pictures kept; the reasons are in {out}")
    if report.unreadable or report.unusable_originals:
        raise typer.Exit(NOT_ALL_USED)


@app.command()
def benchmark(
    faces: Annotated[
        Path,
        typer.Argument(
            metavar="FACES",
            help="Folder of aligned crops with metadata.jsonl, landmarks.npz and a split validation, or of photos. "
            "It is only read.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for all that is made.", show_default=False)],
    methods: Annotated[
        str,
        typer.Option(
            help="Methods, with commas: medeid, medeid-0.5 (a privacy level), original, blur, pixelate, mask, eye-bar, "
            "k-same, deface, phi-anonymize-face."
        ),
    ] = "medeid,blur,pixelate,mask,eye-bar",
    method_cmd: Annotated[
        list[str] | None,
        typer.Option(
            help="One more method: a command that reads the PNG {input} and writes the PNG {output}, of the same size, "
            "or none to withhold it. Can be given several times."
        ),
    ] = None,
    count: Annotated[int, typer.Option("-n", "--n", min=1, help="Number of patients.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same figures.")] = 0,
    model: Model = "medeid-tiny",
    judge: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="A second reader of signs, trained apart from the model: an encoder's folder, or that of a pipeline.",
        ),
    ] = None,
    device: Device = "cpu",
) -> None:
    """Measure methods of de-identification on simulated patients: privacy, utility and quality.

    Makes n patients of the faces of the split validation, lets every method
    de-identify them, attacks the results, and reads the signs before and after.
    Writes OUT/results.json (the same bytes for the same seed), OUT/report.html,
    which needs no other file, and all pictures to OUT.
    After an interruption the same command goes on where it was. What is there is not
    made again, but measured anew, also when methods are added.
    A method that fails on photos is named, and the others go on.

    Exit status: 0 all was done, 2 a method failed on at least one photo, or a picture of
    FACES could not be used, 1 wrong usage.

    Example: medeid benchmark faces/ -o benchmark/ --methods medeid,blur --method-cmd 'tool {input} {output}'
    """
    _quiet()
    # These import torch: not for --help.
    from .data.sources import Skipped
    from .evaluation.benchmark import run_benchmark
    from .evaluation.manifestations import load_encoder
    from .evaluation.methods import Command, Method
    from .evaluation.summary import print_table
    from .pipeline import MedicalDeIDPipeline

    try:
        pipeline = MedicalDeIDPipeline.from_pretrained(model).to(device)
    except (OSError, ValueError, RuntimeError) as error:
        raise _usage_error(f"--model {model} --device {device}: {error}") from error
    skipped: list[Skipped] = []
    try:
        named = [name.strip() for name in methods.split(",") if name.strip()]
        chosen: list[str | Method] = [*named, *(Command(each) for each in method_cmd or ())]
        reader = None if judge is None else load_encoder(judge)
        with _progress() as progress:
            results, timing = run_benchmark(
                faces, out, chosen, count, seed, pipeline, reader, _num_cores(), _stages(progress), skipped.append
            )
    except KeyboardInterrupt:
        raise _usage_error(f"interrupted; the same command goes on with {out}") from None
    except BrokenExecutor as error:
        raise _usage_error("a process died; the same command goes on where it was") from error
    except (OSError, ValueError) as error:
        raise _usage_error(str(error)) from error
    print_table(results, timing, Console())
    for each in skipped:
        _say(errors, "[bold red]skipped:[/]", f"{each.file}: {each.reason}")
    print(f"the figures are in {out / 'results.json'}, and shown in {out / 'report.html'}")
    if skipped or any(figures["failures"] for figures in results["methods"].values()):
        raise typer.Exit(NOT_ALL_USED)


if __name__ == "__main__":
    app()
