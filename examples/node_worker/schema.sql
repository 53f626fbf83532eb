create table payouts (
    id text primary key,
    account text not null,
    cents integer not null,
    created_at timestamptz not null default now(),
    paid_at timestamptz,
    reference text,
    told_at timestamptz
);

create index payouts_to_pay on payouts (created_at) where paid_at is null;
create index payouts_to_tell on payouts (paid_at) where told_at is null;

create view payouts_open as select id from payouts where paid_at is null or told_at is null;
