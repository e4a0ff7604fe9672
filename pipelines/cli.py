"""The console script `sluice`: one table of commands, each a module of `commands`."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

#: Command to the module that has HELP, EXAMPLE, add_arguments(parser) and run(args).
COMMANDS: dict[str, str] = {
    name: f"pipelines.commands.{name.replace('-', '_')}"
    for name in (
        "demo",
        "up",
        "down",
        "status",
        "doctor",
        "run",
        "scale",
        "replay",
        "stream",
        "features",
        "skew",
        "train",
        "score",
        "evaluate",
        "models",
        "query",
        "dead-letters",
        "bench",
    )
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; exit code 0 done, 1 failed, 2 called wrongly."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = next((a for a in arguments if not a.startswith("-")), None)
    parser = _parser(name)
    args = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return int(importlib.import_module(COMMANDS[args.command]).run(args))
    except KeyboardInterrupt:
        print(f"sluice {args.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("SLUICE_TRACEBACK"):
            raise
        print(f"sluice {args.command}: {error}", file=sys.stderr)
        return 1


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sluice", description="Kafka events to fused decisions, live."
    )
    home = Path(os.environ.get("SLUICE_HOME", ".sluice"))
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module_name in COMMANDS.items():
        if chosen in COMMANDS and name != chosen:
            continue  # the other modules need not be loaded to run one
        module = importlib.import_module(module_name)
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=module.HELP[0].upper() + module.HELP[1:] + ".",
            epilog=f"example: {module.EXAMPLE}",
        )
        command.add_argument(
            "--home",
            type=Path,
            default=home,
            help="folder of the local stack and the models (default: %(default)s)",
        )
        command.add_argument(
            "--json", action="store_true", help="print one line of JSON on stdout"
        )
        module.add_arguments(command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
