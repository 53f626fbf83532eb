"""Faults and schedules: plain data, with a one-line text form both ways. That text is what replays a drill.

A fault names its point, ``worker~incarnation/site#n``, and what is done there::

    payment/http.post#2:crash-before                the second POST of the payment worker
    payment~1/postgres.commit#1:lose-reply=silent   the first commit of its restarted self
    payment/kafka.offset_commit[key-1]:crash-after  the first commit that carries what the workload calls key-1
    payment/payment.charged:crash-before            a checkpoint named in the worker's code
    payment-kafka:down=1@payment/http.post#1        payment's link to Kafka is down for 1 s from that POST on
    kafka:kill=1@payment/http.post#1                Kafka itself is killed there, and back after 1 s

A site is a kind of effect on the wire (`chaos.wire`) or a checkpoint, where ``crash-before`` is all that can be done.
Left out, the incarnation is 0 and n is 1. Arrivals are counted per role, over its replicas, from the moment the
schedule was armed, and anew with each process of the role that is killed: ``payment~1`` is whoever does the payments
after the first kill, the killed one's successor or another replica. With a key, those that are about it are counted.
What actions there are, and what may be written behind ``=``: `chaos.faults`, for links `chaos.toxics`, for servers
`chaos.outages`. A link is written ``worker-service``: ``postgres``, ``kafka``, the name of a trusted worker, or
``http`` for all HTTP services; ``service`` is that of all workers. A schedule is a list of faults separated by
``"; "``; an empty one breaks nothing.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import NamedTuple

from chaos import faults
from chaos.errors import ChaosError, UnknownName
from chaos.outages import OUTAGES, befalls

CRASH_BEFORE = "crash-before"

PROTOCOLS = {"http", "kafka", "postgres"}
"""What the wire speaks; a link is to one of these, or to a trusted worker."""

SITES = (
    *(f"http.{method}" for method in ("delete", "patch", "post", "put")),
    "kafka.abort_transaction",
    "kafka.commit_transaction",
    "kafka.create_topics",
    "kafka.delete_groups",
    "kafka.delete_topics",
    "kafka.init_producer_id",
    "kafka.leave_group",
    "kafka.offset_commit",
    "kafka.produce",
    "kafka.share_acknowledge",
    "kafka.txn_offset_commit",
    "postgres.call",
    "postgres.commit",
    "postgres.commit_prepared",
    "postgres.confirm",
    "postgres.prepare_transaction",
    "postgres.rollback_prepared",
    "postgres.write",
)
"""The kinds of effects on the wire; HTTP may have other methods."""

_POINT = r"(?P<worker>[\w.-]+?)(~(?P<incarnation>\d+))?/(?P<site>[\w.-]+)(\[(?P<key>[^\[\];]+)\])?(#(?P<nth>[1-9]\d*))?"
_FAULT = re.compile(_POINT + r":(?P<action>[\w-]+)(=(?P<value>[\w.,-]+))?")
# No text is both: what stands first is followed here by a colon, there by what begins an incarnation or a site.
_BAD_LINK = re.compile(r"(?P<link>[\w.-]+):(?P<action>[\w-]+)(=(?P<value>[\w.,:-]+))?@" + _POINT)


@dataclass(frozen=True)
class Fault:
    """What is done at one point, once; with a `link`, what happens to that link, or server, from there on."""

    worker: str
    site: str
    action: str = CRASH_BEFORE
    nth: int = 1
    incarnation: int = 0
    key: str = ""
    value: str = ""
    link: str = ""

    @classmethod
    def parse(cls, text: str) -> Fault:
        """The fault that `text` names.

        Raises:
            ChaosError: it has not the form of a fault, or its action can do nothing with the value behind it.
            UnknownName: nothing is called like its action.
        """
        match = _FAULT.fullmatch(text.strip()) or _BAD_LINK.fullmatch(text.strip())
        if match is None:
            msg = (
                f"{text!r} is no fault: expected worker[~incarnation]/site[[key]][#n]:action[=value], or for a link "
                "worker-service:toxic[=seconds]@worker[~incarnation]/site[[key]][#n], or with a server in its place"
            )
            raise ChaosError(msg)
        link, action, value = match.groupdict().get("link") or "", match["action"], match["value"] or ""
        if link:
            befalls(action, value)
        else:
            faults.kind(action).check(value)
        nth, incarnation = int(match["nth"] or 1), int(match["incarnation"] or 0)
        return cls(match["worker"], match["site"], action, nth, incarnation, match["key"] or "", value, link)

    def require_known_site(self) -> None:
        """Raise `UnknownName` if the site is a kind of effect misspelt; what is like none may be a checkpoint."""
        if self.site not in SITES and difflib.get_close_matches(self.site, SITES, n=1, cutoff=0.8):
            raise UnknownName("site", self.site, SITES)

    @property
    def point(self) -> str:
        """The point's name, ``worker~incarnation/site[key]#n``."""
        key = f"[{self.key}]" if self.key else ""
        return f"{self.worker}~{self.incarnation}/{self.site}{key}#{self.nth}"

    @property
    def is_outage(self) -> bool:
        """Whether it befalls a whole server."""
        return bool(self.link) and self.action in OUTAGES

    @property
    def act(self) -> str:
        """What is done, without where, such as ``crash-after`` or ``payment-kafka:down=1``."""
        return f"{f'{self.link}:' if self.link else ''}{self.action}{f'={self.value}' if self.value else ''}"

    def __str__(self) -> str:
        return f"{self.act}@{self.point}" if self.link else f"{self.point}:{self.act}"


class Name(NamedTuple):
    """A point's name taken apart; `alias` is empty where it is by count alone."""

    worker: str
    site: str
    alias: str


def split(point: str) -> Name:
    """Take a point's name apart."""
    worker, _, rest = point.partition("/")
    site, _, alias = rest.rpartition("#")[0].partition("[")
    return Name(worker.partition("~")[0], site, alias.removesuffix("]"))


def done_at(point: str, what: str) -> str:
    """A fault's text: ``crash-after``, ``kafka:kill`` or ``{worker}-postgres:down=1`` at a point of that worker."""
    link, colon, harm = what.partition(":")
    return f"{link.replace('{worker}', split(point).worker)}:{harm}@{point}" if colon else f"{point}:{what}"


def apart(fault: str) -> tuple[str, str]:
    """The point in a fault's text, and what is done there; the action need not be known here."""
    first, _, last = fault.partition("@") if _BAD_LINK.fullmatch(fault) else fault.rpartition(":")[::-1]
    return last, first


@dataclass(frozen=True)
class Schedule:
    """An ordered list of faults."""

    faults: tuple[Fault, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """The schedule that `text` names; see `Fault.parse` for what is raised."""
        return cls(tuple(Fault.parse(part) for part in text.split(";")) if text else ())

    def __str__(self) -> str:
        return "; ".join(str(fault) for fault in self.faults)
