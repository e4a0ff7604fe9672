"""PNG and JPEG pictures to vectors, refused by their header when they are too large."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from encoders.base import (
    EncoderConfig,
    EncoderLoadError,
    LimitError,
    PayloadError,
    payload_bytes,
)
from encoders.trainable import TrainableEncoder

if TYPE_CHECKING:
    import torch
    from torch import nn

PNG_START = b"\x89PNG\r\n\x1a\n"
JPEG_START = b"\xff\xd8\xff"
#: Network of our own; any other name is one of torchvision's.
SMALL = "small"


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageConfig(EncoderConfig):
    """Options of the image encoder.

    Attributes:
        network: "small", or the name of a torchvision model such as "resnet18".
        weights: safetensors file to start the network from; "" for random weights.
        colour: "rgb" or "gray".
        side_px: pictures are resized to this square.
        max_bytes: longer payloads are refused.
        max_pixels: pictures with more pixels are refused before they are decoded.
    """

    network: str = SMALL
    weights: str = ""
    colour: str = "rgb"
    side_px: int = 64
    max_bytes: int = 8 * 1024 * 1024
    max_pixels: int = 16_000_000

    def __post_init__(self) -> None:
        EncoderConfig.__post_init__(self)
        allowed = ("rgb", "gray") if self.network == SMALL else ("rgb",)
        if self.colour not in allowed:
            msg = (
                f"read image config: colour is '{self.colour}', with network "
                f"'{self.network}' it must be one of {', '.join(allowed)}"
            )
            raise EncoderLoadError(msg)
        if not 16 <= self.side_px <= 1024:
            msg = f"read image config: side_px is {self.side_px}, must be 16..1024"
            raise EncoderLoadError(msg)


class ImageEncoder(TrainableEncoder):
    """A picture as one small square, through a convolutional network."""

    modality: ClassVar[str] = "image"
    config_class: ClassVar[type[EncoderConfig]] = ImageConfig
    config: ImageConfig

    def __init__(self, config: ImageConfig | None = None) -> None:
        """Build the network.

        Raises:
            EncoderLoadError: no such torchvision model, or `weights` do not fit it.
        """
        given = config or ImageConfig()
        self.width = given.width
        self._channels = 3 if given.colour == "rgb" else 1
        self.network = build_network(given, self._channels)
        # The saved weights are whole: a copy must not look for the file again.
        self.config = dataclasses.replace(given, weights="")
        self.seal()

    def decode(self, payload: bytes) -> NDArray[np.uint8]:
        """The picture as uint8 (C, side, side); transparent parts become white."""
        return decode_picture(payload, self.config)

    def prepare(self, decoded: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        """The squares as one tensor, uint8 (B, C, side, side)."""
        import torch

        return torch.from_numpy(np.stack(decoded))

    def augment(
        self, prepared: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """Moved by up to 6 %, stretched by up to 12 %, turned by up to 10 degrees."""
        from encoders.network import jitter

        return jitter(
            prepared, generator, shift=(0.06, 0.06), scale=(0.12, 0.12), turn=0.17
        )

    def settings(self) -> dict[str, Any]:
        """The config and the version of the preparation."""
        return {**dataclasses.asdict(self.config), "preparation": 1}


def decode_picture(payload: Any, config: ImageConfig) -> NDArray[np.uint8]:
    """What `ImageEncoder.decode` gives; needs no torch.

    Raises:
        PayloadError: unreadable or out of limits.
    """
    content = payload_bytes(payload, config.max_bytes)
    picture = open_header(content)
    wide, high = picture.size
    if wide * high > config.max_pixels:
        msg = f"picture is {wide} x {high}, limit {config.max_pixels} pixels"
        raise LimitError(msg)
    if wide * high == 0:
        msg = f"picture is {wide} x {high}, it has no pixels"
        raise PayloadError(msg)
    side = config.side_px
    try:
        if isinstance(picture, JpegImageFile):
            # Decodes at 1/2, 1/4 or 1/8 while that is still twice what is needed.
            picture.draft("RGB", (2 * side, 2 * side))
        flat = flatten(picture)
        if config.colour == "gray":
            flat = flat.convert("L")
        square = np.asarray(flat.resize((side, side), Image.Resampling.BILINEAR))
    except Exception as error:
        msg = f"picture cannot be decoded: {error}"
        raise PayloadError(msg) from error
    return square.reshape(side, side, -1).transpose(2, 0, 1).copy()


def open_header(content: bytes) -> Image.Image:
    """The picture with its size and mode known and no pixel decoded.

    The two readers are named, so no other format's code ever sees the bytes.
    """
    try:
        if content.startswith(PNG_START):
            return PngImageFile(io.BytesIO(content))
        if content.startswith(JPEG_START):
            return JpegImageFile(io.BytesIO(content))
    except Exception as error:
        msg = f"picture header cannot be read: {error}"
        raise PayloadError(msg) from error
    msg = "picture is neither PNG nor JPEG"
    raise PayloadError(msg)


def flatten(picture: Image.Image) -> Image.Image:
    """The picture in 8-bit RGB, over white where it is transparent."""
    picture.load()
    if picture.mode.startswith("I"):
        deep = np.asarray(picture).astype(np.int64).clip(0, 65535) >> 8
        return Image.fromarray(deep.astype(np.uint8)).convert("RGB")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")


def build_network(config: ImageConfig, channels: int) -> nn.Module:
    """The network the config names, with D outputs."""
    from encoders.network import PixelCnn, SmallCnn, seeded

    if config.network == SMALL:
        return seeded(
            lambda: PixelCnn(
                SmallCnn(channels=channels, width=config.width, grid=(4, 4))
            ),
            config.seed,
        )
    from torchvision.models import get_model, list_models

    if config.network not in list_models():
        msg = f"build image encoder: torchvision has no model '{config.network}'"
        raise EncoderLoadError(msg)
    body = seeded(
        lambda: get_model(config.network, weights=None, num_classes=config.width),
        config.seed,
    )
    if config.weights:
        start_from(body, config.weights)
    return PixelCnn(body)


def start_from(body: nn.Module, path: str) -> None:
    """Take over every tensor of the file that fits; at least half of them must."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        given = load_file(path)
    except (OSError, SafetensorError) as error:
        msg = f"load image weights '{path}': {error}; give a safetensors file"
        raise EncoderLoadError(msg) from error
    own = body.state_dict()
    fitting = {k: v for k, v in given.items() if k in own and own[k].shape == v.shape}
    if 2 * len(fitting) < len(own):
        msg = (
            f"load image weights '{path}': {len(fitting)} of {len(own)} tensors fit "
            f"the network; give weights of the same architecture"
        )
        raise EncoderLoadError(msg)
    body.load_state_dict(fitting, strict=False)
