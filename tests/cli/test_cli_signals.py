"""A signal in the middle of a file: the command ends with a word on how to go on, and leaves no half of it."""

import signal
import subprocess
import sys
import time

import pytest

# A shell that starts the tests in the background makes them ignore SIGINT; a user's terminal does not.
SCRIPT = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)
import equigen.cli.commands, equigen.files
def slow(handle):
    print("writing", flush=True)
    time.sleep(60)
equigen.files.os.fsync = slow
equigen.cli.commands.open_cohort = lambda path, *rest, **more: equigen.files.write_text(path, "half of something")
equigen.cli.commands.main()
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_in_the_middle_of_a_file_leaves_no_half_of_it(tmp_path, number, status):
    command = [sys.executable, "-c", SCRIPT, "cohort", "check", tmp_path / "p" / "file.txt"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        assert list((tmp_path / "p").glob(".*.part*"))
        time.sleep(0.2)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == status, errors
    assert "run the same command again to go on" in errors and "Traceback" not in errors
    assert not [path for path in (tmp_path / "p").rglob("*") if path.is_file()]
