-- The service's own tables: what arrived, what became of it, what was written to Jira.
-- DBOS keeps queue and workflow state in its own schema; nothing here repeats it.

CREATE SCHEMA IF NOT EXISTS llm_integrations;

-- One row per distinct delivery, written once by the receiver and never changed.
CREATE TABLE llm_integrations.inbox (
    seq         bigint GENERATED ALWAYS AS IDENTITY,
    delivery_id text PRIMARY KEY,
    site        text NOT NULL,
    identifier  text NOT NULL,          -- the sender's own name for it, or "sha256:..."
    partition   text NOT NULL,          -- what must stay in order
    event_name  text NOT NULL,
    issue_id    text NOT NULL,
    issue_key   text NOT NULL,
    project_key text NOT NULL,
    actor_id    text NOT NULL,
    occurred_ms bigint,                 -- the event's own timestamp; Unix milliseconds
    handler     text NOT NULL,          -- where it was routed on arrival; '' for nowhere
    body        bytea NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now()
);
-- JSON bodies are read whole and seldom: compressing them only costs the receiver time.
ALTER TABLE llm_integrations.inbox ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX inbox_seq ON llm_integrations.inbox (seq);
CREATE INDEX inbox_partition ON llm_integrations.inbox (partition, seq);

-- One row per generation of a delivery, from its first failure or its end. Replaying makes a new
-- generation. The one outcome of a generation is set once, never changed.
CREATE TABLE llm_integrations.run (
    delivery_id text NOT NULL REFERENCES llm_integrations.inbox ON DELETE CASCADE,
    generation  integer NOT NULL,
    scope       text NOT NULL,          -- names its checkpoints and actions
    handler     text NOT NULL DEFAULT '',
    failures    integer NOT NULL DEFAULT 0,
    wake_at     timestamptz,            -- not before then, after a failure
    last_error  text NOT NULL DEFAULT '',
    outcome     text CHECK (outcome IN
                    ('done', 'proposed', 'ignored', 'superseded', 'stale', 'dead')),
    reason      text NOT NULL DEFAULT '',
    ended_at    timestamptz,
    PRIMARY KEY (delivery_id, generation),
    CHECK ((outcome IS NULL) = (ended_at IS NULL))
);
CREATE INDEX run_ended_at ON llm_integrations.run (ended_at);

-- The newest event that a handler has finished, per partition: what is older is stale.
CREATE TABLE llm_integrations.handled (
    partition   text NOT NULL,
    handler     text NOT NULL,
    occurred_ms bigint NOT NULL,
    PRIMARY KEY (partition, handler)
);

-- What a handler decided, stored before any of it is carried out.
CREATE TABLE llm_integrations.decision (
    scope       text PRIMARY KEY,
    delivery_id text NOT NULL REFERENCES llm_integrations.inbox ON DELETE CASCADE,
    actions     bytea NOT NULL,
    decided_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX decision_delivery ON llm_integrations.decision (delivery_id);

-- What became of each action of a decision. "sending" may have arrived: look before sending again.
CREATE TABLE llm_integrations.action (
    scope       text NOT NULL,
    position    integer NOT NULL,
    delivery_id text NOT NULL REFERENCES llm_integrations.inbox ON DELETE CASCADE,
    partition   text NOT NULL,
    name        text NOT NULL,
    summary     text NOT NULL,
    fields      text[] NOT NULL,        -- Jira fields it sets: the echo of them is our own write
    state       text NOT NULL
                    CHECK (state IN ('sending', 'sent', 'proposed', 'refused')),
    reason      text NOT NULL DEFAULT '',
    result_id   text NOT NULL DEFAULT '',
    changed_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (scope, position)
);
CREATE INDEX action_partition ON llm_integrations.action (partition, changed_at);
CREATE INDEX action_delivery ON llm_integrations.action (delivery_id);

-- Facts that hold for the whole fleet; present or not.
CREATE TABLE llm_integrations.switch (
    name       text PRIMARY KEY,
    changed_at timestamptz NOT NULL DEFAULT now()
);

-- Every worker that may own workflows. Alive is who holds the advisory lock of its name.
CREATE TABLE llm_integrations.worker (
    executor_id text PRIMARY KEY,
    started_at  timestamptz NOT NULL DEFAULT now(),
    left_at     timestamptz,            -- set when it went on purpose
    emptied_at  timestamptz             -- set when nothing was left to take over from it
);

-- Which workflow was running when which worker died: to find the one that kills workers.
CREATE TABLE llm_integrations.death (
    workflow_id text NOT NULL,
    executor_id text NOT NULL,
    on_trial    boolean NOT NULL,
    died_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workflow_id, executor_id)
);

-- The one suspect that the fleet is trying now, if any.
CREATE TABLE llm_integrations.trial (
    is_only     boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    workflow_id text NOT NULL,
    began_at    timestamptz NOT NULL DEFAULT now()
);
