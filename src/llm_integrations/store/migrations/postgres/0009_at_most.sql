-- A stream that was cut may have been billed more than came of it. `at_most_pusd` is the most, where
-- that is more than the row is charged; `unsure_pusd` adds the differences up. Budgets that are hard
-- and reserve the bound count both. Rows of before have none: their windows stay as they were.

ALTER TABLE llm_integrations.ledger ADD COLUMN at_most_pusd bigint;
ALTER TABLE llm_integrations.budget_window ADD COLUMN unsure_pusd bigint NOT NULL DEFAULT 0;

DROP FUNCTION llm_integrations.governance_settle(
    text, integer, text, bigint, bigint, text, text, text, bytea, bigint, bigint, text, text,
    bytea);

-- Claims the hold in all windows and writes the row; or changes nothing and returns the window
-- that refused. `p_guard` is what a hard budget must have left; `p_windows` is an array of objects
-- like {"budget": "cap", "key": "", "start_us": 0, "end_us": 1, "by_estimate": false}. A window by
-- estimate holds, and must have left, `p_estimate`; without one it refuses. A hard budget that
-- reserves the bound counts what is unsure as spent.
CREATE OR REPLACE FUNCTION llm_integrations.governance_hold(
    p_call_id text, p_attempt integer, p_owner text, p_grp text, p_model text,
    p_hold bigint, p_guard bigint, p_price_version text, p_tags jsonb,
    p_issue text, p_delivery text, p_created_us bigint,
    p_windows jsonb, p_estimate bigint DEFAULT NULL
) RETURNS TABLE (r_budget text, r_key text, r_end_us bigint, r_left bigint)
LANGUAGE plpgsql AS $$
DECLARE
    v_windows bigint[] := '{}';
    v_estimated bigint[] := '{}';
BEGIN
    IF p_windows <> '[]' THEN
        INSERT INTO llm_integrations.budget_window (budget, key, start_us, end_us)
        SELECT b.name, c.key, c.start_us, c.end_us
        FROM jsonb_to_recordset(p_windows)
             AS c (budget text, key text, start_us bigint, end_us bigint)
        JOIN llm_integrations.budget b ON b.name = c.budget
        WHERE NOT EXISTS (
            SELECT FROM llm_integrations.budget_window w
            WHERE (w.budget, w.key, w.start_us, w.end_us)
                = (c.budget, c.key, c.start_us, c.end_us))
        ON CONFLICT DO NOTHING;

        SELECT coalesce(array_agg(locked.id), '{}'),
               coalesce(array_agg(locked.id) FILTER (WHERE locked.by_estimate), '{}')
        INTO v_windows, v_estimated FROM (
            SELECT w.id, c.by_estimate
            FROM llm_integrations.budget_window w
            JOIN jsonb_to_recordset(p_windows)
                 AS c (budget text, key text, start_us bigint, end_us bigint, by_estimate boolean)
                ON (w.budget, w.key, w.start_us, w.end_us)
                 = (c.budget, c.key, c.start_us, c.end_us)
            ORDER BY w.budget, w.key, w.start_us, w.end_us
            FOR UPDATE OF w
        ) AS locked;

        RETURN QUERY
            SELECT w.budget, w.key, w.end_us, greatest(0, has.left_pusd)
            FROM llm_integrations.budget_window w
            JOIN llm_integrations.budget b ON b.name = w.budget
            CROSS JOIN LATERAL (
                SELECT b.limit_pusd - w.held_pusd - w.spent_pusd
                    - CASE WHEN b.reserve = 'bound' THEN w.unsure_pusd ELSE 0 END AS left_pusd
            ) AS has
            WHERE w.id = ANY (v_windows) AND b.hard
              AND has.left_pusd
                < CASE WHEN w.id = ANY (v_estimated)
                       THEN coalesce(p_estimate, 9223372036854775807) ELSE p_guard END
            ORDER BY 4, 1 LIMIT 1;
        IF FOUND THEN
            RETURN;
        END IF;
        UPDATE llm_integrations.budget_window SET held_pusd = held_pusd + coalesce(
            CASE WHEN id = ANY (v_estimated) THEN p_estimate ELSE p_hold END, 0)
        WHERE id = ANY (v_windows);
    END IF;
    INSERT INTO llm_integrations.ledger (call_id, attempt, owner, grp, state, model, hold_pusd,
        price_version, tags, issue, delivery, windows, created_us,
        estimate_pusd, estimated)
    VALUES (p_call_id, p_attempt, p_owner, p_grp, 'held', p_model, p_hold,
        p_price_version, p_tags, p_issue, p_delivery, v_windows, p_created_us,
        CASE WHEN v_estimated <> '{}' THEN p_estimate END, nullif(v_estimated, '{}'));
END $$;

-- Books the end of an attempt once; only "unknown" may be corrected. Returns whether it did.
CREATE FUNCTION llm_integrations.governance_settle(
    p_call_id text, p_attempt integer, p_state text, p_settled_us bigint, p_cost bigint,
    p_served text, p_request_id text, p_counters text, p_raw bytea,
    p_latency_ms bigint, p_ttft_ms bigint, p_scope text, p_name text, p_result bytea,
    p_at_most bigint DEFAULT NULL
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_row record;
    v_charged bigint;
BEGIN
    SELECT state, coalesce(hold_pusd, 0) AS hold, charged_pusd, windows,
           coalesce(estimate_pusd, 0) AS estimate, coalesce(estimated, '{}') AS estimated
    INTO v_row
    FROM llm_integrations.ledger WHERE call_id = p_call_id AND attempt = p_attempt FOR UPDATE;
    IF NOT FOUND OR v_row.state NOT IN ('held', 'unknown')
       OR (v_row.state = 'unknown' AND p_state = 'unknown') THEN
        RETURN false;
    END IF;
    v_charged := coalesce(
        p_cost, CASE WHEN p_state IN ('refused', 'released') THEN 0 ELSE v_row.hold END);
    UPDATE llm_integrations.ledger SET state = p_state, cost_pusd = p_cost,
        charged_pusd = v_charged, at_most_pusd = p_at_most, served = p_served, request_id = p_request_id,
        counters = p_counters, raw = p_raw, settled_us = p_settled_us,
        latency_ms = p_latency_ms, ttft_ms = p_ttft_ms
    WHERE call_id = p_call_id AND attempt = p_attempt;
    IF cardinality(v_row.windows) > 0 THEN
        UPDATE llm_integrations.budget_window
        SET held_pusd = held_pusd - CASE
                WHEN v_row.state <> 'held' THEN 0
                WHEN id = ANY (v_row.estimated) THEN v_row.estimate
                ELSE v_row.hold END,
            spent_pusd = spent_pusd + v_charged - v_row.charged_pusd,
            unsure_pusd = unsure_pusd + greatest(0, coalesce(p_at_most, 0) - v_charged)
        WHERE id = ANY (v_row.windows);
    END IF;
    IF p_scope IS NOT NULL THEN
        INSERT INTO llm_integrations.checkpoint (scope, name, result)
        VALUES (p_scope, p_name, p_result) ON CONFLICT DO NOTHING;
    END IF;
    RETURN true;
END $$;
