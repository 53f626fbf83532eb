"""What is in a batch, whatever it is compressed with; and that nothing in it takes more memory than it may."""

from __future__ import annotations

import struct
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import cramjam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.wire import kafka_records
from chaos.wire.kafka import Kafka
from chaos.wire.steps import Effect
from tests.chaos.wire.kafka_frames import batch, request

if TYPE_CHECKING:
    from collections.abc import Callable

PLAIN = batch((b"order-1", b"paid", {b"trace": b"t-1"}), (None, b"", {}))
RECORDS = PLAIN[61:]


def xerial(data: bytes) -> bytes:
    """Snappy as the Java client frames it, in blocks of five bytes."""
    blocks = [bytes(cramjam.snappy.compress_raw(data[at : at + 5])) for at in range(0, len(data), 5)]
    framed = b"".join(struct.pack(">I", len(block)) + block for block in blocks)
    return b"\x82SNAPPY\0" + struct.pack(">II", 1, 1) + framed


CODECS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "gzip": (1, lambda data: bytes(cramjam.gzip.compress(data))),
    "snappy": (2, lambda data: bytes(cramjam.snappy.compress_raw(data))),
    "xerial": (2, xerial),
    "lz4": (3, lambda data: bytes(cramjam.lz4.compress(data))),
    "zstd": (4, lambda data: bytes(cramjam.zstd.compress(data))),
}


def packed(codec: int, data: bytes) -> bytes:
    """A batch of what was packed already."""
    head = bytearray(PLAIN[:61])
    head[8:12], head[21:23] = (len(data) + 49).to_bytes(4, "big"), codec.to_bytes(2, "big")
    return bytes(head) + data


@pytest.mark.parametrize("name", CODECS)
def test_codecs(name: str) -> None:
    """A batch is one piece, its records unpacked, in each compression; several batches are several pieces."""
    number, pack = CODECS[name]
    one = packed(number, pack(RECORDS))
    assert list(kafka_records.contents([PLAIN + one, b"", one])) == [(RECORDS, "")] * 3


@pytest.mark.parametrize("name", CODECS)
def test_limit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What unpacks to more than the limit stays packed, also if it is several batches of one request that do."""
    monkeypatch.setattr(kafka_records, "LIMIT", 1000)
    number, pack = CODECS[name]
    most, more, some = (packed(number, pack(bytes(size))) for size in (1000, 1001, 600))
    unread = f"{name} record batch".replace("xerial", "snappy")
    assert list(kafka_records.contents([most, packed(0, bytes(2000))])) == [(bytes(1000), ""), (bytes(2000), "")]
    assert list(kafka_records.contents([more, most])) == [(more, unread), (bytes(1000), "")]
    assert list(kafka_records.contents([some, some])) == [(bytes(600), ""), (some, unread)]


def test_not_understood() -> None:
    """Batches that cannot be read are pieces as they are, and are counted by what they are."""
    odd = [packed(5, b"?"), packed(4, b"?"), packed(2, b"\x82SNAPPY\0" + bytes(12)), b"?", bytes(70)]
    protocol = Kafka()
    partitions = [{"records": one} for one in odd]
    values: dict[str, Any] = {"acks": -1, "topic_data": [{"name": "t", "partition_data": partitions}]}
    effect = next(protocol.requests(request(0, 10, **values)))
    assert isinstance(effect, Effect)
    assert effect.contents == tuple(odd)
    named = {f"{codec} record batch": 1 for codec in ("codec 5", "zstd", "snappy")}
    assert protocol.not_understood == named | {"record batch": 2}


BOMBS = """
import resource, sys, cramjam
from chaos.wire import kafka_records
bomb = b"".join([bytes(getattr(cramjam, sys.argv[1]).compress(bytes(50 << 20)))] * 8)  # one frame after the other
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
sys.path.insert(0, sys.argv[3])
from tests.chaos.wire.test_kafka_records import packed
pieces = list(kafka_records.contents([packed(int(sys.argv[2]), bomb)] * 20))
assert all(unread for _, unread in pieces), pieces
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "codec"), [("gzip", 1), ("lz4", 3), ("zstd", 4)])
def test_bomb(name: str, codec: int, pytestconfig: pytest.Config) -> None:
    """Twenty batches that would be 400 MB each take no more memory than one that is at the limit."""
    command = [sys.executable, "-c", BOMBS, name, str(codec), str(pytestconfig.rootpath)]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    assert int(run.stdout) < (kafka_records.LIMIT >> 20) + 30


@given(st.binary(max_size=300), st.sampled_from((1, 2, 3, 4)))
def test_any_batch(data: bytes, codec: int) -> None:
    """A batch of any bytes in any compression is read or is a piece as it is."""
    one = packed(codec, data)
    assert all(piece == one or not unread for piece, unread in kafka_records.contents([one]))


@given(st.sampled_from(sorted(CODECS)), st.binary(max_size=300), st.data())
def test_any_damage(name: str, records: bytes, data: st.DataObject) -> None:
    """So is a batch of which some bytes were changed or lost."""
    number, pack = CODECS[name]
    damaged = bytearray(pack(records))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    one = packed(number, bytes(damaged[: data.draw(st.integers(0, len(damaged)))]))
    assert all(piece == one or not unread for piece, unread in kafka_records.contents([one]))
