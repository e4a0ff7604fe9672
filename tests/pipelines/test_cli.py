import argparse
import importlib
import shlex
import signal
import sys
import types

import pytest

from pipelines import cli
from pipelines.cli import COMMANDS, main


@pytest.fixture(autouse=True)
def keep_signals():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def command(monkeypatch):
    """A command `try` that does what the test says."""
    module = types.ModuleType("pipelines.commands.trying")
    module.HELP = "try something"
    module.EXAMPLE = "sluice try --times 2"
    module.add_arguments = lambda parser: parser.add_argument("--times", type=int)
    module.run = lambda args: 0
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(cli.COMMANDS, "try", module.__name__)
    return module


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_an_example_and_its_options(name, capsys):
    module = importlib.import_module(COMMANDS[name])
    assert module.HELP
    assert module.HELP[0].islower() or module.HELP.startswith("Flink")
    assert not module.HELP.endswith(".")
    assert callable(module.run)
    words = shlex.split(module.EXAMPLE)
    assert words[:2] == ["sluice", name]
    parsed = cli._parser(name).parse_args(words[1:])
    assert parsed.command == name
    with pytest.raises(SystemExit) as asked:
        main([name, "--help"])
    assert asked.value.code == 0
    shown = capsys.readouterr().out
    assert "example: sluice" in shown
    assert "--json" in shown
    assert "--home" in shown


def test_the_help_lists_every_command(capsys):
    with pytest.raises(SystemExit) as asked:
        main(["--help"])
    assert asked.value.code == 0
    shown = capsys.readouterr().out
    listed = [line.split()[0] for line in shown.splitlines() if line[:4] == " " * 4]
    assert [name for name in COMMANDS if name not in listed] == []


@pytest.mark.parametrize(
    "argv", [[], ["nonsense"], ["try", "--nonsense"], ["try", "--times", "x"]]
)
def test_a_wrong_call_ends_with_2(command, argv, capsys):
    with pytest.raises(SystemExit) as refused:
        main(argv)
    assert refused.value.code == 2
    assert capsys.readouterr().err


def test_a_commands_own_code_is_the_exit_code(command):
    seen = []

    def run(args):
        seen.append((args.times, args.json, str(args.home)))
        return args.times

    command.run = run
    assert main(["try", "--times", "1", "--json", "--home", "/x"]) == 1
    assert seen == [(1, True, "/x")]


def test_a_failure_is_one_line_and_1(command, capsys, monkeypatch):
    def run(args):
        msg = "no broker at 127.0.0.1:1"
        raise OSError(msg)

    command.run = run
    monkeypatch.delenv("SLUICE_TRACEBACK", raising=False)
    assert main(["try"]) == 1
    shown = capsys.readouterr()
    assert shown.err == "sluice try: no broker at 127.0.0.1:1\n"
    assert shown.out == ""
    monkeypatch.setenv("SLUICE_TRACEBACK", "1")
    with pytest.raises(OSError, match="no broker"):
        main(["try"])


def test_an_interrupt_is_130(command, capsys):
    def run(args):
        raise KeyboardInterrupt

    command.run = run
    assert main(["try"]) == 130
    assert capsys.readouterr().err == "sluice try: interrupted\n"


def test_a_polite_kill_is_an_interrupt_so_that_things_are_put_away(command):
    put_away = []

    def run(args):
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            put_away.append("yes")

    command.run = run
    assert main(["try"]) == 130
    assert put_away == ["yes"]


def test_the_home_folder_comes_from_the_environment(command, monkeypatch):
    monkeypatch.setenv("SLUICE_HOME", "/elsewhere")
    homes = []

    def run(args):
        homes.append(str(args.home))
        return 0

    command.run = run
    main(["try"])
    main(["try", "--home", "/given"])
    assert homes == ["/elsewhere", "/given"]


def test_running_one_command_loads_no_other(command, monkeypatch):
    monkeypatch.setitem(cli.COMMANDS, "broken", "pipelines.commands.not_there")
    assert main(["try"]) == 0
    assert isinstance(cli._parser("try"), argparse.ArgumentParser)
