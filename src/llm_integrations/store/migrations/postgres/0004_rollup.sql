-- Sums of the ledger by quarter of an hour, the longest time that fits into the days of every time
-- zone. Reports read them for what is old, and they outlive the rows that retention deletes.

CREATE TABLE llm_integrations.rollup (
    slot_us  bigint NOT NULL,
    model    text NOT NULL,
    grp      text NOT NULL,
    project  text NOT NULL,
    handler  text NOT NULL,
    state    text NOT NULL,
    attempts bigint NOT NULL,
    charged  numeric NOT NULL,
    unpriced bigint NOT NULL,
    PRIMARY KEY (slot_us, model, grp, project, handler, state)
);

-- Rows created before `until_us` are summed up; those created before `forgotten_us` are deleted.
CREATE TABLE llm_integrations.rolled (
    until_us     bigint NOT NULL,
    forgotten_us bigint NOT NULL
);
INSERT INTO llm_integrations.rolled VALUES (0, 0);

-- The ledger under the names of the rollup: what a sum over one of them can ask of the other.
CREATE VIEW llm_integrations.ledger_line AS
SELECT created_us,
       created_us / 900000000 * 900000000 AS slot_us,
       coalesce(nullif(served, ''), model) AS model,
       grp,
       coalesce(tags ->> 'project', '') AS project,
       coalesce(tags ->> 'handler', '') AS handler,
       issue,
       delivery,
       tags,
       state,
       1 AS attempts,
       charged_pusd AS charged,
       CASE WHEN state IN ('settled', 'partial', 'unknown')
           AND cost_pusd IS NULL AND hold_pusd IS NULL THEN 1 ELSE 0 END AS unpriced
FROM llm_integrations.ledger;

-- Sums up the rows created in [p_from, p_until), both at the borders of slots.
CREATE FUNCTION llm_integrations.governance_sum(p_from bigint, p_until bigint) RETURNS void
LANGUAGE sql AS $$
    DELETE FROM llm_integrations.rollup WHERE slot_us >= p_from AND slot_us < p_until;
    INSERT INTO llm_integrations.rollup
    SELECT slot_us, model, grp, project, handler, state,
           sum(attempts), sum(charged), sum(unpriced)
    FROM llm_integrations.ledger_line
    WHERE created_us >= p_from AND created_us < p_until
    GROUP BY 1, 2, 3, 4, 5, 6;
$$;

-- An attempt may end, or be corrected, long after its time was summed up. 23 hours: sums are made
-- of what is a day old, and the clocks of processes differ by less than an hour.
CREATE FUNCTION llm_integrations.ledger_late() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_slot bigint := NEW.created_us / 900000000 * 900000000;
BEGIN
    IF NEW.created_us < (SELECT until_us FROM llm_integrations.rolled) THEN
        PERFORM llm_integrations.governance_sum(v_slot, v_slot + 900000000);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER ledger_late AFTER UPDATE OF state ON llm_integrations.ledger
FOR EACH ROW WHEN (NEW.settled_us - NEW.created_us > 82800000000)
EXECUTE FUNCTION llm_integrations.ledger_late();

-- Sums up the oldest rows that are not, of whole slots before `p_before`: about `p_cap` rows, so
-- that nobody waits long. Returns how many rows; 0 when there is nothing left to do.
CREATE FUNCTION llm_integrations.governance_roll_up(p_before bigint, p_cap bigint) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    v_until bigint;
    v_end bigint := p_before / 900000000 * 900000000;
    v_last bigint;
    v_rows bigint;
BEGIN
    SELECT until_us INTO v_until FROM llm_integrations.rolled FOR UPDATE;
    IF v_end <= v_until THEN
        RETURN 0;
    END IF;
    SELECT created_us INTO v_last FROM llm_integrations.ledger
    WHERE created_us >= v_until AND created_us < v_end
    ORDER BY created_us OFFSET p_cap - 1 LIMIT 1;
    v_end := least(v_end, coalesce(v_last / 900000000 * 900000000 + 900000000, v_end));
    SELECT count(*) INTO v_rows FROM llm_integrations.ledger
    WHERE created_us >= v_until AND created_us < v_end;
    PERFORM llm_integrations.governance_sum(v_until, v_end);
    UPDATE llm_integrations.rolled SET until_us = v_end;
    RETURN v_rows;
END $$;

-- Deletes the oldest rows of whole slots before `p_before` that are summed up, about `p_cap` of
-- them; never a slot with an attempt that is still on its way. Returns how many rows.
CREATE FUNCTION llm_integrations.governance_forget(p_before bigint, p_cap bigint) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    v_end bigint;
    v_last bigint;
    v_rows bigint;
BEGIN
    SELECT least(until_us, p_before) INTO v_end FROM llm_integrations.rolled FOR UPDATE;
    SELECT least(v_end, min(created_us)) / 900000000 * 900000000 INTO v_end
    FROM llm_integrations.ledger WHERE state = 'held';
    SELECT created_us INTO v_last FROM llm_integrations.ledger
    WHERE created_us < v_end ORDER BY created_us OFFSET p_cap - 1 LIMIT 1;
    v_end := least(v_end, coalesce(v_last / 900000000 * 900000000 + 900000000, v_end));
    DELETE FROM llm_integrations.ledger WHERE created_us < v_end;
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    UPDATE llm_integrations.rolled SET forgotten_us = greatest(forgotten_us, v_end);
    RETURN v_rows;
END $$;
