"""What a history says of one key, in words: tried on histories written by hand."""

from __future__ import annotations

from chaos.report.story import moments, story
from tests.chaos.report.histories import Play, double_charge


def told(play: Play, alias: str = "key-1") -> list[str]:
    """The key's story without the times."""
    return [step.text for step in story(moments(play.events), alias)]


def test_a_double_charge() -> None:
    """A story has the effects of a key in order with the seconds since the beginning, the fault, and who came then."""
    outcome = double_charge()

    assert [str(step) for step in story(moments(outcome.history), "key-1")] == [
        "0.002 accepted: the system answers for it from here on",
        "0.003 api: postgres.commit done",
        "0.005 payment: http.post done → crash-after",
        "0.028 payment~1 was started in its place",
        "0.029 payment~1: http.post done again",
        "0.031 payment~1: postgres.commit done",
    ]


def test_an_effect_that_was_overtaken_is_told_twice() -> None:
    """What lies between an effect and its reply stands between them."""
    play = Play()
    play.key("key-1")
    held = play.ask("payment.0", "postgres.commit", "key-1")
    play.effect("payment.1", "postgres.commit", "key-1")
    play.broke("payment~0/postgres.commit[key-1]#1:hold=1", "payment.0~0", "delivered after another of its kind")
    play.reply(held, "refused")

    assert told(play)[1:] == [
        "payment.0: postgres.commit asked → hold=1",
        "payment.1: postgres.commit done again",
        "payment.0: postgres.commit refused (asked at 0.003)",
    ]


def test_outcomes_are_words() -> None:
    """What is not known is not told as if it were."""
    play = Play()
    for outcome in ("lost", "refused", "unclear", "sent"):
        play.effect("w.0", f"http.{outcome}", "key-1", outcome=outcome)
    play.ask("w.0", "http.post", "key-1")

    assert told(play) == [
        "w: http.lost lost",
        "w: http.refused refused",
        "w: http.unclear with an unclear outcome",
        "w: http.sent sent (nobody replies)",
        "w: http.post without a reply that was seen",
    ]


def test_what_is_about_others() -> None:
    """Effects about other keys, or none, are in no story of this one; faults and restarts in between are."""
    play = Play()
    play.effect("w.0", "http.post", "key-1")
    play.effect("w.0", "http.post", "key-2")
    play.effect("w.0", "postgres.write")
    play.broke("w~0/http.post[key-2]#1:crash-after", "w~0")
    play.start("w~1")
    play.spared("w~1/http.post#1:repeat", "another one was faster")
    play.effect("w.0", "http.post", "key-1", "key-2")
    play.broke("v~0/http.post[key-3]#1:crash-after", "v~0")

    assert told(play) == [
        "w: http.post done",
        "w: crash-after at http.post[key-2]#1",
        "w~1 was started in its place",
        "repeat at http.post#1 was not carried out: another one was faster",
        "w~1: http.post done again",
    ]


def test_where_it_ends() -> None:
    """The end of a process that had to do with the key is told, though nothing of the key came behind it."""
    play = Play()
    play.effect("w.0", "kafka.offset_commit", "key-1")
    play.broke("w~0/w.taken#1:crash-before", "w~0")
    play.start("w~1")

    assert told(play)[1:] == ["w: crash-before at w.taken#1", "w~1 was started in its place"]


def test_a_key_that_nothing_was_about() -> None:
    """A key that was not seen has no story."""
    assert told(Play(), "key-9") == []


def test_processes() -> None:
    """A process is named by worker, replica and its own restarts; points count the kills of the whole role."""
    play = Play()
    play.effect("w.1", "http.post", "key-1")
    play.broke("w~0/http.post[key-1]#1:crash-after", "w.1~0")
    play.start("w.1~1")
    play.effect("w.0", "http.post", "key-1")  # in points, it is w~1 from here on
    play.effect("w.1", "http.post", "key-1")

    effects = [one for one in moments(play.events) if one.kind == "effect"]
    assert [one.lane for one in effects] == ["w.1~0", "w.0~0", "w.1~1"]
    assert [one.points[0] for one in effects] == ["w~0/http.post#1", "w~1/http.post#1", "w~1/http.post#2"]


def test_what_does_not_end_a_process() -> None:
    """Who is frozen and thawed is the same one; its lane goes on."""
    play = Play()
    play.effect("w.0", "http.post", "key-1")
    play.broke("w~0/http.post[key-1]#1:freeze=held,1.0", "w~0", "thawed after 1.0 s")
    play.effect("w.0", "http.post", "key-1")

    assert {one.lane for one in moments(play.events) if one.lane} == {"w~0"}


def test_no_history() -> None:
    """Of nothing, nothing is told."""
    assert moments([]) == []
