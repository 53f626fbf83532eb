"""Mutated conversations with a Postgres server, and noise, through the protocol."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest

from tests.chaos.wire import fuzzing
from tests.chaos.wire.pg_client import query
from tests.chaos.wire.pg_play import HELLO, PARTS, Play, pieces
from tests.chaos.wire.pg_server import Server

if TYPE_CHECKING:
    from chaos.wire.steps import Effect

SIZES = (0, 10, 300, 3000)


@pytest.mark.slow
def test_fuzz() -> None:
    """Ten million bytes of mutated conversations and of noise, from both sides, are each in one step, in order."""
    began, counted, effects, turned, seed = time.monotonic(), 0, 0, 0, 0
    while counted < 10_000_000:
        played = conversation(random.Random(seed), seed)
        counted, effects, turned = counted + played.before_raw, effects + len(played.effects), turned + bool(played.raw)
        seed += 1
    took = time.monotonic() - began
    print(f"{counted / 1e6:.1f} MB before raw, {seed} connections, {turned} raw, {effects} effects, {took:.1f} s")  # noqa: T201
    assert effects > 3_000
    assert turned > seed / 10


def conversation(dice: random.Random, seed: int) -> Play:
    """One connection."""
    spoils, garbles = dice.random() < 0.5, dice.random() < 0.4

    def mutate(said: bytes) -> bytes:
        return fuzzing.mutated(said, dice) if garbles and dice.random() < 0.2 else said

    server = Server(b"x" * dice.choice(SIZES))
    server.question_fails = b"57014" if dice.random() < 0.1 else b""
    played = Play(
        server,
        cut=lambda said: pieces(said, dice) if dice.random() < 0.2 and len(said) < 5000 else [said],
        mutate=mutate,
        met=lambda effect: "40001" if refusable(played, effect) and dice.random() < 0.1 else "",
    )
    try:
        if dice.random() < 0.05:
            played.client_sends(dice.randbytes(2000))
        played.client_sends(HELLO)
        for _ in range(dice.randint(1, 60)):
            sent = dice.choice(PARTS)
            sent += query("SELECT '" + "x" * dice.choice(SIZES) + "'") if dice.random() < 0.5 else b""
            sent = fuzzing.mutated(sent, dice) if spoils and dice.random() < 0.1 else sent
            for piece in pieces(sent, dice) if dice.random() < 0.3 and len(sent) < 3000 else [sent]:
                played.client_sends(piece)
            if played.raw and played.before_raw > fuzzing.AFTER_RAW:
                break
        played.end()
    except Exception as error:
        error.add_note(f"seed {seed}")
        raise
    assert played.protocol.outstanding >= 0
    return played


def refusable(played: Play, effect: Effect) -> bool:
    """Whether it can be refused."""
    try:
        played.protocol.refuse(effect, "40001")
    except ValueError:
        return False
    return True
