-- Everything the pipeline keeps in Postgres. Safe to run again.

create table if not exists orders (
    order_id    text primary key,
    customer_id text not null,
    amount      bigint not null check (amount > 0),  -- minor units: 1999 is 19.99
    currency    text not null check (length(currency) = 3),
    state       text not null default 'pending' check (state in ('pending', 'paid', 'failed')),
    created_at  timestamptz not null default now()
);

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
    seq          integer not null check (seq > 0),  -- 1, 2, 3 within an order, so that a reader can tell a gap
    type         text not null,
    payload      json not null,  -- the whole event, as it will be on the topic, byte for byte
    traceparent  text,  -- of the request that has led to it, in the W3C's format
    created_at   timestamptz not null default now(),
    published_at timestamptz,  -- set once Kafka has confirmed the event, never before
    unique (order_id, seq)
);
create index if not exists outbox_unpublished on outbox (id) where published_at is null;
create or replace view outbox_pending as select * from outbox where published_at is null;

-- What a consumer group has already acted upon. Written in the transaction of the effect.
create table if not exists inbox (
    consumer_group text not null,
    event_id       uuid not null,
    received_at    timestamptz not null default now(),
    primary key (consumer_group, event_id)
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
