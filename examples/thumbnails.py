"""Thumbnails of a folder of pictures, and a contact sheet of them all: a fan-out, and what follows when all have come.

    make_thumbnail  make_thumbnail  ...  make_thumbnail     one job a picture, in processes of their own
                  \\      |      /
                   contact_sheet                            once, with all their results, in order

One of the files is no picture. `allow_failures=True` has its failure told to the contact sheet, as a value, instead of
failing the whole. Needs Pillow.
"""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from PIL import Image, ImageDraw, ImageOps, UnidentifiedImageError

from taskharbor import Failure, FlowHandle, Harbor, Retry, Success, chord, group, task

PICTURES = Path(__file__).resolve().parent / "data" / "pictures"
EDGE = 160
"""Of the square that a thumbnail fits into, in pixels."""


class Thumbnail(msgspec.Struct, frozen=True):
    """What one job reports: where the thumbnail is. Pictures themselves stay out of the jobs."""

    path: str
    width: int
    height: int


class Sheet(msgspec.Struct, frozen=True):
    """What the contact sheet shows."""

    path: str
    width: int
    height: int
    shown: int
    missing: list[str]


# Decoding pictures holds the interpreter's lock for much of the time, so it is done in processes of their own. A file
# that is no picture will be none at the next attempt.
@task(run="process", retry=Retry(on={UnidentifiedImageError: Retry.never}))
def make_thumbnail(source: str, folder: str) -> Thumbnail:
    """Write a small version of a picture. The same name each time, so that a second run does no harm."""
    target = Path(folder) / f"{Path(source).stem}.png"
    with Image.open(source) as picture:
        upright = ImageOps.exif_transpose(picture).convert("RGB")
    upright.thumbnail((EDGE, EDGE))
    upright.save(target)
    return Thumbnail(str(target), upright.width, upright.height)


@task
def contact_sheet(
    thumbnails: list[Success[Thumbnail] | Failure], names: list[str], target: str, columns: int = 3
) -> Sheet:
    """Paste thumbnails side by side; where one is missing, say so."""
    rows = -(-len(thumbnails) // columns)
    sheet = Image.new("RGB", (columns * EDGE, rows * EDGE), "white")
    draw = ImageDraw.Draw(sheet)
    missing: list[str] = []
    for number, (one, name) in enumerate(zip(thumbnails, names, strict=True)):
        left, top = number % columns * EDGE, number // columns * EDGE
        if isinstance(one, Failure):
            missing.append(f"{name}: {one.error_type.rpartition('.')[2]}")
            draw.text((left + EDGE / 2, top + EDGE / 2), f"{name}\nis no picture", "firebrick", anchor="mm")
            continue
        small = one.value
        with Image.open(small.path) as picture:
            sheet.paste(picture, (left + (EDGE - small.width) // 2, top + (EDGE - small.height) // 2))
    sheet.save(target)
    return Sheet(target, sheet.width, sheet.height, len(thumbnails) - len(missing), missing)


def send(pictures: Sequence[Path], folder: Path) -> FlowHandle[Sheet]:
    """Enqueue the whole, in one transaction."""
    # A group's members run side by side. The function says where their results go; it is called once, here and now,
    # with a placeholder for them.
    thumbnails = group(*(make_thumbnail.s(str(path), str(folder)) for path in pictures), allow_failures=True)
    names = [path.name for path in pictures]
    flow = chord(thumbnails, lambda made: contact_sheet.s(made, names, str(folder / "sheet.png")))
    return flow.configure(name="contact sheet").enqueue()


def main(folder: Path) -> None:
    """Make a contact sheet of the pictures, and look at it."""
    pictures = sorted(PICTURES.iterdir())
    with Harbor(f"sqlite:///{folder / 'jobs.db'}") as harbor, harbor.worker_thread(handler_processes=2):
        flow = send(pictures, folder)
        sheet = flow.result(timeout=timedelta(seconds=60))  # typed: a Sheet

        for path in pictures:
            thumbnail = folder / f"{path.stem}.png"
            if thumbnail.exists():
                with Image.open(path) as before, Image.open(thumbnail) as after:
                    print(
                        f"{path.name:14} {before.width} x {before.height} -> {after.width} x {after.height}"
                    )
        print(f"contact sheet: {sheet.width} x {sheet.height}, {sheet.shown} pictures")
        print(f"missing: {', '.join(sheet.missing)}")
        states = flow.status().steps
        print("steps:", ", ".join(f"{count} {state}" for state, count in sorted(states.items())))


# A process of its own imports this file, too, to find the task. So what starts things stands below this line.
if __name__ == "__main__":
    with TemporaryDirectory() as place:
        main(Path(place))
