"""Toxics: what a bad network does to a link, as plain data with a text form.

They are Toxiproxy's, with the units in the names::

    Latency(latency_ms=200, jitter_ms=50)     each piece comes so much later
    Bandwidth(rate_kb_s=10)                   no more than that a second
    SlowClose(delay_ms=500)                   the end of a connection comes so much later
    Timeout(after_ms=0)                       nothing comes; the connection ends then, with 0 never
    ResetPeer(after_ms=0)                     a reset so long after the first piece
    Slicer(average_bytes=64, delay_us=1000)   small pieces, one after the other
    LimitData(most_bytes=1000)                the connection ends when so much has come
    Down()                                    every connection ends, and nobody listens

Each but the last is about one direction: the worker's ``requests``, its service's ``replies``, or ``both``. In a
schedule (`chaos.schedule`) a link goes bad for a number of seconds, or until nothing else is left to do::

    payment-kafka:down=1@payment/http.post#1
    payment-postgres:latency=2,requests,latency_ms:200,jitter_ms:50@payment/http.post#1
    payment-gateway:timeout@payment/http.post#1

What is left out has the value that it has here; replies are meant where no direction is given.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias, get_args

from chaos.errors import ChaosError, UnknownName

Stream: TypeAlias = Literal["requests", "replies", "both"]

_STREAMS: dict[str, tuple[str, ...]] = {
    "requests": ("upstream",),
    "replies": ("downstream",),
    "both": ("upstream", "downstream"),
}
_MOST = 2**31 - 1
_MOST_S = 600.0
SECONDS = re.compile(r"\d+(?:\.\d+)?")
_NUMBER = re.compile(r"(?P<name>\w+):(?P<number>\d{1,10})")


def _number(default: int, told: str, *, least: int = 0) -> Any:
    """A field of a toxic: what Toxiproxy calls it, and what is the least that makes sense."""
    return field(default=default, metadata={"told": told, "least": least})


@dataclass(frozen=True)
class Toxic:
    """The shape of all toxics; see the module's docstring.

    `loses` says that what meets it does not come out on the other side, as a rule.

    Raises:
        ChaosError: a number is none that makes sense, or the direction is none.
    """

    kind: ClassVar[str]
    loses: ClassVar[bool] = False

    stream: Stream = field(default="replies", kw_only=True)

    def __post_init__(self) -> None:
        if self.stream not in get_args(Stream):
            self._refuse(f"{self.stream!r} is no direction: expected {', '.join(get_args(Stream))}")
        for one in self._numbers():
            value, least = getattr(self, one.name), one.metadata["least"]
            if type(value) is not int or not least <= value <= _MOST:
                self._refuse(f"{one.name} is {value!r}: expected a whole number from {least} to {_MOST}")

    @property
    def told(self) -> list[dict[str, Any]]:
        """What Toxiproxy is told, a toxic for each direction."""
        attributes = {one.metadata["told"]: getattr(self, one.name) for one in self._numbers()}
        return [
            {"name": f"{self.kind}-{stream}", "type": self.kind, "stream": stream, "attributes": attributes}
            for stream in _STREAMS[self.stream]
        ]

    @property
    def words(self) -> list[str]:
        """What of it is written down, which is all that is not as it is by itself."""
        given = [
            (one.name, getattr(self, one.name)) for one in self._numbers() if getattr(self, one.name) != one.default
        ]
        return [*([self.stream] if self.stream != "replies" else []), *(f"{name}:{value}" for name, value in given)]

    @classmethod
    def _numbers(cls) -> list[dataclasses.Field[int]]:
        return [one for one in dataclasses.fields(cls) if one.name != "stream"]

    def _refuse(self, why: str) -> None:
        raise ChaosError(f"{self.kind}: {why}")


@dataclass(frozen=True)
class Latency(Toxic):
    """Each piece comes later, by `latency_ms`, more or less by up to `jitter_ms`."""

    kind: ClassVar[str] = "latency"
    latency_ms: int = _number(100, "latency")
    jitter_ms: int = _number(0, "jitter")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.jitter_ms > self.latency_ms:
            self._refuse(f"jitter_ms is {self.jitter_ms}: expected no more than latency_ms, {self.latency_ms}")


@dataclass(frozen=True)
class Bandwidth(Toxic):
    """No more than so many kilobytes a second. With none at all Toxiproxy spins; that is `Timeout`."""

    kind: ClassVar[str] = "bandwidth"
    rate_kb_s: int = _number(10, "rate", least=1)


@dataclass(frozen=True)
class SlowClose(Toxic):
    """The end of a connection comes later."""

    kind: ClassVar[str] = "slow_close"
    delay_ms: int = _number(500, "delay")


@dataclass(frozen=True)
class Timeout(Toxic):
    """Nothing comes, and the connection ends after `after_ms`; with 0 it stays open in silence."""

    kind: ClassVar[str] = "timeout"
    loses: ClassVar[bool] = True
    after_ms: int = _number(0, "timeout")


@dataclass(frozen=True)
class ResetPeer(Toxic):
    """The first piece ends the connection, `after_ms` later: by a reset, if it was made after the toxic was."""

    kind: ClassVar[str] = "reset_peer"
    loses: ClassVar[bool] = True
    after_ms: int = _number(0, "timeout")


@dataclass(frozen=True)
class Slicer(Toxic):
    """Pieces of about `average_bytes`, `delay_us` between them."""

    kind: ClassVar[str] = "slicer"
    average_bytes: int = _number(64, "average_size", least=1)
    variation_bytes: int = _number(0, "size_variation")
    delay_us: int = _number(1000, "delay")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variation_bytes >= self.average_bytes:
            self._refuse(f"variation_bytes is {self.variation_bytes}: expected less than average_bytes")


@dataclass(frozen=True)
class LimitData(Toxic):
    """The connection ends when so many bytes have come."""

    kind: ClassVar[str] = "limit_data"
    loses: ClassVar[bool] = True
    most_bytes: int = _number(1000, "bytes")


@dataclass(frozen=True)
class Down(Toxic):
    """Every connection ends, and nobody listens. It has no direction."""

    kind: ClassVar[str] = "down"
    loses: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stream != "replies":
            self._refuse("it ends connections, which have no direction: leave it out")

    @property
    def told(self) -> list[dict[str, Any]]:
        """No toxic, as the proxy is switched off."""
        return []


TOXICS: dict[str, type[Toxic]] = {
    one.kind: one for one in (Latency, Bandwidth, SlowClose, Timeout, ResetPeer, Slicer, LimitData, Down)
}


@dataclass(frozen=True)
class Bad:
    """A link is bad in this way for so many `seconds`; with 0 until nothing else is left to do."""

    toxic: Toxic
    seconds: float = 0.0

    @classmethod
    def parse(cls, kind: str, value: str) -> Bad:
        """What ``kind=value`` says in a schedule.

        Raises:
            UnknownName: there is no such toxic, or it has no such number.
            ChaosError: the value means nothing to it.
        """
        if kind not in TOXICS:
            raise UnknownName("toxic", kind, TOXICS)
        toxic, seconds, given = TOXICS[kind], list[float](), dict[str, Any]()
        names = [one.name for one in toxic._numbers()]  # noqa: SLF001 - the class is of this module
        for word in value.split(",") if value else ():
            if SECONDS.fullmatch(word) and not seconds and 0 < float(word) <= _MOST_S:
                seconds.append(float(word))
            elif word in get_args(Stream) and "stream" not in given:
                given["stream"] = word
            elif (match := _NUMBER.fullmatch(word)) and match["name"] not in given:
                if match["name"] not in names:
                    raise UnknownName(f"number of {kind}", match["name"], names)
                given[match["name"]] = int(match["number"])
            else:
                expected = f"{kind}=SECONDS (up to {_MOST_S:g}){''.join(f',{name}:NUMBER' for name in names)}"
                raise ChaosError(f"{kind}={value}: {word!r} has no meaning here; expected {expected}, each once")
        return cls(toxic(**given), *seconds)

    @property
    def value(self) -> str:
        """What stands behind ``kind=``, which may be nothing."""
        return ",".join([*([f"{self.seconds:g}"] if self.seconds else []), *self.toxic.words])

    def __str__(self) -> str:
        return f"{self.toxic.kind}{f'={self.value}' if self.value else ''}"
