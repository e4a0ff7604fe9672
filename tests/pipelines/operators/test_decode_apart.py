from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from encoders import build_encoder, load_encoders, save_encoders
from pipelines.decode_child import Refused
from pipelines.operators.decode_apart import (
    USUAL_PAD,
    DecodeLimits,
    DecoderProcess,
    DecoderProcessError,
)
from pipelines.stack_files import MEMORY_ENV

DEADLY = Path(__file__).parents[1] / "deadly_decoders.py"
LIMITS = DecodeLimits(seconds=1.0, memory_mb=64)


@pytest.fixture
def process(tmp_path):
    started = DecoderProcess(tmp_path / "image", LIMITS, child=[str(DEADLY)])
    yield started
    started.close()


def decode(process, *payloads):
    process.begin("image", payloads)
    return [
        one if isinstance(one, Refused) else one.tobytes() for one in process.finish()
    ]


def test_arrays_and_reasons_come_back_in_order(process):
    found = decode(process, b"a", b"bad", b"bc", b"large", b"d" * 5_000_000, b"raise")
    assert found[0::2][:2] == [b"a", b"bc"]
    assert found[1] == Refused("unreadable", "no picture")
    assert found[3] == Refused("limits", "too large")
    assert found[4] == b"d" * 5_000_000
    assert found[5].kind == "decoder"
    assert "KeyError" in found[5].reason
    assert process.restarts == 0
    assert decode(process, b"small again") == [b"small again"]


@pytest.mark.parametrize(
    ("deadly", "reason"),
    [
        (b"exit", "the process that decoded it ended with status 3"),
        (b"crash", "the process that decoded it ended with signal 11"),
        (b"hang", "decoding took more than 1 s"),
        (b"memory", "decoding took more than 64 MB of memory"),
        (b"memory in a library", "decoding took more than 64 MB of memory"),
    ],
)
def test_a_deadly_payload_costs_itself_and_nothing_else(process, deadly, reason):
    found = decode(process, b"a", b"b", deadly, b"c", b"d")
    assert found == [b"a", b"b", Refused("decoder", reason), b"c", b"d"]
    assert process.restarts == 1
    assert decode(process, b"e", b"f") == [b"e", b"f"]


def test_what_a_node_keeps_ready_is_not_memory_of_a_payload(tmp_path, monkeypatch):
    for name, value in MEMORY_ENV.items():
        monkeypatch.setenv(name, value)
    started = DecoderProcess(tmp_path / "image", LIMITS, child=[str(DEADLY)])
    try:
        assert decode(started, b"a", b"memory", b"b")[0::2] == [b"a", b"b"]
        assert started.restarts == 1
        given = psutil.Process(started.pid).environ()
        assert {name: given[name] for name in USUAL_PAD} == USUAL_PAD
    finally:
        started.close()


def test_a_batch_of_deadly_payloads_ends_too(process):
    assert [x.kind for x in decode(process, b"exit", b"crash")] == ["decoder"] * 2
    assert decode(process, b"a") == [b"a"]


def test_many_slow_payloads_are_no_hang(process):
    assert decode(process, *[b"slow"] * 6) == [b"slow"] * 6  # 1.8 s, the limit is 1
    assert process.restarts == 0


def test_a_process_that_is_killed_idle_costs_nothing(process):
    assert decode(process, b"a") == [b"a"]
    os.kill(process.pid, signal.SIGKILL)
    time.sleep(0.1)
    assert decode(process, b"b", b"c") == [b"b", b"c"]


def test_a_process_that_is_stopped_or_killed_with_a_payload_costs_that(process):
    assert decode(process, b"a") == [b"a"]
    os.kill(process.pid, signal.SIGSTOP)
    process.begin("image", [b"b", b"c"])
    os.kill(process.pid, signal.SIGKILL)
    first, second = process.finish()
    assert first.reason == "the process that decoded it ended with signal 9"
    assert second.tobytes() == b"c"
    os.kill(process.pid, signal.SIGSTOP)
    assert decode(process, b"d", b"e") == [
        Refused("decoder", "decoding took more than 1 s"),
        b"e",
    ]


def test_the_arrays_of_a_batch_stay_while_the_next_is_decoded(process):
    process.begin("image", [b"a", b"bc"])
    first = process.finish()
    process.begin("image", [b"ddd", b"exit", b"e"])
    second = process.finish()
    assert [one.tobytes() for one in first] == [b"a", b"bc"]
    assert [second[0].tobytes(), second[2].tobytes()] == [b"ddd", b"e"]


def test_arrays_that_are_alike_come_back_as_one(process):
    process.begin("image", [b"ab", b"cd", b"ef"])
    found = process.finish()
    assert isinstance(found, np.ndarray)
    assert [one.tobytes() for one in found] == [b"ab", b"cd", b"ef"]
    process.begin("image", [b"ab", b"cd", b"bad"])
    assert isinstance(process.finish(), list)


def test_a_process_that_cannot_start_says_where_to_look(tmp_path):
    child = ["-c", "raise SystemExit('no such library')"]
    process = DecoderProcess(tmp_path, LIMITS, child=child)
    with pytest.raises(DecoderProcessError, match="could be started in 3 tries"):
        decode(process, b"a")
    process.close()


def test_it_dies_with_its_parent(tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from pipelines.operators.decode_apart import *\n"
        f"one = DecoderProcess(Path({str(tmp_path / 'image')!r}), DecodeLimits(),"
        f" child=[{str(DEADLY)!r}])\n"
        "one.begin('image', [b'a']); one.finish(); one.begin('image', [b'hang'])\n"
        "print(one.pid, flush=True); one.finish()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        child.wait(5)


def test_the_real_child_decodes_as_the_encoder_does_without_torch(
    tmp_path, pictures_and_clips
):
    encoders = {
        m: build_encoder({"modality": m, "width": 8}) for m in ("image", "audio")
    }
    save_encoders(encoders, tmp_path)
    process = DecoderProcess(tmp_path, DecodeLimits())
    for modality, payloads in pictures_and_clips.items():
        process.begin(modality, payloads)
        for payload, found in zip(payloads, process.finish(), strict=True):
            expected = load_encoders(tmp_path)[modality].decode(payload)
            assert np.array_equal(found, expected)
            assert found.dtype == expected.dtype
    maps = Path(f"/proc/{process.pid}/maps").read_text()
    assert "torch" not in maps
    assert psutil.Process(process.pid).memory_info().rss < 120 * 2**20
    process.close()


@pytest.fixture
def pictures_and_clips():
    import io

    import soundfile
    from PIL import Image

    rng = np.random.default_rng(0)
    pictures, clips = [], []
    for rate in (8_000, 16_000, 44_100):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (50, 70, 3), np.uint8)).save(file, "PNG")
        pictures.append(file.getvalue())
        file = io.BytesIO()
        soundfile.write(file, rng.normal(0, 0.1, rate), rate, format="WAV")
        clips.append(file.getvalue())
    return {"image": pictures, "audio": clips}
