-- Everything the pipeline keeps in Postgres. Safe to run again.

create table if not exists orders (
    order_id    text primary key,
    customer_id text not null,
    sku         text not null,
    quantity    integer not null check (quantity > 0),
    amount      bigint not null check (amount > 0),  -- minor units: 1999 is 19.99
    currency    text not null check (length(currency) = 3),
    state       text not null default 'pending' check (state in ('pending', 'confirmed', 'failed')),
    payment     text check (payment in ('charged', 'declined')),  -- null: not yet known
    stock       text check (stock in ('reserved', 'refused')),  -- likewise
    last_seq    integer not null default 1,  -- of its events in the outbox
    created_at  timestamptz not null default now()
);

create index if not exists orders_of_customer on orders (customer_id, created_at);
create index if not exists orders_pending on orders (created_at, order_id) where state = 'pending';

-- The answer once given for a key, so that a client may ask again after a crash or a lost reply.
create table if not exists idempotency_keys (
    key         text primary key,
    fingerprint text not null,  -- of the payload: the same key with another payload is a client's mistake
    reply       text not null,  -- the body of the 202, byte for byte
    created_at  timestamptz not null default now()
);

-- Writers create or lock the order's row before they insert here, so ids of one order rise in commit order.
-- Between orders they do not: an id is allotted at INSERT and seen at COMMIT. Nobody may read "id > the last one seen".
create table if not exists outbox (
    id           bigint generated always as identity primary key,
    event_id     uuid not null unique,
    order_id     text not null references orders,
    shard        smallint not null generated always as (hashtext(order_id) & 15) stored,  -- see outbox_shards
    seq          integer not null check (seq > 0),  -- 1, 2, 3 within an order, so that a reader can tell a gap
    type         text not null,
    payload      json not null,  -- the whole event, as it will be on the topic, byte for byte
    traceparent  text,  -- of the request that has led to it, in the W3C's format
    created_at   timestamptz not null default now(),
    published_at timestamptz,  -- set by a polling relay once Kafka has confirmed the event, never before
    xid          xid8 not null default pg_current_xact_id(),  -- see relay_progress
    unique (order_id, seq)
);
create index if not exists outbox_unpublished on outbox (shard, id) where published_at is null;
-- For the gauge of latency. It costs about 120 bytes of log for each outcome, and no time that could be measured.
create index if not exists outbox_outcomes on outbox (created_at) where type in ('order.confirmed', 'order.failed');
create or replace view outbox_pending as select * from outbox where published_at is null;

-- What relays that read the log have published: everything of transactions older than this one. They mark no rows.
-- Transactions are numbered by a server, and anew where it is restored: who has counted them is noted with it.
create table if not exists relay_progress (
    slot   text primary key,
    below  xid8 not null,
    server text not null
        default (pg_control_system()).system_identifier || '/' || (pg_control_checkpoint()).timeline_id,
    at     timestamptz not null default now()
);
create or replace view published_below as
    select slot, below from relay_progress
    where server = (pg_control_system()).system_identifier || '/' || (pg_control_checkpoint()).timeline_id;

-- What they are sent. It has to be older than their slots, and says nothing of marks and removals.
do $$
begin
    if not exists (select from pg_publication where pubname = 'outbox') then
        create publication outbox for table outbox (event_id, order_id, seq, type, payload, traceparent)
            with (publish = 'insert');
    end if;
end
$$;

-- Which polling relays there are. One is taken for dead at `until`, by this server's clock.
create table if not exists relays (
    name  text primary key,
    token uuid not null,  -- of the process: a new one with the name ends what the one before it may do
    until timestamptz not null
);

-- Who publishes what: all of an order is in one shard, and a shard has one owner, so nothing overtakes within an order.
create table if not exists outbox_shards (
    shard smallint primary key,
    owner text references relays on delete set null
);
insert into outbox_shards select generate_series(0, 15) on conflict do nothing;

-- Keeps a relay alive for so many seconds, gives up what it has beyond its share, and takes what is free up to that.
-- Returns its shards; null if another process has taken its name, which only one that is starting does.
create or replace function lead_shards(me text, process uuid, seconds double precision, starting boolean)
returns smallint[] language plpgsql as $$
declare
    share integer;
begin
    set local synchronous_commit = on;  -- relays switch it off, as a mark may be lost; this may not
    lock table relays in share row exclusive mode;  -- one at a time, or two would take the same shard
    delete from relays where until < clock_timestamp() and name <> me;
    insert into relays values (me, process, clock_timestamp() + make_interval(secs => seconds))
    on conflict (name) do update set token = excluded.token, until = excluded.until
    where starting or relays.token = excluded.token;
    if not found then
        return null;
    end if;
    select ceil(16.0 / count(*)) into share from relays;
    update outbox_shards set owner = null where shard in
        (select shard from outbox_shards where owner = me order by shard offset share);
    update outbox_shards set owner = me where shard in
        (select shard from outbox_shards where owner is null order by shard
         limit share - (select count(*) from outbox_shards where owner = me));
    return array(select shard from outbox_shards where owner = me order by shard);
end
$$;

-- Polling relays are told that there is something. Every NOTIFY takes a lock of the whole server for the time of its
-- COMMIT, so nobody is told where none of them is.
create or replace function wake_relays() returns trigger language plpgsql as $$
begin
    perform pg_notify('outbox', '') where exists (select from relays where until > clock_timestamp());
    return null;
end
$$;
create or replace trigger outbox_wakes after insert on outbox for each statement execute function wake_relays();

-- What a consumer group has already acted upon. Written in the transaction of the effect.
create table if not exists inbox (
    consumer_group text not null,
    event_id       uuid not null,
    received_at    timestamptz not null default now(),
    primary key (consumer_group, event_id)
);

-- Orders of which a consumer group could not handle an event: that one and all later ones wait in `parked_events`.
-- See `pipeline.quarantine.parking` for who locks what.
create table if not exists parked_orders (
    consumer_group  text not null,
    order_id        text not null,
    attempts        integer not null,  -- at the first event
    next_attempt_at timestamptz,  -- null: the first event is in the dead-letter topic, and has to come back from there
    reason          text not null,  -- of the last failure, for people
    since           timestamptz not null default now(),
    primary key (consumer_group, order_id)
);
create index if not exists parked_orders_due on parked_orders (consumer_group, next_attempt_at);
create table if not exists parked_events (
    place          bigint generated always as identity,  -- an order's events are parked one after the other
    consumer_group text not null,
    order_id       text not null,
    event_id       uuid not null,
    origin         json not null,  -- topic, partition, offset, time in Unix ms, and headers
    key            bytea,
    value          bytea,  -- as it was on the topic, byte for byte
    primary key (consumer_group, event_id),
    foreign key (consumer_group, order_id) references parked_orders
);
create index if not exists parked_events_in_order on parked_events (consumer_group, order_id, place);

-- Dead letters that were sent back to their group, or left where they are for good; by whom.
create table if not exists replays (
    consumer_group text not null,
    origin         text not null,  -- topic[partition]@offset
    replays        integer not null,  -- for the first time, the second, ...
    fate           text not null default 'sent' check (fate in ('sent', 'left')),
    noted_at       timestamptz not null default now(),
    noted_by       text not null default current_user,
    primary key (consumer_group, origin, replays)
);

-- What there is to sell.
create table if not exists stock (
    sku       text primary key,
    available bigint not null check (available >= 0)
);

-- What the inventory group has decided about an order. No reference to orders: it knows what events tell it.
create table if not exists reservations (
    order_id text not null primary key,
    sku      text not null,
    quantity bigint not null check (quantity > 0),
    state    text not null check (state in ('reserved', 'refused', 'released'))
);

-- Mails to customers, for a mail server to fetch. Written once for each outcome of an order.
create table if not exists mails (
    id       bigint generated always as identity primary key,
    order_id text not null,
    event_id uuid not null,  -- the outcome
    text     text not null
);

-- One row per request that the gateway answered. No reference to orders: a consumer knows what events tell it.
create table if not exists payments (
    key         text primary key,  -- the idempotency key the gateway was given
    order_id    text not null,
    amount      bigint not null,
    currency    text not null,
    state       text not null check (state in ('paid', 'declined')),
    recorded_at timestamptz not null default now()
);
create index if not exists payments_order_id on payments (order_id);

-- Orders that stayed pending, and what the gateway said of them when it was asked.
create table if not exists reconciliations (
    order_id text primary key,
    found    text not null check (found in ('charged', 'declined')),
    at       timestamptz not null default now()
);

-- What was given back of orders that have failed.
create table if not exists refunds (
    key         text primary key,  -- the idempotency key the gateway was given
    order_id    text not null,
    amount      bigint not null,
    currency    text not null,
    recorded_at timestamptz not null default now()
);
create index if not exists refunds_order_id on refunds (order_id);

-- What the shop shows. What is left of it is in `stock`.
create table if not exists goods (
    sku      text primary key,
    name     text not null,
    price    bigint not null check (price > 0),  -- of one, in minor units
    currency text not null check (length(currency) = 3)
);

-- What a customer is told of an order.
create or replace view order_status as
    select order_id, customer_id, coalesce(name, sku) as name, quantity, amount, orders.currency, state, payment, stock,
        exists (select from refunds where refunds.order_id = orders.order_id) as refunded,
        exists (select from reconciliations as asked where asked.order_id = orders.order_id) as looked_up,
        created_at, extract(epoch from now() - created_at)::float8 as age_s
    from orders left join goods using (sku);

-- Pages are told which orders have changed. A notification is of less than 8000 bytes, and an order_id of 400 at most.
create or replace function tell_pages() returns trigger language plpgsql as $$
begin
    perform pg_notify('orders', string_agg(order_id, e'\x1f'))
    from (select order_id, row_number() over () / 19 as part from changed) as told group by part;
    return null;
end
$$;
create or replace trigger orders_told after update on orders
    referencing new table as changed for each statement execute function tell_pages();
create or replace trigger refunds_told after insert on refunds
    referencing new table as changed for each statement execute function tell_pages();
