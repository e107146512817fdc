-- Ledger, budgets, owners and kept answers. Money is integer pico-USD, time is integer
-- microseconds since 1970-01-01 UTC.

CREATE TABLE llm_integrations.ledger (
    call_id       text NOT NULL,
    attempt       integer NOT NULL,
    owner         text NOT NULL,
    grp           text NOT NULL,
    state         text NOT NULL,
    model         text NOT NULL,
    served        text NOT NULL DEFAULT '',
    request_id    text NOT NULL DEFAULT '',
    hold_pusd     bigint,
    cost_pusd     bigint,
    charged_pusd  bigint NOT NULL DEFAULT 0,
    price_version text NOT NULL,
    counters      text NOT NULL DEFAULT '{}',
    raw           bytea NOT NULL DEFAULT '',
    tags          jsonb NOT NULL,
    issue         text,
    delivery      text,
    windows       bigint[] NOT NULL,
    created_us    bigint NOT NULL,
    settled_us    bigint,
    latency_ms    bigint,
    ttft_ms       bigint,
    PRIMARY KEY (call_id, attempt)
);
CREATE INDEX ledger_created ON llm_integrations.ledger (created_us);
CREATE INDEX ledger_held ON llm_integrations.ledger (owner) WHERE state = 'held';
CREATE INDEX ledger_issue ON llm_integrations.ledger (issue) WHERE issue IS NOT NULL;
CREATE INDEX ledger_delivery ON llm_integrations.ledger (delivery) WHERE delivery IS NOT NULL;

CREATE TABLE llm_integrations.budget (
    name       text PRIMARY KEY,
    limit_pusd bigint NOT NULL,
    span       text NOT NULL,
    tag        text,
    zone       text NOT NULL,
    hard       boolean NOT NULL
);

-- A few rows that every call updates: room on the page keeps those updates in place.
CREATE TABLE llm_integrations.budget_window (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    budget     text NOT NULL,
    key        text NOT NULL,
    start_us   bigint NOT NULL,
    end_us     bigint NOT NULL,
    spent_pusd bigint NOT NULL DEFAULT 0,
    held_pusd  bigint NOT NULL DEFAULT 0,
    UNIQUE (budget, key, start_us, end_us)
) WITH (fillfactor = 50);

CREATE TABLE llm_integrations.ledger_owner (
    id         text PRIMARY KEY,
    expires_at timestamptz NOT NULL
);

CREATE TABLE llm_integrations.checkpoint (
    scope      text NOT NULL,
    name       text NOT NULL,
    result     bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (scope, name)
);

-- Begins a transaction of a writer. Writers take turns, since each books for many callers at once
-- and would otherwise lock the same windows in different orders. No turn may last.
CREATE FUNCTION llm_integrations.governance_turn() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true),
            set_config('lock_timeout', '5s', true),
            set_config('idle_in_transaction_session_timeout', '5s', true);
    PERFORM pg_advisory_xact_lock(1819045737, 1);
END $$;

-- Claims the hold in all windows and writes the row; or changes nothing and returns the window
-- that refused. `p_guard` is what a hard budget must have left; `p_windows` is an array of objects
-- like {"budget": "cap", "key": "", "start_us": 0, "end_us": 1}.
CREATE FUNCTION llm_integrations.governance_hold(
    p_call_id text, p_attempt integer, p_owner text, p_grp text, p_model text,
    p_hold bigint, p_guard bigint, p_price_version text, p_tags jsonb,
    p_issue text, p_delivery text, p_created_us bigint,
    p_windows jsonb
) RETURNS TABLE (r_budget text, r_key text, r_end_us bigint, r_left bigint)
LANGUAGE plpgsql AS $$
DECLARE
    v_windows bigint[] := '{}';
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

        SELECT coalesce(array_agg(locked.id), '{}') INTO v_windows FROM (
            SELECT w.id
            FROM llm_integrations.budget_window w
            JOIN jsonb_to_recordset(p_windows)
                 AS c (budget text, key text, start_us bigint, end_us bigint)
                ON (w.budget, w.key, w.start_us, w.end_us)
                 = (c.budget, c.key, c.start_us, c.end_us)
            ORDER BY w.budget, w.key, w.start_us, w.end_us
            FOR UPDATE OF w
        ) AS locked;

        RETURN QUERY
            SELECT w.budget, w.key, w.end_us,
                   greatest(0, b.limit_pusd - w.spent_pusd - w.held_pusd)
            FROM llm_integrations.budget_window w
            JOIN llm_integrations.budget b ON b.name = w.budget
            WHERE w.id = ANY (v_windows) AND b.hard
              AND b.limit_pusd - w.spent_pusd - w.held_pusd < p_guard
            ORDER BY 4, 1 LIMIT 1;
        IF FOUND THEN
            RETURN;
        END IF;
        UPDATE llm_integrations.budget_window SET held_pusd = held_pusd + coalesce(p_hold, 0)
        WHERE id = ANY (v_windows);
    END IF;
    INSERT INTO llm_integrations.ledger (call_id, attempt, owner, grp, state, model, hold_pusd,
        price_version, tags, issue, delivery, windows, created_us)
    VALUES (p_call_id, p_attempt, p_owner, p_grp, 'held', p_model, p_hold,
        p_price_version, p_tags, p_issue, p_delivery, v_windows, p_created_us);
END $$;

-- Books the end of an attempt once; only "unknown" may be corrected. Returns whether it did.
CREATE FUNCTION llm_integrations.governance_settle(
    p_call_id text, p_attempt integer, p_state text, p_settled_us bigint, p_cost bigint,
    p_served text, p_request_id text, p_counters text, p_raw bytea,
    p_latency_ms bigint, p_ttft_ms bigint, p_scope text, p_name text, p_result bytea
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_row record;
    v_charged bigint;
BEGIN
    SELECT state, coalesce(hold_pusd, 0) AS hold, charged_pusd, windows INTO v_row
    FROM llm_integrations.ledger WHERE call_id = p_call_id AND attempt = p_attempt FOR UPDATE;
    IF NOT FOUND OR v_row.state NOT IN ('held', 'unknown')
       OR (v_row.state = 'unknown' AND p_state = 'unknown') THEN
        RETURN false;
    END IF;
    v_charged := coalesce(
        p_cost, CASE WHEN p_state IN ('refused', 'released') THEN 0 ELSE v_row.hold END);
    UPDATE llm_integrations.ledger SET state = p_state, cost_pusd = p_cost,
        charged_pusd = v_charged, served = p_served, request_id = p_request_id,
        counters = p_counters, raw = p_raw, settled_us = p_settled_us,
        latency_ms = p_latency_ms, ttft_ms = p_ttft_ms
    WHERE call_id = p_call_id AND attempt = p_attempt;
    IF cardinality(v_row.windows) > 0 THEN
        UPDATE llm_integrations.budget_window
        SET held_pusd = held_pusd - CASE WHEN v_row.state = 'held' THEN v_row.hold ELSE 0 END,
            spent_pusd = spent_pusd + v_charged - v_row.charged_pusd
        WHERE id = ANY (v_row.windows);
    END IF;
    IF p_scope IS NOT NULL THEN
        INSERT INTO llm_integrations.checkpoint (scope, name, result)
        VALUES (p_scope, p_name, p_result) ON CONFLICT DO NOTHING;
    END IF;
    RETURN true;
END $$;

-- Books as "unknown" what owners without a living lease still hold. Leases run on server time.
CREATE FUNCTION llm_integrations.governance_sweep(p_now_us bigint) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    v_count bigint;
BEGIN
    DELETE FROM llm_integrations.ledger_owner WHERE expires_at <= clock_timestamp();
    SELECT count(llm_integrations.governance_settle(
        lost.call_id, lost.attempt, 'unknown', p_now_us, NULL, '', '', '{}', '', NULL, NULL,
        NULL, NULL, NULL)) INTO v_count
    FROM (
        SELECT l.call_id, l.attempt FROM llm_integrations.ledger l
        WHERE l.state = 'held'
          AND NOT EXISTS (SELECT FROM llm_integrations.ledger_owner o WHERE o.id = l.owner)
        OFFSET 0
    ) AS lost;
    RETURN v_count;
END $$;
