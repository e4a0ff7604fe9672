"""The waiting client: it goes on with its settings, and ends with its parent."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from pipelines.submit_jobs import await_file

WAIT = "from pathlib import Path; from pipelines.submit_jobs import await_file; "


def test_it_goes_on_once_the_file_is_there(tmp_path):
    path = tmp_path / "settings.json"
    later = threading.Timer(0.2, path.touch)
    later.start()
    await_file(path)
    assert path.is_file()


def test_it_ends_when_the_one_that_started_it_does(tmp_path):
    waiting = (
        f"{WAIT} print('up', flush=True); await_file(Path({str(tmp_path / 'x')!r}))"
    )
    starter = (
        "import subprocess, sys, time; "
        f"child = subprocess.Popen([sys.executable, '-c', {waiting!r}]); "
        "print(child.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", starter], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    lines = sorted([parent.stdout.readline(), parent.stdout.readline()])
    pid = int(lines[0])
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and _runs(pid):
        time.sleep(0.05)
    assert not _runs(pid)


def _runs(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # an orphan nobody waits for stays as a zombie in a container
    stat = Path(f"/proc/{pid}/stat").read_text()
    return stat.rsplit(")", 1)[1].split()[0] != "Z"
