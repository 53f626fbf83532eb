"""What a text of SQL is: where its statements begin and end, and what each may do.

Problem: say of SQL that is about to go to a server which of it ends a transaction, which cannot be taken back, which
surely changes nothing, and which has to be looked at once the server has had its say.

Things that don't work:

- Regular expressions over SQL. A comment in front, a COMMIT in a string, `SELECT` of what writes, `WITH … INSERT`, two
  statements in one text: each is missed or seen where it is not.
- Splitting at semicolons: they are in strings, in comments, in the actions of a rule, in bodies of functions.
- A real parser of one version of the server: another version, or a relative of it, speaks another SQL.
- Knowing from the text what a function does. Only the server knows.

Solution: tokens as the server's own scanner cuts them (scan.l), semicolons outside parentheses, and then the first
words. A query is "read" if no word of it writes and every function that it calls is known to be harmless; all else
that begins no better known is "write", which means that it may write. Where there is any doubt about where a statement
begins or ends, or about the name of a savepoint or of a prepared transaction, there is no answer at all (None).

It is taken for granted that ``standard_conforming_strings`` is on, and that no byte of a longer character is a
backslash (as one may be in SJIS, BIG5, GBK, GB18030, UHC and JOHAB); a server reports both settings.

Known residual cases: a "read" may still call anything through a view, a rule, a policy, a cast, an operator, a function
in the guise of a column (``t.f``), one that overloads a harmless name with types of its own, or one named like a
keyword (``over``, ``by``). What a prepared statement does, or whether it notifies, its EXECUTE does not say.

A COPY or DECLARE whose query is not surely "read" is "write", whatever else it is.
"""

from __future__ import annotations

import functools
import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

Kind: TypeAlias = Literal[
    "empty",
    "begin",
    "commit",
    "rollback",
    "savepoint",
    "rollback to",
    "release",
    "prepare transaction",
    "commit prepared",
    "rollback prepared",
    "copy in",
    "copy out",
    "at once",
    "call",
    "harmless",
    "read",
    "write",
]


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a text.

    `text` is its own, with the comments in it, without the semicolon that ends it. `name` is a savepoint's, as the
    server folds and cuts it, or the unquoted gid of a prepared transaction. `chain`: COMMIT or ROLLBACK AND CHAIN.
    `notifies`: NOTIFY or a call of ``pg_notify``, which takes effect at the commit though no xid shows before it.
    """

    text: bytes
    kind: Kind
    name: bytes = b""
    chain: bool = False
    notifies: bool = False


_Part: TypeAlias = tuple[list[bytes], int, int]  # tokens, where they begin and where they end

_CACHED: Final = 4096  # texts, of so many bytes at most
_NAME_LENGTH: Final = 63
_SPACE: Final = b" \t\n\r\f\v"

# The tokens of scan.l, as far as it matters. A quoted string of any other prefix is a word and a plain string.
_STRING: Final = rb"'[^']*+(?:''[^']*+)*+'"
_ESCAPES: Final = rb"'(?:[^'\\]++|\\.|'')*+'"
_CONTINUED: Final = rb"(?:[ \t\f\v]|--[^\n\r]*+)*+[\n\r](?:[ \t\n\r\f\v]++|--[^\n\r]*+[\n\r])*+"
_LETTERS: Final = rb"A-Za-z_\x80-\xff"
_TOKEN: Final = re.compile(
    rb"[ \t\n\r\f\v]*+(?:"
    rb"((?:[A-DF-TV-Za-df-tv-z_\x80-\xff]|[eE](?!')|[uU](?!&\"))[%(letters)s0-9$]*+)"
    rb"|((?:[][0-9,:<>=+*%%^~!@#&|`?]++|\.(?=[0-9])|-(?!-)|/(?!\*)|\$[0-9]++)++)"
    rb"|(\()"
    rb"|(\))"
    rb"|(;)"
    rb"|(\.|\"[^\"]*+(?:\"\"[^\"]*+)*+\""
    rb"|%(string)s|[eE]%(escapes)s(?:%(continued)s%(escapes)s)*+(?!%(continued)s'))"
    rb"|(--[^\n\r]*+)"
    rb"|(/\*)"
    rb"|(\$(?:[%(letters)s][%(letters)s0-9]*+)?\$))"
    % {b"letters": _LETTERS, b"string": _STRING, b"escapes": _ESCAPES, b"continued": _CONTINUED},
    re.DOTALL,
).match
_WORD, _REST, _OPEN, _CLOSE, _SEMICOLON, _, _LINE, _BLOCK, _DOLLAR = range(1, 10)
_BLOCK_ENDS: Final = re.compile(rb"/\*|\*/").finditer
_COMMITS: Final = re.compile(rb"commit(?![a-z])|(?<![a-z0-9_])call(?![a-z0-9_])", re.IGNORECASE).search
_SIMPLE: Final = re.compile(rb"[eE]'(?:[^\\\n\r]|\\[\\'])*+").fullmatch
_ESCAPED: Final = re.compile(rb"[\\']([\\'])").sub

_HARMLESS_VERBS: Final = (
    b"set reset show listen unlisten discard deallocate fetch move close lock checkpoint load identify_system"
    b" read_replication_slot timeline_history base_backup start_replication upload_manifest".split()
)
_AT_ONCE: Final = b"vacuum reindex cluster repack drop_replication_slot alter_replication_slot".split()
_KINDS: Final[dict[bytes, Kind]] = {
    b"begin": "begin",
    b"call": "call",
    **dict.fromkeys(_AT_ONCE, "at once"),
    **dict.fromkeys(_HARMLESS_VERBS, "harmless"),
}
_QUERIES: Final = frozenset({b"select", b"values", b"table", b"with"})
_WRITING: Final = frozenset({b"insert", b"update", b"delete", b"merge", b"into"})
_ANALYZE: Final = frozenset({b"analyze", b"analyse", b'"analyze"', b'"analyse"'})
_DEFINING: Final = frozenset({b"create", b"alter", b"prepare"})
_NOTIFY: Final = frozenset({b"pg_notify", b'"pg_notify"'})
_OUTSIDE: Final = frozenset({b"database", b"tablespace", b"subscription"})  # of transactions
_WAYS: Final = frozenset({b"from", b"to"})
_STREAMS: Final = frozenset({b"stdin", b"stdout"})  # either means the client, whatever the direction

# What stands before a parenthesis, or before a name and a parenthesis, without a function being called.
_NO_CALL: Final = frozenset(
    b"select values in and or not any all some exists over filter array row cast from where on using as when then else"
    b" by having union intersect except distinct limit offset join lateral between symmetric like ilike to group sets"
    b" rollup cube materialized only operator case"
    b" numeric decimal dec varchar char character varying nchar bit float time timestamp interval bpchar".split()
)
_NAMES_NO_CALL: Final = frozenset({b"as", b"with", b"recursive", b"tablesample"})
_HARMLESS: Final = frozenset(
    b" abs ceil ceiling floor round trunc sign mod div power sqrt exp ln log pi random gcd lcm degrees radians sin"
    b" cos"
    b" tan width_bucket"
    b" count sum avg min max bool_and bool_or every bit_and bit_or array_agg string_agg json_agg jsonb_agg"
    b" json_object_agg jsonb_object_agg stddev stddev_pop stddev_samp variance var_pop var_samp corr mode any_value"
    b" percentile_cont percentile_disc grouping"
    b" row_number rank dense_rank percent_rank cume_dist ntile lag lead first_value last_value nth_value"
    b" coalesce nullif greatest least num_nulls num_nonnulls"
    b" lower upper initcap length char_length character_length octet_length bit_length trim btrim ltrim rtrim lpad"
    b" rpad"
    b" left right repeat replace reverse position strpos substring substr overlay concat concat_ws format"
    b" split_part"
    b" starts_with translate ascii chr md5 sha224 sha256 sha384 sha512 encode decode convert_from convert_to"
    b" quote_ident"
    b" quote_literal quote_nullable regexp_replace regexp_match regexp_matches regexp_split_to_table"
    b" regexp_split_to_array regexp_count regexp_like regexp_substr regexp_instr string_to_array string_to_table"
    b" to_hex normalize"
    b" now current_timestamp current_time localtime localtimestamp clock_timestamp statement_timestamp"
    b" transaction_timestamp timeofday age date date_trunc date_part date_bin extract make_date make_time"
    b" make_timestamp"
    b" make_timestamptz make_interval justify_days justify_hours justify_interval isfinite overlaps timezone"
    b" timestamptz"
    b" timetz to_char to_date to_number to_timestamp"
    b" array_append array_prepend array_cat array_length array_lower array_upper array_ndims array_dims"
    b" array_position"
    b" array_positions array_remove array_replace array_to_string array_fill cardinality unnest generate_series"
    b" generate_subscripts trim_array"
    b" to_json to_jsonb row_to_json array_to_json json_build_object jsonb_build_object json_build_array"
    b" jsonb_build_array json_object jsonb_object json_array_elements jsonb_array_elements json_array_elements_text"
    b" jsonb_array_elements_text json_array_length jsonb_array_length json_each jsonb_each json_each_text"
    b" jsonb_each_text json_extract_path jsonb_extract_path json_extract_path_text jsonb_extract_path_text"
    b" json_object_keys jsonb_object_keys json_typeof jsonb_typeof json_strip_nulls jsonb_strip_nulls jsonb_set"
    b" jsonb_set_lax jsonb_insert jsonb_pretty jsonb_path_exists jsonb_path_match jsonb_path_query"
    b" jsonb_path_query_array jsonb_path_query_first json_to_record jsonb_to_record json_to_recordset"
    b" jsonb_to_recordset json_populate_record jsonb_populate_record json_populate_recordset"
    b" jsonb_populate_recordset"
    b" json_value json_query json_exists json_array"
    b" gen_random_uuid uuidv4 uuidv7 to_tsvector to_tsquery plainto_tsquery phraseto_tsquery websearch_to_tsquery"
    b" ts_rank ts_rank_cd ts_headline setweight tsvector_to_array"
    b" int4range int8range numrange tsrange tstzrange daterange isempty lower_inc upper_inc lower_inf upper_inf"
    b" version current_setting set_config current_database current_catalog current_schema current_schemas"
    b" current_user"
    b" session_user pg_backend_pid pg_sleep pg_sleep_for pg_sleep_until pg_is_in_recovery pg_postmaster_start_time"
    b" pg_conf_load_time pg_current_wal_lsn pg_current_wal_insert_lsn pg_current_wal_flush_lsn"
    b" pg_last_wal_receive_lsn"
    b" pg_last_wal_replay_lsn pg_last_xact_replay_timestamp pg_wal_lsn_diff pg_blocking_pids pg_typeof"
    b" inet_client_addr inet_client_port inet_server_addr inet_server_port txid_current txid_current_if_assigned"
    b" txid_current_snapshot txid_status pg_current_xact_id pg_current_xact_id_if_assigned pg_current_snapshot"
    b" pg_xact_status currval lastval nextval"
    b" pg_advisory_lock pg_advisory_lock_shared pg_try_advisory_lock pg_try_advisory_lock_shared pg_advisory_unlock"
    b" pg_advisory_unlock_shared pg_advisory_unlock_all pg_advisory_xact_lock pg_advisory_xact_lock_shared"
    b" pg_try_advisory_xact_lock pg_try_advisory_xact_lock_shared hashtext hashtextextended"
    b" format_type to_regclass to_regtype to_regproc to_regnamespace to_regrole obj_description col_description"
    b" shobj_description pg_get_expr pg_get_constraintdef pg_get_indexdef pg_get_viewdef pg_get_userbyid"
    b" pg_get_serial_sequence pg_get_functiondef pg_get_function_result pg_get_function_arguments"
    b" pg_get_function_identity_arguments pg_get_triggerdef pg_get_ruledef pg_get_partkeydef pg_get_keywords"
    b" pg_table_is_visible pg_type_is_visible pg_function_is_visible pg_relation_is_publishable pg_encoding_to_char"
    b" pg_relation_size pg_total_relation_size pg_table_size pg_indexes_size pg_database_size pg_size_pretty"
    b" pg_column_size has_table_privilege has_schema_privilege has_database_privilege has_column_privilege"
    b" has_function_privilege has_sequence_privilege has_any_column_privilege pg_has_role".split()
)
_CATALOG: Final = frozenset({b"pg_catalog", b'"pg_catalog"'})


def statements(text: bytes) -> tuple[Statement, ...] | None:
    """The statements of `text`, in order, or None where there is doubt. Nothing but comments is one, "empty"."""
    return _remembered(text) if len(text) <= _CACHED else _statements(text)


def _statements(text: bytes) -> tuple[Statement, ...] | None:
    parts = _split(text)
    if parts is None:
        return None
    found = []
    for tokens, begin, end in parts:
        if tokens:
            statement = _statement(text[begin:end].strip(_SPACE), tokens)
            if statement is None:
                return None
            found.append(statement)
    return tuple(found) or (Statement(text, "empty"),)


_remembered: Final = functools.lru_cache(_CACHED)(_statements)


def _split(text: bytes) -> list[_Part] | None:
    """The tokens between semicolons; None where one does not end or cannot be.

    Words are in lower case, operators and numbers all the same comma. There are no tokens of comments; one at the end
    is in no part if it ends with its line, as nothing may be put behind it.
    """
    parts: list[_Part] = []
    tokens: list[bytes] = []
    at = begin = end = depth = 0
    size = len(text.rstrip(_SPACE))
    while at < size:
        match = _TOKEN(text, at)
        if match is None:
            return None
        kind, at = match.lastindex or 0, match.end()
        if kind == _WORD:
            tokens.append(match[kind].lower())
        elif kind == _REST:
            tokens.append(b",")
        elif kind == _SEMICOLON and not depth:
            parts.append((tokens, begin, end))
            tokens, begin = [], at
        elif kind == _LINE:
            continue
        elif kind >= _BLOCK:
            at = _end(text, at, match[kind])
            tokens += [text[match.start(kind) : at]] * (kind == _DOLLAR)
        else:
            tokens.append(match[kind])
            depth += (kind == _OPEN) - (kind == _CLOSE)
        if depth < 0 or not at:
            return None
        end = at
    return None if depth else [*parts, (tokens, begin, end)]


def _end(text: bytes, at: int, mark: bytes) -> int:
    """Where ends what `mark` began just before `at`: a comment, with those in it, or a string; 0 for nowhere."""
    if mark != b"/*":
        found = text.find(mark, at)
        return found + len(mark) if found >= 0 else 0
    depth = 1
    for match in _BLOCK_ENDS(text, at):
        depth += 1 if match[0] == b"/*" else -1
        if not depth:
            return match.end()
    return 0


def _statement(text: bytes, tokens: list[bytes]) -> Statement | None:
    first = tokens[0]
    if first in _NAMING:
        return _NAMING[first](text, tokens)
    if first == b"create" and (b"begin", b"atomic") in itertools.pairwise(tokens):
        return None
    kind = _KINDS.get(first) or (_TELLING[first](tokens) if first in _TELLING else "write")
    if first == b"do":
        notifies = any(b"notify" in token.lower() for token in tokens)
    elif kind == "write" and first not in _DEFINING:
        notifies = first == b"notify" or not _NOTIFY.isdisjoint(tokens)
    else:
        notifies = kind == "call" and not _NOTIFY.isdisjoint(tokens)
    return Statement(text, kind, notifies=notifies)


# -- transactions, savepoints, and what is prepared ------------------------------------------------------------------


def _commit(text: bytes, tokens: list[bytes]) -> Statement | None:
    if tokens[:2] == [b"commit", b"prepared"]:
        return _two_phase(text, "commit prepared", tokens)
    return Statement(text, "commit", chain=tokens[-2:] == [b"and", b"chain"])


def _rollback(text: bytes, tokens: list[bytes]) -> Statement | None:
    if tokens[:2] == [b"rollback", b"prepared"]:
        return _two_phase(text, "rollback prepared", tokens)
    rest = tokens[2:] if tokens[1:2] in ([b"work"], [b"transaction"]) else tokens[1:]
    if rest[:1] == [b"to"] and tokens[0] == b"rollback":
        return _savepoint(text, "rollback to", rest)
    return Statement(text, "rollback", chain=tokens[-2:] == [b"and", b"chain"])


def _prepare(text: bytes, tokens: list[bytes]) -> Statement | None:
    if tokens[1:2] == [b"transaction"] and tokens[2:3] not in ([b"as"], [b"("]):
        return _two_phase(text, "prepare transaction", tokens)
    return Statement(text, "harmless")


def _savepoint(text: bytes, kind: Kind, tokens: list[bytes]) -> Statement | None:
    """Of verb and name, between which TO and RELEASE may have the word SAVEPOINT; it may be a name, too."""
    verb, *names = tokens
    if verb != b"savepoint" and names[:1] == [b"savepoint"]:
        names = names[1:] or names
    if len(names) != 1:
        return None
    name = names[0]
    if name[:1] == b'"':
        name = name[1:-1].replace(b'""', b'"')
    elif not _is_word(name):
        return None
    return Statement(text, kind, name[:_NAME_LENGTH])


def _two_phase(text: bytes, kind: Kind, tokens: list[bytes]) -> Statement | None:
    """Of two words and the gid."""
    _, _, *gids = tokens
    if len(gids) != 1:
        return None
    gid = gids[0]
    if gid[:1] == b"'":
        return Statement(text, kind, gid[1:-1].replace(b"''", b"'"))
    if gid[:1] == b"$":
        edge = gid.index(b"$", 1) + 1
        return Statement(text, kind, gid[edge:-edge])
    if gid[1:2] == b"'" and _SIMPLE(gid):
        return Statement(text, kind, _ESCAPED(rb"\1", gid[2:-1]))
    return None


# -- all else ---------------------------------------------------------------------------------------------------------


def _is_word(token: bytes) -> bool:
    return token[:1] >= b"A" and token[1:2] != b"'"


def _outer(tokens: list[bytes]) -> list[bytes]:
    """The tokens outside parentheses."""
    outer, depth = [], 0
    for token in tokens:
        depth -= token == b")"
        if not depth:
            outer.append(token)
        depth += token == b"("
    return outer


def _group(tokens: list[bytes]) -> list[bytes]:
    """The tokens of the parenthesis that these begin with."""
    depths = itertools.accumulate((token == b"(") - (token == b")") for token in tokens)
    return tokens[: next(at for at, depth in enumerate(depths) if not depth)]


def _begins(tokens: list[bytes]) -> Kind:
    return "begin" if tokens[1:2] == [b"transaction"] else "write"


def _makes(tokens: list[bytes]) -> Kind:
    """CREATE, DROP and ALTER."""
    first, second = tokens[0], b"".join(tokens[1:2])
    if second == b"database" and first == b"alter":
        return "at once" if (b"set", b"tablespace") in itertools.pairwise(tokens) else "write"
    if second == b"tablespace" and first == b"alter":
        return "write"
    if second == b"system" and first == b"alter":
        return "at once"
    return "at once" if second in _OUTSIDE or b"concurrently" in _outer(tokens) else "write"


def _slot(tokens: list[bytes]) -> Kind:
    return "harmless" if b"temporary" in tokens[2:3] else "at once"


def _copies(tokens: list[bytes]) -> Kind:
    outer = _outer(tokens)
    at = next((at for at, token in enumerate(outer) if token in _WAYS), len(outer))
    way, target = outer[at : at + 1], outer[at + 1 : at + 2]
    if way == [b"from"]:
        return "copy in" if _STREAMS.intersection(target) else "write"
    if not way or (tokens[1] == b"(" and not _reads(_group(tokens[1:]))):
        return "write"
    return "copy out" if _STREAMS.intersection(target) else "harmless"


def _does(tokens: list[bytes]) -> Kind:
    return "call" if any(map(_COMMITS, tokens)) else "write"


def _declares(tokens: list[bytes]) -> Kind:
    """A cursor may outlive the transaction, and its query is run then."""
    at = tokens.index(b"for") if b"for" in tokens else len(tokens)
    return "harmless" if _reads(tokens[at + 1 :]) else "write"


def _explains(tokens: list[bytes]) -> Kind:
    return "harmless" if _ANALYZE.isdisjoint(tokens) else "write"


def _queries(tokens: list[bytes]) -> Kind:
    return "read" if _reads(tokens) else "write"


def _reads(tokens: list[bytes]) -> bool:
    """Whether this is a query in which nothing writes, as far as its text tells."""
    if next((token for token in tokens if token != b"("), b"") not in _QUERIES:
        return False
    if not _WRITING.isdisjoint(tokens):
        for at, token in enumerate(tokens):
            if token in _WRITING and not (token == b"update" and _locks(tokens, at)):
                return False
    return all(_is_harmless(tokens, at) for at, token in enumerate(tokens) if token == b"(")


def _locks(tokens: list[bytes], at: int) -> bool:
    return tokens[at - 1] == b"for" or tokens[at - 3 : at] == [b"for", b"no", b"key"]


def _is_harmless(tokens: list[bytes], at: int) -> bool:
    """Whether the parenthesis at `at` calls no function, or a harmless one."""
    if not at:
        return True
    name, before = tokens[at - 1], tokens[at - 2] if at > 1 else b""
    if before == b".":
        qualified = tokens[at - 3] in _CATALOG and tokens[at - 4] != b"."
        return qualified and name.strip(b'"') in _HARMLESS
    if name in _NO_CALL or name in _HARMLESS or before in _NAMES_NO_CALL:
        return True
    if name[:1] == b'"':
        return name[1:-1] in _HARMLESS
    return name[:1] < b"A"


_NAMING: Final[dict[bytes, Callable[[bytes, list[bytes]], Statement | None]]] = {
    b"commit": _commit,
    b"end": _commit,
    b"rollback": _rollback,
    b"abort": _rollback,
    b"savepoint": lambda text, tokens: _savepoint(text, "savepoint", tokens),
    b"release": lambda text, tokens: _savepoint(text, "release", tokens),
    b"prepare": _prepare,
}
_TELLING: Final[dict[bytes, Callable[[list[bytes]], Kind]]] = {
    b"start": _begins,
    b"create": _makes,
    b"drop": _makes,
    b"alter": _makes,
    b"create_replication_slot": _slot,
    b"copy": _copies,
    b"do": _does,
    b"declare": _declares,
    b"explain": _explains,
    b"(": _queries,
    **dict.fromkeys(_QUERIES, _queries),
}
