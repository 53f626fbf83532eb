create table jobs (
    id text primary key,
    recipient text not null,
    created_at timestamptz not null default now(),
    mailed_at timestamptz
);

create index jobs_to_take on jobs (created_at) where mailed_at is null;

create view jobs_open as select id from jobs where mailed_at is null;
