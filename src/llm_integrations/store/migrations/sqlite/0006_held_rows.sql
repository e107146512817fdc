-- Attempts that are on their way stand in a table of their own, without an index: the commit of a
-- hold writes two pages where it wrote six. The ledger has those that have ended.

CREATE TABLE held (
    call_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    owner TEXT NOT NULL,
    grp TEXT NOT NULL,
    model TEXT NOT NULL,
    hold_pusd INTEGER,
    price_version TEXT NOT NULL,
    tags TEXT NOT NULL,
    issue TEXT,
    delivery TEXT,
    windows TEXT NOT NULL,
    created_us INTEGER NOT NULL,
    estimate_pusd INTEGER,
    estimated TEXT,
    PRIMARY KEY (call_id, attempt)
) STRICT, WITHOUT ROWID;

INSERT INTO held
SELECT call_id, attempt, owner, grp, model, hold_pusd, price_version, tags, issue, delivery,
       windows, created_us, estimate_pusd, estimated
FROM ledger WHERE state = 'held';
DELETE FROM ledger WHERE state = 'held';
DELETE FROM rollup WHERE state = 'held';
DROP INDEX ledger_held;

-- What is on its way under the names of `ledger` and of `ledger_line`. It is never summed up.
CREATE VIEW held_entry AS
SELECT call_id, attempt, owner, grp, 'held' AS state, model, '' AS served, '' AS request_id,
       hold_pusd, estimate_pusd, NULL AS cost_pusd, 0 AS charged_pusd, NULL AS at_most_pusd,
       price_version, '{}' AS counters, x'' AS raw, tags, issue, delivery, created_us,
       NULL AS settled_us, NULL AS latency_ms, NULL AS ttft_ms,
       created_us / 900000000 * 900000000 AS slot_us,
       coalesce(json_extract(tags, '$.project'), '') AS project,
       coalesce(json_extract(tags, '$.handler'), '') AS handler,
       1 AS attempts, 0 AS charged_high, 0 AS charged_low, 0 AS unpriced
FROM held;

-- An attempt comes into the ledger when it ends, which may be long after its time was summed up,
-- and comes once more, in place of itself, when it is corrected. 23 hours: sums are made of what is
-- a day old, and the clocks of processes differ by less than an hour.
DROP TRIGGER ledger_late;
CREATE TRIGGER ledger_late AFTER INSERT ON ledger
WHEN NEW.settled_us - NEW.created_us > 82800000000
    AND NEW.created_us < (SELECT until_us FROM rolled)
BEGIN
    DELETE FROM rollup WHERE slot_us = NEW.created_us / 900000000 * 900000000;
    INSERT INTO rollup
    SELECT slot_us, model, grp, project, handler, state,
           sum(attempts), sum(charged_high), sum(charged_low), sum(unpriced)
    FROM ledger_line
    WHERE created_us >= NEW.created_us / 900000000 * 900000000
        AND created_us < NEW.created_us / 900000000 * 900000000 + 900000000
    GROUP BY 1, 2, 3, 4, 5, 6;
END;
