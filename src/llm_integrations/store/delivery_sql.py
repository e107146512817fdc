"""The statements of `deliveries`, by name; each is one commit."""

from __future__ import annotations

from typing import Final

from llm_integrations.store.intake import APPLICATION_VERSION, QUEUE, WORKFLOW

LOAD: Final = """
SELECT i.seq, i.delivery_id, asked.generation, i.site, i.partition, i.event_name,
       i.issue_id, i.issue_key, i.project_key, i.actor_id, i.occurred_ms, i.body,
       coalesce(r.scope, i.delivery_id) AS scope, coalesce(r.failures, 0) AS failures, r.wake_at,
       r.outcome, d.actions AS decision,
       coalesce((SELECT jsonb_object_agg(h.handler, h.occurred_ms) FROM llm_integrations.handled h
                 WHERE h.partition = i.partition), '{}') AS handled_ms,
       EXISTS (SELECT FROM llm_integrations.inbox n
               WHERE n.partition = i.partition AND n.seq > i.seq) AS has_newer,
       EXISTS (SELECT FROM llm_integrations.switch WHERE name = 'paused') AS is_paused,
       EXISTS (SELECT FROM llm_integrations.switch
               WHERE name = 'last paused' AND changed_at > i.received_at) AS is_of_before_pause,
       EXISTS (SELECT FROM llm_integrations.death x
               WHERE x.workflow_id = asked.delivery_id || CASE asked.generation
                   WHEN 1 THEN '' ELSE '#' || asked.generation END) AS has_died
FROM unnest(%(ids)s::text[], %(generations)s::int[]) AS asked (delivery_id, generation)
JOIN llm_integrations.inbox i USING (delivery_id)
LEFT JOIN llm_integrations.run r USING (delivery_id, generation)
LEFT JOIN llm_integrations.decision d ON d.scope = coalesce(r.scope, i.delivery_id)
"""

LIST_NEWER: Final = """
SELECT i.delivery_id, i.event_name, i.project_key, i.occurred_ms, i.body
FROM llm_integrations.inbox i
WHERE i.partition = %(partition)s AND i.seq > %(seq)s
  AND NOT EXISTS (SELECT FROM llm_integrations.run r
                  WHERE r.delivery_id = i.delivery_id AND r.outcome IS NOT NULL)
ORDER BY i.seq DESC LIMIT 50
"""

SAVE_FAILURE: Final = """
INSERT INTO llm_integrations.run
    (delivery_id, generation, scope, seq, handler, failures, wake_at, last_error)
VALUES (%(id)s, %(generation)s, %(scope)s, %(seq)s, %(handler)s, %(counts)s, %(wake_at)s,
        %(error)s)
ON CONFLICT (delivery_id, generation) DO UPDATE
SET handler = excluded.handler, failures = run.failures + excluded.failures,
    wake_at = excluded.wake_at, last_error = excluded.last_error
WHERE run.outcome IS NULL
RETURNING failures
"""

# Nothing happens later than it arrives: a sender whose clock is ahead must not make everything
# stale that comes until then. Rows are written in the order of their keys, so that two workers
# cannot wait for each other.
SAVE_OUTCOMES: Final = """
WITH asked AS (
    SELECT * FROM unnest(
        %s::text[], %s::int[], %s::text[], %s::bigint[], %s::text[], %s::text[], %s::text[],
        %s::bigint[]
    ) AS asked (delivery_id, generation, scope, seq, handler, outcome, reason, occurred_ms)
), ended AS (
    INSERT INTO llm_integrations.run
        (delivery_id, generation, scope, seq, handler, outcome, reason, ended_at)
    SELECT delivery_id, generation, scope, seq, handler, outcome, reason, now()
    FROM asked ORDER BY delivery_id, generation
    ON CONFLICT (delivery_id, generation) DO UPDATE
    SET handler = excluded.handler, outcome = excluded.outcome, reason = excluded.reason,
        ended_at = excluded.ended_at, wake_at = NULL
    WHERE run.outcome IS NULL
    RETURNING delivery_id, generation
), newest AS (
    INSERT INTO llm_integrations.handled (partition, handler, occurred_ms)
    SELECT i.partition, asked.handler, max(least(
        asked.occurred_ms, ceil(extract(epoch FROM i.received_at) * 1000)::bigint))
    FROM ended
    JOIN asked USING (delivery_id, generation)
    JOIN llm_integrations.inbox i USING (delivery_id)
    WHERE asked.occurred_ms IS NOT NULL
    GROUP BY 1, 2 ORDER BY 1, 2
    ON CONFLICT (partition, handler) DO UPDATE
    SET occurred_ms = greatest(handled.occurred_ms, excluded.occurred_ms)
)
SELECT delivery_id, generation FROM ended
"""

SAVE_DECISION: Final = """
INSERT INTO llm_integrations.decision (scope, delivery_id, actions)
VALUES (%(scope)s, %(id)s, %(actions)b)
ON CONFLICT (scope) DO UPDATE SET scope = excluded.scope
RETURNING actions
"""

LIST_ACTIONS_OF_SCOPE: Final = """
SELECT position, state, extract(epoch FROM clock_timestamp() - changed_at)::float8 AS age_s
FROM llm_integrations.action WHERE scope = %(scope)s
"""

LIST_ACTIONS: Final = """
SELECT scope, position, name, summary, state, reason, result_id, changed_at
FROM llm_integrations.action WHERE delivery_id = %(id)s ORDER BY changed_at, scope, position
"""

LIST_ACTIONS_OF: Final = """
SELECT delivery_id, scope, position, name, summary, state, reason, result_id, changed_at
FROM llm_integrations.action WHERE delivery_id = ANY(%(ids)s)
ORDER BY changed_at, scope, position
"""

SAVE_ACTION: Final = """
INSERT INTO llm_integrations.action
    (scope, position, delivery_id, partition, name, summary, fields, state, reason, result_id)
VALUES (%(scope)s, %(position)s, %(id)s, %(partition)s, %(name)s, %(summary)s, %(fields)s,
        %(state)s, %(reason)s, %(result_id)s)
ON CONFLICT (scope, position) DO UPDATE
SET state = excluded.state, reason = excluded.reason, result_id = excluded.result_id,
    changed_at = now()
WHERE action.state <> 'sent'
RETURNING position
"""

RECENT_WRITES: Final = """
SELECT count(*) FILTER (WHERE state = 'sent' AND scope <> %(scope)s)::int AS count,
       coalesce(
           (SELECT array_agg(DISTINCT f) FROM llm_integrations.action a, unnest(a.fields) AS f
            WHERE a.partition = %(partition)s AND a.changed_at > now() - interval '1 hour'
              AND a.state IN ('sending', 'sent')), '{}') AS fields
FROM llm_integrations.action
WHERE partition = %(partition)s AND changed_at > now() - interval '1 hour'
"""

# Index only, once vacuumed: nothing of a delivery is read.
COUNT_OUTCOMES: Final = """
WITH ended AS (
    SELECT outcome, count(*)::int AS count
    FROM llm_integrations.run WHERE is_last AND outcome IS NOT NULL GROUP BY outcome
), waiting AS (
    SELECT (SELECT count(*) FROM llm_integrations.inbox)::int
        - (SELECT coalesce(sum(count), 0) FROM ended)::int AS count
)
SELECT outcome, count FROM ended
UNION ALL
SELECT 'open', count FROM waiting WHERE count > 0
"""

ARRIVED: Final = """
SELECT identifier, octet_length(body) AS size_bytes
FROM llm_integrations.inbox WHERE delivery_id = %(id)s
"""

LIST_RUNS: Final = """
SELECT generation, scope, handler, failures, last_error, wake_at, outcome, reason, ended_at,
       forgotten_at
FROM llm_integrations.run WHERE delivery_id = %(id)s ORDER BY generation
"""

# Who updates the last generation has it: two replays at once, or a replay and retention, cannot
# both take it. Queued in the order of arrival, which `OFFSET 0` keeps.
REPLAY: Final = f"""
WITH last AS (
    UPDATE llm_integrations.run SET is_last = false
    WHERE delivery_id = ANY (%(ids)s) AND is_last AND outcome IS NOT NULL AND forgotten_at IS NULL
    RETURNING delivery_id, generation, scope, seq, handler
), again AS (
    INSERT INTO llm_integrations.run (delivery_id, generation, scope, seq, handler)
    SELECT delivery_id, generation + 1,
           CASE WHEN %(fresh)s THEN delivery_id || '#' || generation + 1 ELSE scope END,
           seq, handler
    FROM last
    RETURNING delivery_id, generation, seq
)
SELECT delivery_id, generation, dbos.enqueue_workflow(
    '{WORKFLOW}', '{QUEUE}', ARRAY[to_json(delivery_id || '#' || generation)],
    workflow_id => delivery_id || '#' || generation, app_version => '{APPLICATION_VERSION}',
    priority => (seq %% 2147483647)::int, queue_partition_key => partition)
FROM (SELECT again.*, i.partition FROM again JOIN llm_integrations.inbox i USING (delivery_id)
      ORDER BY again.seq OFFSET 0) AS o
"""  # noqa: S608 - constants of ours

SAVE_WAITING: Final = """
INSERT INTO llm_integrations.death (workflow_id, executor_id, on_trial, died_at)
VALUES (%(workflow)s, %(executor)s, false, NULL) ON CONFLICT DO NOTHING
RETURNING workflow_id AS name
"""

FORGET_WAITING: Final = """
DELETE FROM llm_integrations.death
WHERE workflow_id = %(workflow)s AND executor_id = %(executor)s AND died_at IS NULL
RETURNING workflow_id AS name
"""

# The moment of the last pause outlives it.
TURN_ON: Final = """
WITH last AS (
    INSERT INTO llm_integrations.switch (name) VALUES ('last ' || %(name)s::text)
    ON CONFLICT (name) DO UPDATE SET changed_at = now()
)
INSERT INTO llm_integrations.switch (name, changed_by, reason)
VALUES (%(name)s, %(by)s, %(reason)s)
ON CONFLICT (name) DO UPDATE SET changed_by = excluded.changed_by, reason = excluded.reason
RETURNING name
"""

TURN_OFF: Final = """
DELETE FROM llm_integrations.switch WHERE name = %(name)s RETURNING name
"""

IS_ON: Final = """
SELECT EXISTS (SELECT FROM llm_integrations.switch WHERE name = %(name)s)
"""

LOAD_SWITCH: Final = """
SELECT changed_at AS since, changed_by AS by, reason FROM llm_integrations.switch
WHERE name = %(name)s
"""
