"""Image files as people have them: the good, the odd and the broken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

GOOD = ("photo.png", "tall.jpg", "grey.png", "alpha.png", "grey16.png", "cmyk.jpg", "rotated.jpg", "animated.gif")
BAD = ("truncated.jpg", "truncated.png", "text.png", "huge.png", "missing.png")
ORIENTATION = 0x0112


def write_images(folder: Path) -> None:
    """Every file of GOOD and BAD, but `missing.png`; `huge.png` is 20,000 x 20,000 pixels of one bit."""
    noise = np.random.default_rng(4)
    colour = Image.fromarray(noise.integers(0, 256, (9, 13, 3), np.uint8)).resize((91, 63), Image.Resampling.BICUBIC)
    colour.save(folder / "photo.png")
    colour.rotate(90, expand=True).save(folder / "tall.jpg", quality=95)
    colour.convert("L").save(folder / "grey.png")
    alpha = colour.convert("RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize(colour.size))
    alpha.save(folder / "alpha.png")
    Image.fromarray(np.asarray(colour.convert("L")).astype(np.uint16) * 257).save(folder / "grey16.png")
    colour.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # turned a quarter: to be turned back
    colour.rotate(90, expand=True).save(folder / "rotated.jpg", exif=exif, quality=95)
    colour.save(folder / "animated.gif", save_all=True, append_images=[Image.new("RGB", colour.size)])
    for name, source in (("truncated.jpg", "tall.jpg"), ("truncated.png", "photo.png")):
        content = (folder / source).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
    (folder / "text.png").write_text("not an image")
    Image.new("1", (20_000, 20_000)).save(folder / "huge.png")
