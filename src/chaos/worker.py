"""A worker: one role of a system under test, as its user describes it. What it is told says `chaos.lane`."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from chaos.errors import ChaosError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


@dataclass(frozen=True)
class Worker:
    """One role of a system.

    `run` is a function without arguments that can be imported by name (it is run in a fork of a warm parent), or a
    command line. With an `image` that is run in a container of the Docker engine, an empty one being the image's own
    command; the container shares the network of this machine, and has nothing else of it: no files, and of the
    environment only what it is told.

    `http` says that it serves HTTP on 127.0.0.1 at the port it is given. What a fault on the wire kills is its process
    group, or its container; with `kill` ``"process"`` only the one process that owns the connection, as when one of
    several forked servers dies and its parent, which lives on, starts another. One that ends by itself makes a verdict
    unknown, unless it is `managed`: then it is started again, as by a service manager, and a drill in which that
    happens notes it.

    Raises:
        ChaosError: it cannot be run so.
    """

    name: str
    run: Callable[[], object] | str | Sequence[str]
    replicas: int = 1
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    http: bool = False
    kill: Literal["group", "process"] = "group"
    managed: bool = False
    image: str = ""

    def __post_init__(self) -> None:
        if not (callable(self.run) or self.argv or self.image):
            raise ChaosError(f"worker {self.name!r} has nothing to run: give a function, or a command line")
        if self.image and (callable(self.run) or self.kill == "process"):
            what = "a function" if callable(self.run) else 'kill="process"'
            raise ChaosError(
                f"worker {self.name!r}: {what} is for workers without an image; with one, give a command line, and all "
                "of its container is killed"
            )

    @property
    def call(self) -> str | None:
        """``module:function`` for a function, None for a command line."""
        if not callable(self.run):
            return None
        module, name = getattr(self.run, "__module__", None), getattr(self.run, "__qualname__", "<")
        if module in (None, "__main__") or "<" in name:
            msg = f"worker {self.name!r}: {self.run!r} cannot be imported by name; give a function of a module"
            raise ChaosError(msg)
        return f"{module}:{name}"

    @property
    def argv(self) -> list[str]:
        """The words of the command line; ``python`` is this interpreter, but in an image."""
        words = shlex.split(self.run) if isinstance(self.run, str) else [str(word) for word in self.run]  # type: ignore[union-attr]
        return [sys.executable, *words[1:]] if words[:1] == ["python"] and not self.image else words
