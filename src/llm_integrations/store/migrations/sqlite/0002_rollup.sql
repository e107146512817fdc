-- Sums of the ledger by quarter of an hour, the longest time that fits into the days of every time
-- zone. Reports read them for what is old, and they outlive the rows that retention deletes.

CREATE TABLE rollup (
    slot_us INTEGER NOT NULL,
    model TEXT NOT NULL,
    grp TEXT NOT NULL,
    project TEXT NOT NULL,
    handler TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    -- The charge is charged_high * 10^12 + charged_low: one number could outgrow 64 bits.
    charged_high INTEGER NOT NULL,
    charged_low INTEGER NOT NULL,
    unpriced INTEGER NOT NULL,
    PRIMARY KEY (slot_us, model, grp, project, handler, state)
) STRICT, WITHOUT ROWID;

-- Rows created before `until_us` are summed up; those created before `forgotten_us` are deleted.
CREATE TABLE rolled (
    until_us INTEGER NOT NULL,
    forgotten_us INTEGER NOT NULL
) STRICT;
INSERT INTO rolled VALUES (0, 0);

-- The ledger under the names of the rollup: what a sum over one of them can ask of the other.
CREATE VIEW ledger_line AS
SELECT created_us,
       created_us / 900000000 * 900000000 AS slot_us,
       coalesce(nullif(served, ''), model) AS model,
       grp,
       coalesce(json_extract(tags, '$.project'), '') AS project,
       coalesce(json_extract(tags, '$.handler'), '') AS handler,
       issue,
       delivery,
       tags,
       state,
       1 AS attempts,
       charged_pusd / 1000000000000 AS charged_high,
       charged_pusd % 1000000000000 AS charged_low,
       state IN ('settled', 'partial', 'unknown')
           AND cost_pusd IS NULL AND hold_pusd IS NULL AS unpriced
FROM ledger;

-- An attempt may end, or be corrected, long after its time was summed up. 23 hours: sums are made
-- of what is a day old, and the clocks of processes differ by less than an hour.
CREATE TRIGGER ledger_late AFTER UPDATE OF state ON ledger
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
