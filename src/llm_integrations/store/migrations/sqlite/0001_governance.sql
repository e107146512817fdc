-- Ledger, budgets, owners and kept answers. Money is integer pico-USD, time is integer
-- microseconds since 1970-01-01 UTC. STRICT: an overflow that SQLite would turn into a float
-- is an error instead.

CREATE TABLE ledger (
    call_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    owner TEXT NOT NULL,
    grp TEXT NOT NULL,
    state TEXT NOT NULL,
    model TEXT NOT NULL,
    served TEXT NOT NULL DEFAULT '',
    request_id TEXT NOT NULL DEFAULT '',
    hold_pusd INTEGER,
    cost_pusd INTEGER,
    charged_pusd INTEGER NOT NULL DEFAULT 0,
    price_version TEXT NOT NULL,
    counters TEXT NOT NULL DEFAULT '{}',
    raw BLOB NOT NULL DEFAULT x'',
    tags TEXT NOT NULL,
    issue TEXT,
    delivery TEXT,
    windows TEXT NOT NULL,
    created_us INTEGER NOT NULL,
    settled_us INTEGER,
    latency_ms INTEGER,
    ttft_ms INTEGER,
    PRIMARY KEY (call_id, attempt)
) STRICT, WITHOUT ROWID;

CREATE INDEX ledger_created ON ledger (created_us);
CREATE INDEX ledger_held ON ledger (owner) WHERE state = 'held';
CREATE INDEX ledger_issue ON ledger (issue) WHERE issue IS NOT NULL;
CREATE INDEX ledger_delivery ON ledger (delivery) WHERE delivery IS NOT NULL;

CREATE TABLE budget (
    name TEXT PRIMARY KEY,
    limit_pusd INTEGER NOT NULL,
    span TEXT NOT NULL,
    tag TEXT,
    zone TEXT NOT NULL,
    hard INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Ids are never given twice: a settlement may name a window that is gone.
CREATE TABLE budget_window (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    budget TEXT NOT NULL,
    key TEXT NOT NULL,
    start_us INTEGER NOT NULL,
    end_us INTEGER NOT NULL,
    spent_pusd INTEGER NOT NULL DEFAULT 0,
    held_pusd INTEGER NOT NULL DEFAULT 0,
    UNIQUE (budget, key, start_us, end_us)
) STRICT;

CREATE TABLE ledger_owner (
    id TEXT PRIMARY KEY,
    expires_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE checkpoint (
    scope TEXT NOT NULL,
    name TEXT NOT NULL,
    result BLOB NOT NULL,
    created_us INTEGER NOT NULL,
    PRIMARY KEY (scope, name)
) STRICT, WITHOUT ROWID;
