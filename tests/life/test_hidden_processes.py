"""Of an ordinary user on a host whose /proc hides other people's processes (hidepid=2): commands see what is his."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import sampan

LAUNCHER = Path(__file__).parent.parent.parent / "bin" / "sampan"
HIDDEN = 'mount -t proc -o hidepid=2 proc /proc && exec setpriv --reuid=54322 --regid=54322 --clear-groups "$@"'
SCRIPT = """
run() { "$LAUNCHER" --root "$HOME/store" "$@" 2>&1 | grep -v 'only your own id is mapped'; }
ls -d /proc/1 2>/dev/null
run load -q -i "$HOME/base.tar"
words="--health-timeout 0.2s --health-interval 0.1s --health-retries 2"
run run -d --name ill $words --health-cmd "$CHECK" base sleep 300 >/dev/null
run run -d --name init --init --rm base sleep 301 >/dev/null
until run inspect -f '{{.State.Health.FailingStreak}}' ill | grep -q '[4-9]'; do sleep 0.1; done
run ps --format '{{.Names}} {{.Status}}' | sed 's/ Up .*(/ (/; s/ Up .*/ up/'
run exec ill sh -c 'cat /proc/[0-9]*/stat' | sed 's/^/stat /'
run top init -eo args | grep -c 'sleep 301'
run stats --no-stream --format '{{.Name}} {{.PIDs}}' init
run exec -d init sleep 302
run top init -eo args | grep -c 'sleep 302'
run restart -t 0 ill
run stop -t 0 ill
run rm -f init ill
run ps -aq
"""


@pytest.mark.skipif(os.getuid() != 0, reason="needs root: mounts /proc and becomes a user")
def test_hidden_processes_are_found_and_reaped(engine: sampan.Engine) -> None:
    if not shutil.which("unshare"):
        pytest.skip("needs unshare")
    with tempfile.TemporaryDirectory(prefix="sampan-life-") as home:
        subprocess.run(engine.command(["save", "-o", f"{home}/base.tar", "base"]), check=True)
        for path in (home, f"{home}/base.tar"):
            os.chown(path, 54322, 54322)
        path = os.path.dirname(sys.executable) + ":" + os.environ["PATH"]
        check = "for i in 1 2 3 4 5 6 7 8 9; do (sleep 303 & sleep 303 & sleep 303) & done; sleep 303; :"
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", HIDDEN, "sh", "sh", "-c", SCRIPT],
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
            env={"PATH": path, "HOME": home, "LAUNCHER": str(LAUNCHER), "CHECK": check},
        )
    lines = done.stdout.splitlines()
    said = [line for line in lines[1:] if not line.startswith("stat ")]
    wanted = ["init up", "ill (unhealthy)", "1", "init 2", "1", "ill", "ill", "init", "ill"]
    assert said == wanted, done.stdout + done.stderr
    states = [re.sub(r".*\)", "", line).split()[:2] for line in lines if line.startswith("stat ")]
    assert ["Z", "1"] not in states and states
