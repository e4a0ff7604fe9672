"""Promote a model version and tell the running jobs, by the compacted models topic."""

from __future__ import annotations

import json

from automl.registry import ModelVersion, Registry, verify
from connectors.kafka import Producer


def publish(
    registry: Registry, version: ModelVersion, bootstrap: str, *, prefix: str = ""
) -> None:
    """Make a verified version the champion and announce it.

    Raises:
        ArtefactError: a file of the version is missing or altered; nothing changes.
        BrokerError: the announcement was not stored; the champion is already moved.
    """
    verify(version.folder)
    registry.promote(version.name, version.version)
    announce(version, bootstrap, prefix=prefix)


def announce(version: ModelVersion, bootstrap: str, *, prefix: str = "") -> None:
    """Tell the running jobs to use a version from now on."""
    announcement = {
        "name": version.name,
        "version": version.version,
        "folder": str(version.folder.resolve()),
    }
    with Producer(bootstrap) as producer:
        value = json.dumps(announcement).encode()
        producer.send(f"{prefix}models", value, key=version.name)
        producer.flush()
