"""PNG and JPEG pictures to vectors, refused by their header when they are too large."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
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
#: Network of our own; other names are torchvision's or Hugging Face's.
SMALL = "small"
LIGHT, STRONG = "light", "strong"


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageConfig(EncoderConfig):
    """Options of the image encoder.

    Attributes:
        network: "small", the name of a torchvision model such as "resnet18", or the
            folder or Hugging Face name of a vision model.
        download: whether a name that is not on this machine may be fetched.
        architecture: set by the encoder: what rebuilds a Hugging Face model.
        weights: safetensors file to start the network from; "" for random weights.
        colour: "rgb" or "gray".
        changes: how pictures are changed in training: "light"; "strong" also bends
            them and changes their strokes, and needs more steps.
        side_px: pictures are resized to this square.
        max_bytes: longer payloads are refused.
        max_pixels: pictures with more pixels are refused before they are decoded.
    """

    network: str = SMALL
    download: bool = True
    architecture: str = ""
    weights: str = ""
    colour: str = "rgb"
    changes: str = LIGHT
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
        if self.changes not in (LIGHT, STRONG):
            msg = (
                f"read image config: changes is '{self.changes}', must be "
                f"'{LIGHT}' or '{STRONG}'"
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
            EncoderLoadError: no such network, or `weights` do not fit it.
        """
        given = config or ImageConfig()
        self.width = given.width
        self.network, architecture = build_network(given)
        # What is saved is whole: a copy must not look for files again.
        self.config = dataclasses.replace(given, weights="", architecture=architecture)
        self.seal()

    def decode(self, payload: bytes) -> NDArray[np.uint8]:
        """The picture as uint8 (C, side, side); transparent parts become white."""
        return decode_picture(payload, self.config)

    def prepare(self, decoded: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        """The squares as one tensor, uint8 (B, C, side, side)."""
        import torch

        return torch.from_numpy(np.asarray(decoded))

    def augment(
        self, prepared: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """Moved, stretched and turned; when strong, bent, and strokes thicker, too."""
        from encoders.changes import blur, jitter, thicken

        if self.config.changes == LIGHT:
            return jitter(
                prepared, generator, shift=(0.06, 0.06), scale=(0.12, 0.12), turn=0.17
            )
        x = jitter(
            prepared,
            generator,
            shift=(0.06, 0.06),
            scale=(0.15, 0.15),
            turn=0.2,
            lean=0.2,
            bend=0.03,
        )
        return blur(thicken(x, generator, most=0.5), generator, most=0.5)

    def settings(self) -> dict[str, Any]:
        """What changes a vector of the config, and the version of the preparation."""
        options = dataclasses.asdict(self.config)
        del options["download"], options["changes"]
        options["network"] = Path(options["network"]).name
        return {**options, "preparation": 1}


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


def build_network(config: ImageConfig) -> tuple[nn.Module, str]:
    """The network the config names, with D outputs; the JSON that rebuilds it."""
    from torchvision.models import get_model, list_models

    from encoders.network import PixelCnn, SmallCnn, seeded

    width = config.width
    if config.network == SMALL:
        channels = 3 if config.colour == "rgb" else 1
        small = seeded(
            lambda: SmallCnn(channels=channels, width=width, grid=(4, 4)), config.seed
        )
        return PixelCnn(small), ""
    if config.network not in list_models():
        return read_network(config)
    body = seeded(
        lambda: get_model(config.network, weights=None, num_classes=width),
        config.seed,
    )
    if config.weights:
        start_from(body, config.weights)
    return PixelCnn(body), ""


def read_network(config: ImageConfig) -> tuple[nn.Module, str]:
    """A Hugging Face network with its weights; of a saved encoder, still without."""
    from encoders import pretrained
    from encoders.network import seeded

    what, folder, architecture = "image network", None, config.architecture
    if config.weights:
        msg = (
            f"build image encoder: `weights` are for torchvision networks, "
            f"'{config.network}' brings its own"
        )
        raise EncoderLoadError(msg)
    if architecture:
        model = pretrained.build_model(architecture)
    else:
        folder = pretrained.find_model(
            config.network, what=what, download=config.download
        )
        model, architecture = pretrained.read_model(folder, what=what)
    net = seeded(
        lambda: pretrained.PictureNet(model, width=config.width, folder=folder),
        config.seed,
    )
    return net, architecture


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
