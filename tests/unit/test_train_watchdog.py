"""A loop that gives no sign of life is ended; one that does isn't."""

import subprocess
import sys
from threading import Event
from time import sleep

from orchestrator.train.watchdog import EXIT_CODE, Watchdog

HANGS = """
from time import sleep
from orchestrator.train.watchdog import Watchdog
def waits_for_a_rank_that_never_comes():
    sleep(60)
Watchdog(0.2)
waits_for_a_rank_that_never_comes()
"""


def test_a_hung_process_says_where_it_hangs_and_ends():
    done = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == EXIT_CODE
    assert "waits_for_a_rank_that_never_comes" in done.stderr


def test_a_loop_that_ticks_is_left_alone():
    hung = Event()
    watchdog = Watchdog(1.0, on_hang=hung.set)
    for _ in range(20):
        watchdog.tick()
        sleep(0.1)
    watchdog.close()
    assert not hung.is_set()
