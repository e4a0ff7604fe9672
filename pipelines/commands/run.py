"""`sluice run`: put a job or a service of the pipeline to work on the local stack."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from automl.registry import ArtefactError, ModelVersion
from pipelines import stack
from pipelines.commands.models import registry_of, resolve_model
from pipelines.commands.progress import say
from pipelines.config import JobConfig
from pipelines.services import SERVICES, service_command
from pipelines.stack import Stack

HELP = "start a part of the pipeline: encode, score, index or retrain"
EXAMPLE = "sluice run score --nodes 1 --model fraud"
PARTS = ("encode", "score", "index", "retrain")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `sluice run`."""
    parser.add_argument("part", choices=PARTS)
    parser.add_argument(
        "--model",
        metavar="M",
        help="NAME, NAME:VERSION or a model folder (default: the only model there is)",
    )
    parser.add_argument(
        "--nodes",
        type=int,
        default=1,
        metavar="N",
        help="TaskManagers a Flink job spreads over (default: %(default)s)",
    )
    parser.add_argument(
        "--flink",
        metavar="URL",
        help="REST address of another Flink cluster (default: the local stack)",
    )
    parser.add_argument(
        "--bootstrap",
        metavar="HOST:PORT",
        help="another broker; index and retrain then run in the foreground",
    )


def run(args: argparse.Namespace) -> int:
    """Start the part and say where it runs; returns the exit code."""
    from connectors.kafka import create_topics

    is_job = args.part not in SERVICES
    if bool(args.flink) != bool(args.bootstrap and is_job):
        print(
            "sluice run: encode and score take --flink and --bootstrap together, "
            "index and retrain --bootstrap alone",
            file=sys.stderr,
        )
        return 2
    version = resolve_model(args.home, args.model or _only_model(args.home))
    if args.bootstrap and args.part in SERVICES:
        create_topics(args.bootstrap)
        argv = service_command(args.part, args.home, args.bootstrap, version)
        os.execv(argv[0], argv)
    cluster = _cluster(args)
    create_topics(cluster.bootstrap)
    if args.part in SERVICES:
        argv = service_command(args.part, args.home, cluster.bootstrap, version)
        cluster.add_service(args.part, argv, env={"OMP_NUM_THREADS": "1"})
        _tell(args, {"part": args.part, "model": version.name})
        return 0
    return _submit(args, cluster, version)


def _cluster(args: argparse.Namespace) -> Stack:
    """The cluster meant: the local stack, or the one the options name."""
    if args.flink:
        return stack.attach(args.home, bootstrap=args.bootstrap, flink_url=args.flink)
    local = stack.find(args.home)
    if local is None:
        msg = f"no stack runs in {args.home}; start one with: sluice up"
        raise stack.StackError(msg)
    return local


def _submit(args: argparse.Namespace, cluster: Stack, version: ModelVersion) -> int:
    from pipelines import jobs
    from pipelines.rescale import stopped_jobs

    if args.part in jobs.running_jobs(cluster):
        print(f"sluice run: a job named {args.part} runs already", file=sys.stderr)
        return 1
    if args.part in stopped_jobs(cluster):
        print(
            f"sluice run: {args.part} was stopped with its state and did not start "
            f"again; go on from there with: sluice scale {args.nodes}",
            file=sys.stderr,
        )
        return 1
    if not args.bootstrap:
        cluster = stack.settled(cluster)
        short = args.nodes - jobs.free_slots(cluster)
        if short > 0:
            cluster = stack.scale(cluster, cluster.nodes + short, say=say)
    config = JobConfig(
        bootstrap=cluster.bootstrap,
        model_folder=str(version.folder.resolve()),
        nodes=args.nodes,
    )
    job_id = jobs.submit(cluster, [args.part], config)[args.part]
    _tell(args, {"part": args.part, "model": version.name, "job_id": job_id})
    return 0


def _tell(args: argparse.Namespace, found: dict[str, str]) -> None:
    if args.json:
        print(json.dumps(found))
    else:
        job = f" as job {found['job_id']}" if "job_id" in found else ""
        print(f"{args.part} runs{job} with model {found['model']}")


def _only_model(home: Path) -> str:
    names = registry_of(home).names()
    if len(names) != 1:
        known = ", ".join(names) or "none; make one with: sluice train"
        msg = f"say which model with --model; known: {known}"
        raise ArtefactError(msg)
    return names[0]
