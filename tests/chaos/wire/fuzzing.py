"""Connections of mutated and random bytes, both directions interleaved, fed to a protocol that must let all through."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Literal, TypeAlias

from chaos.wire.steps import Answer, Effect, Pass, Raw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chaos.wire.steps import Step, WireProtocol

Side: TypeAlias = Literal[">", "<"]
SIDES: tuple[Side, Side] = (">", "<")
AFTER_RAW = 5_000
"""Bytes that are fed to a connection that has turned raw; there is nothing more to find in it."""


def fuzz(
    make: Callable[[], WireProtocol],
    conversation: Callable[[random.Random], tuple[bytes, bytes]],
    understood: int,
) -> tuple[int, int, int]:
    """Feed connections until that many bytes were fed to some that were not raw.

    Returns how many were, how many bytes there were in all, and how many steps said something.

    Raises:
        AssertionError: a byte did not come out where and as it went in; the message says the seed.
    """
    counted = total = said = seed = 0
    while counted < understood:
        dice = random.Random(seed)
        streams = dict(zip(SIDES, conversation(dice), strict=True))
        try:
            before, fed, steps = _feed(make(), streams, dice)
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
        counted, total, said, seed = counted + before, total + fed, said + steps, seed + 1
    return counted, total, said


def mutated(data: bytes, dice: random.Random) -> bytes:
    """The data with some bytes changed, put in and left out; what says how long something is stays mostly right."""
    changed = bytearray(data)
    for _ in range(dice.choice((0, 1, 2, 20)) if data else 0):
        at = dice.randrange(len(changed))
        changed[at] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))
        if dice.random() < 0.1:
            changed[at : at + dice.randrange(9)] = dice.randbytes(dice.randrange(9))
        if not changed:
            break
    return bytes(changed)


def _feed(protocol: WireProtocol, streams: dict[Side, bytes], dice: random.Random) -> tuple[int, int, int]:
    """Bytes fed before it was raw, bytes fed, steps that say something."""
    longest = dice.choice((9, 100, 500, 500, 2000, 1 << 16))
    if longest == 9:  # one step a byte: short, so that the others have their turn
        streams = {side: data[:4000] for side, data in streams.items()}
    at: dict[Side, int] = dict.fromkeys(SIDES, 0)
    out: dict[Side, list[bytes]] = {side: [] for side in SIDES}
    open_: dict[Side, Iterator[Step]] = {}
    before = said = 0
    raw = False
    while True:
        left: list[Side] = [side for side in SIDES if at[side] < len(streams[side]) or side in open_]
        if not left or (raw and sum(at.values()) > before + AFTER_RAW):
            break
        side = dice.choice(left)
        if side not in open_:
            piece = streams[side][at[side] : at[side] + dice.randint(1, longest)]
            at[side] += len(piece)
            before += 0 if raw else len(piece)
            open_[side] = (protocol.requests if side == ">" else protocol.replies)(piece)
        for step in open_[side]:
            if isinstance(step, Pass | Effect | Answer):
                out[side].append(step.data)
            raw = raw or isinstance(step, Raw)
            said += not isinstance(step, Pass)
            if dice.random() < 0.3:
                break  # the other side may have a step in between
        else:
            del open_[side]
    for end, steps in open_.items():
        out[end] += [step.data for step in steps if isinstance(step, Pass | Effect | Answer)]
    for end in SIDES:
        last = (protocol.requests if end == ">" else protocol.replies)(b"")
        out[end] += [step.data for step in last if isinstance(step, Pass | Effect | Answer)]
        assert b"".join(out[end]) == streams[end][: at[end]]
    assert protocol.outstanding >= 0
    return before, sum(at.values()), said
