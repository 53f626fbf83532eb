create table inbox (
    event_id text primary key,
    taken_at timestamptz not null default now()
);

create table notifications (
    event_id text not null references inbox,
    phone text not null,
    receipt text not null
);
