#!/bin/sh
# Does what the official entry point does with what the harness tells it: becomes `postgres`, makes the data once, starts
# a server with the options of the real one that listens on a unix socket only, as for scripts, and then the real one.
set -eu
if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA" /var/run/postgresql
    chown -R postgres /var/lib/postgresql /var/run/postgresql
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    if [ -z "${POSTGRES_PASSWORD:-}" ] && [ "${POSTGRES_HOST_AUTH_METHOD:-}" != trust ]; then
        echo "Error: Database is uninitialized and superuser password is not specified." >&2
        exit 1
    fi
    eval "initdb --username=${POSTGRES_USER:-postgres} ${POSTGRES_INITDB_ARGS:-}"
    echo "host all all all ${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}" >> "$PGDATA/pg_hba.conf"
    shift
    pg_ctl -o "$(printf "'%s' " "$@") -c listen_addresses='' -p 5432" -w start
    pg_ctl -m fast -w stop
    set -- postgres "$@"
fi
exec "$@"
