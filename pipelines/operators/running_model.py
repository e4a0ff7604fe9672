"""The model version a scorer works with, and how an announcement replaces it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl.features import FeatureAssembler
from automl.registry import ArtefactError
from automl.task import TaskSpec
from connectors.records import MEDIA, DeadLetter, Place

if TYPE_CHECKING:
    from pipelines.scorer import Scorer


class RunningModel:
    """A loaded version; another takes its place, or is refused with a reason.

    Attributes:
        scorer: the version at work.
        assembler: puts its features together.

    Args:
        folder: the version to begin with.

    Raises:
        ArtefactError: that version cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        from pipelines.scorer import Scorer

        self._load = Scorer.load
        self._tried = ""
        self._use(Scorer.load(folder))

    def _use(self, scorer: Scorer) -> None:
        self.scorer = scorer
        self.assembler = FeatureAssembler(TaskSpec.from_json(scorer.manifest.task))

    @property
    def takes_media(self) -> bool:
        """Whether a case of this model can have more than its tabular events."""
        return any(name in self.scorer.manifest.fingerprints for name in MEDIA)

    def is_at_work(self, announced: dict[str, Any]) -> bool:
        """Whether the announced version is the one in use."""
        manifest = self.scorer.manifest
        same = (announced["name"], announced["version"])
        return same == (manifest.name, manifest.version)

    def take(self, announced: dict[str, Any]) -> list[DeadLetter]:
        """Use an announced version from now on, or say why not.

        The announcement of another model is none of ours, and one that was tried last
        is not tried again.
        """
        manifest = self.scorer.manifest
        folder = str(announced["folder"])
        if announced["name"] != manifest.name or folder == self._tried:
            return []
        self._tried = folder
        if self.is_at_work(announced):
            return []
        try:
            scorer = self._load(Path(folder))
            if scorer.manifest.task["features"] != manifest.task["features"]:
                msg = f"{folder}: made for other features; restart the job for it"
                raise ArtefactError(msg)
            if scorer.manifest.fingerprints != manifest.fingerprints:
                msg = f"{folder}: made for other encoders; restart both jobs for it"
                raise ArtefactError(msg)
        except Exception as error:
            letter = DeadLetter(
                place=Place(**announced["place"]),
                row=-1,
                kind="mismatch",
                reason=f"model refused, v{manifest.version} stays: {error}",
                event_id="",
                modality="",
                value=json.dumps(announced).encode(),
            )
            return [letter]
        self._use(scorer)
        return []
