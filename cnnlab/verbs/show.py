"""`cnnlab show OVERRIDES...`: images of a data set as they are, augmented, and as the network gets them.

overrides -> configuration -> the first training batches -> a picture, and the data set in figures
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cnnlab.allowed import RequestError, whole
from cnnlab.compose import Composer
from cnnlab.config import Config
from cnnlab.quiet import quiet_libraries
from cnnlab.terminal import announce, warn_on_terminal
from cnnlab.verbs.parser import Parser

if TYPE_CHECKING:  # torch takes seconds to import
    from PIL.Image import Image
    from torch import Tensor, nn

    from cnnlab.data.images import ImageData

HELP = """\
Draw the images that a training begins with, and below each what augmentation
makes of it in the first epoch, and what the network gets: augmented, then
preprocessed, scaled to the range of most of its pixels. OVERRIDES choose as
they do for training. Below are the data set's figures.
"""

COLUMNS, SIDE, MARGIN, LINE = 8, 96, 92, 18  # images in a row; pixels: of a tile at least, of the texts
ROWS = ("original", "augmented", "preprocessed")
MOST_IMAGES = 64
MEASURED = 10_000  # training images that the figures after preprocessing are of
DARKEST, BRIGHTEST = 1, 99  # percentiles of preprocessed pixels that become black and white


def main(arguments: Sequence[str]) -> int:
    """Draw what the arguments of `cnnlab show` ask for; returns the exit code."""
    parser = argument_parser()
    if (asked := parser.asked(arguments)) is None:
        return 0
    try:
        count = whole("--images", asked.images, at_least=1, at_most=MOST_IMAGES)
    except ValueError as error:
        raise RequestError(f"show: {error}") from error
    config = Composer(asked.config_dir).one(asked.overrides)
    announce("reading the data")
    quiet_libraries()
    from cnnlab.build import build_data

    warn_on_terminal()
    try:
        data = build_data(config)
        augmentation, preprocessing = changes(config, data)
        rows, labels = seen(data, augmentation, preprocessing, count)
        shown = picture(rows, [" ".join(named(data, label).split()) for label in labels])
    finally:
        announce("")
    try:
        shown.save(asked.output)
    except (OSError, ValueError) as error:  # no such folder; a suffix of no format
        raise RequestError(f"show: --output {asked.output}: {error}") from error
    print(asked.output)
    show(figures(data, preprocessing))
    return 0


def argument_parser() -> Parser:
    parser = Parser("show", HELP)
    add = parser.add_argument
    add("overrides", nargs="*", metavar="OVERRIDES", help="GROUP=WORD, GROUP.KNOB=VALUE, KEY=VALUE")
    add("--output", "-o", type=Path, default=Path("show.png"), metavar="FILE", help="the picture (show.png)")
    add("--images", type=int, default=COLUMNS, metavar="N", help=f"how many are drawn ({COLUMNS})")
    add("--config-dir", "-cd", metavar="DIR", help="your own YAML files")
    return parser


def changes(config: Config, data: "ImageData") -> tuple["nn.Module", "nn.Module"]:
    """Augmentation, and preprocessing that is fitted to the training part."""
    from cnnlab.refusals import build, refusals

    augmentation, preprocessing = build(config, ("augmentation",)), build(config, ("preprocessing",))
    with refusals(config, "preprocessing"):
        preprocessing.fit(data.train_images)
    return augmentation.train(), preprocessing


def seen(
    data: "ImageData", augmentation: "nn.Module", preprocessing: "nn.Module", count: int
) -> tuple[list["Tensor"], "Tensor"]:
    """The first images of the first epoch in rows, as ROWS names them, and their labels."""
    import torch

    from cnnlab.randomness import seed_step

    batches = []
    for batch, (images, labels) in enumerate(data.train_dataloader()):
        seed_step(data.seed, 0, batch)  # as in training
        augmented = augmentation(images)
        batches.append((images, augmented, preprocessing(augmented), labels))
        if (batch + 1) * data.batch_size >= count:
            break
    *rows, labels = (torch.cat(parts)[:count] for parts in zip(*batches, strict=True))
    return rows, labels


def named(data: "ImageData", label: "Tensor") -> str:
    """A target in words: its class, those of a chain, the attributes that it has, or its values."""
    match data.targets:
        case "values":
            return ", ".join(f"{value:.3g}" for value in label.tolist())
        case "attributes":
            return ", ".join(name for name, has in zip(data.class_names, label, strict=True) if has)
    return " ".join(data.class_names[number] for number in label.flatten().tolist())


def picture(rows: Sequence["Tensor"], names: Sequence[str]) -> "Image":
    """Blocks of at most COLUMNS images, the rows of each below one another, under their names."""
    import numpy as np
    import torch
    from PIL import Image, ImageDraw, ImageFont

    from cnnlab.monitor.filters import GAP, tiled

    channels = 3 if rows[0].shape[1] > 2 else 1  # of two one is drawn
    original, augmented, preprocessed = (row[:, :channels].float().cpu() for row in rows)
    brightest = original.max().clamp(min=1)
    low, high = np.percentile(preprocessed.numpy(), [DARKEST, BRIGHTEST])
    shades = [original / brightest, augmented / brightest, (preprocessed - low) / max(high - low, 1e-12)]
    blocks = []
    for start in range(0, len(names), COLUMNS):
        block = [row[start : start + COLUMNS].nan_to_num().clamp(0, 1) for row in shades]
        blocks.append(tiled(torch.cat(block), len(block[0]), SIDE))
    height, width = blocks[0].shape[0] + LINE, blocks[0].shape[1]
    sheet = Image.new("RGB", (MARGIN + width, height * len(blocks)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    columns = min(COLUMNS, len(names))
    tile_height, tile_width = (height - LINE - GAP) // len(ROWS), (width - GAP) // columns
    for number, grid in enumerate(blocks):
        top = number * height
        sheet.paste(Image.fromarray(grid), (MARGIN, top + LINE))
        for row, word in enumerate(ROWS):
            pen.text((4, top + LINE + GAP + row * tile_height), word, "black", font)
        for column, name in enumerate(names[number * COLUMNS :][:COLUMNS]):
            cuts = [name, *(f"{name[:end]}…" for end in range(len(name) - 1, 0, -1))]
            fitting = next((cut for cut in cuts if font.getlength(cut) < tile_width), "")
            pen.text((MARGIN + GAP + column * tile_width, top + 2), fitting, "black", font)
    return sheet


def figures(data: "ImageData", preprocessing: "nn.Module") -> dict[str, str]:
    """The data set in figures: its parts, its images, its targets, and what preprocessing makes of them."""
    import torch

    from cnnlab.data.targets import KINDS

    images, _, chosen = data.parts["train"]
    sums, count = torch.zeros(2, dtype=torch.float64), 0
    for index in chosen[:MEASURED].split(256):
        pixels = preprocessing(images[index]).double()
        sums += torch.stack([pixels.sum(), pixels.square().sum()]).cpu()
        count += pixels.numel()
    mean, square = (sums / count).tolist()
    of = f" (of {MEASURED:,} images)" if len(chosen) > MEASURED else ""
    names = " ".join(", ".join(data.class_names[:10]).split()) + (", …" if data.classes > 10 else "")
    return {
        **{part: f"{size:,}" for part, size in data.sizes.items()},
        "shape": " x ".join(map(str, data.input_shape)),
        KINDS[data.targets]: f"{data.classes}: {names}",
        "preprocessed": f"mean {mean:.4f}, std {max(0.0, square - mean**2) ** 0.5:.4f}{of}",
    }


def show(figures: dict[str, str]) -> None:
    from rich.table import Table
    from rich.text import Text

    from cnnlab.report.table import console

    table = Table.grid(padding=(0, 2))
    for name, figure in figures.items():
        table.add_row(Text(name, "bold"), Text(figure))
    console.print(table)
