import os
import socket
import subprocess
import sys

from kit.workers import has_ended, identify_process


def test_a_process_that_runs_has_not_ended_and_one_of_another_machine_cannot_be_told() -> None:
    boot = identify_process()
    assert not has_ended(boot, host=socket.gethostname())
    assert not has_ended("1:0.0", host="another-machine")


def test_a_later_process_of_the_same_number_is_told_from_the_earlier_one() -> None:
    assert has_ended(f"{os.getpid()}:1.0", host=socket.gethostname())


def test_a_process_that_is_gone_has_ended_and_what_names_none_has_not() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert has_ended(f"{gone.pid}:1.0", host=socket.gethostname())
    assert not has_ended("nonsense", host=socket.gethostname())
