create table if not exists runs (
    id integer primary key,
    key text not null unique,
    task text not null,
    rule text not null,
    variant text not null,
    net text not null,
    depth integer not null,
    width integer not null,
    seed integer not null,
    status text not null,
    reason text not null default '',
    checkpoint text,
    details text not null default '{}'
);
create table if not exists points (
    run integer not null references runs (id),
    samples integer not null,
    predictor text not null,
    split text not null,
    metric text not null,
    value real,
    epoch real not null,
    train_seconds real not null,
    cpu_seconds real not null,
    finish_seconds real not null,
    operations integer not null,
    load real,
    status text not null default '',
    primary key (run, samples, predictor, split, metric)
);
create table if not exists audits (
    rule text not null,
    variant text not null,
    source_hash text not null,
    claim text not null,
    claimed text not null,
    measured text not null,
    holds integer not null,
    primary key (rule, variant, source_hash, claim)
);
