"""Synthetic pictures for the demo: a till receipt or an identity card, as PNG bytes."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

RECEIPT_SIZE = (96, 128)
CARD_SIZE = (128, 96)


def receipt(
    rng: np.random.Generator, *, merchant: str, amount: float, tampered: bool = False
) -> bytes:
    """A receipt with the merchant on top and the total printed large.

    Args:
        rng: drives paper tone, lines and noise.
        merchant: printed as the head line.
        amount: the total, printed with two decimals.
        tampered: the total is pasted over in another shade, on a patch of noise.
    """
    paper = int(rng.integers(225, 250))
    ink = int(rng.integers(20, 70))
    width = RECEIPT_SIZE[0]
    picture = Image.new("L", RECEIPT_SIZE, paper)
    draw = ImageDraw.Draw(picture)
    draw.text((6, 4), merchant[:14], fill=ink, font=_font(12))
    draw.line((6, 20, width - 6, 20), fill=ink)
    for row in range(int(rng.integers(3, 6))):
        top = 26 + 9 * row
        draw.rectangle((6, top, 6 + int(rng.integers(20, 48)), top + 3), fill=ink + 80)
        draw.rectangle((74, top, 88, top + 3), fill=ink + 80)
    draw.line((6, 74, width - 6, 74), fill=ink)
    total = f"{amount:.2f}"
    font = _font(24 if len(total) < 7 else 19)
    left = width - 5 - int(font.getlength(total))
    if tampered:
        _paste_over(picture, rng, left)
        draw.text((left + 2, 81), total, fill=min(ink + 70, 150), font=font)
    else:
        draw.text((left, 79), total, fill=ink, font=font)
    draw.text((6, 112), "TOTAL EUR", fill=ink, font=_font(10))
    return _png(picture, rng)


def identity_card(
    rng: np.random.Generator, *, number: str, tampered: bool = False
) -> bytes:
    """An identity card with a drawn face; tampered when the face is pasted in."""
    picture = Image.new("L", CARD_SIZE, int(rng.integers(195, 225)))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((1, 1, CARD_SIZE[0] - 2, CARD_SIZE[1] - 2), outline=60)
    if tampered:
        patch = rng.integers(90, 255, (58, 46), dtype=np.uint8)
        picture.paste(Image.fromarray(patch), (6, 18))
    skin = int(rng.integers(120, 180))
    face = int(rng.integers(10, 14))
    draw.ellipse((28 - face, 28, 28 + face, 28 + 2 * face + 6), fill=skin, outline=40)
    draw.arc((22, 44, 34, 54), 20, 160, fill=30)
    for eye in (23, 33):
        draw.ellipse((eye - 1, 38, eye + 1, 40), fill=20)
    draw.text((56, 6), "ID CARD", fill=40, font=_font(12))
    draw.text((56, 34), number[-9:], fill=30, font=_font(12))
    for row in range(3):
        end = 70 + int(rng.integers(10, 48))
        draw.rectangle((56, 58 + 9 * row, end, 61 + 9 * row), fill=110)
    return _png(picture, rng)


def _paste_over(picture: Image.Image, rng: np.random.Generator, left: int) -> None:
    """A patch of another paper, noisy and slightly too large, under the total."""
    width = RECEIPT_SIZE[0] - left
    tone = int(rng.integers(165, 200))
    patch = rng.integers(tone - 35, tone + 35, (30, width), dtype=np.uint8)
    picture.paste(Image.fromarray(patch), (left - 2, 78))


def _png(picture: Image.Image, rng: np.random.Generator) -> bytes:
    """PNG bytes after a little dirt, so that no two pictures are the same."""
    pixels = np.array(picture)
    dirt = rng.integers(0, pixels.size, 40)
    pixels.reshape(-1)[dirt] = rng.integers(120, 220, 40, dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format="PNG", compress_level=1)
    return out.getvalue()


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        msg = "draw a picture: Pillow was built without FreeType; install its wheel"
        raise RuntimeError(msg)
    return font
