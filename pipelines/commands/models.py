"""`sluice models`: what is registered, and which version is in charge."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from automl.registry import ArtefactError, ModelVersion, Registry, verify

HELP = "list, show, promote, roll back or verify model versions"
EXAMPLE = "sluice models promote fraud 3"
ACTIONS = ("list", "show", "promote", "rollback", "verify")


def registry_of(home: Path) -> Registry:
    """The registry of a home folder."""
    return Registry(home / "models")


def resolve_model(home: Path, model: str) -> ModelVersion:
    """The version a user means by NAME (its champion), NAME:VERSION or a folder.

    Raises:
        ArtefactError: there is none; the message says what is known.
    """
    if (Path(model) / "manifest.json").is_file():
        return ModelVersion(folder=Path(model), manifest=verify(Path(model)))
    registry = registry_of(home)
    name, _, number = model.partition(":")
    if number:
        return registry.get(name, int(number))
    champion = registry.champion(name)
    if champion is None:
        msg = (
            f"no model {name!r} in {registry.root}; known: "
            f"{', '.join(registry.names()) or 'none'}; make one with: "
            f"sluice train ARCHIVE --task T --name {name}"
        )
        raise ArtefactError(msg)
    return champion


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `sluice models`."""
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument("name", nargs="?", help="name of a model")
    parser.add_argument("version", nargs="?", type=int, help="number of a version")


def run(args: argparse.Namespace) -> int:
    """Do what was asked; a running cluster is told of a new champion."""
    registry = registry_of(args.home)
    if args.action == "list":
        names = [args.name] if args.name else list(registry.names())
        _list(registry, names, as_json=args.json)
        return 0
    if args.name is None:
        msg = f"models {args.action} needs the NAME of a model"
        raise ArtefactError(msg)
    if args.action == "promote":
        if args.version is None:
            msg = "models promote needs NAME and VERSION"
            raise ArtefactError(msg)
        verify(registry.get(args.name, args.version).folder)
        found = registry.promote(args.name, args.version)
    elif args.action == "rollback":
        found = registry.rollback(args.name)
    else:
        chosen = f"{args.name}:{args.version}" if args.version else args.name
        found = resolve_model(args.home, chosen)
    told = False
    if args.action in ("promote", "rollback"):
        told = _announce(args.home, found)
    else:
        verify(found.folder)
    _show(args, found, told)
    return 0


def _announce(home: Path, version: ModelVersion) -> bool:
    from pipelines import stack
    from pipelines.publish import announce

    live = stack.find(home)
    if live is None:
        return False
    announce(version, live.bootstrap)
    return True


def _list(registry: Registry, names: list[str], *, as_json: bool) -> None:
    rows = []
    for name in names:
        champion = registry.champion(name)
        for version in registry.list(name):
            rows.append(
                {
                    "name": name,
                    "version": version.version,
                    "champion": champion is not None
                    and champion.version == version.version,
                    "created_at": version.manifest.created_at,
                    "metrics": version.manifest.metrics,
                }
            )
    if as_json:
        print(json.dumps(rows))
        return
    for row in rows:
        mark = "*" if row["champion"] else " "
        metrics = row["metrics"]
        auc = metrics.get("auc") if isinstance(metrics, dict) else None
        shown = f"AUC {auc:.3f}" if isinstance(auc, float) else ""
        print(f"{mark} {row['name']} v{row['version']}  {row['created_at']}  {shown}")
    if not rows:
        print("no models yet; make one with: sluice train ARCHIVE --task T --name M")


def _show(args: argparse.Namespace, found: ModelVersion, told: bool) -> None:
    if args.json or args.action == "show":
        shown = {**dataclasses.asdict(found.manifest), "folder": str(found.folder)}
        print(json.dumps(shown, indent=None if args.json else 2))
    elif args.action == "verify":
        print(f"{found.name} v{found.version}: every file is as its manifest says")
    else:
        heard = "running jobs are told" if told else "no stack runs here"
        print(f"{found.name} v{found.version} is the champion; {heard}")
