-- What operators ask for, at a cost that does not grow with what has ended; and what was forgotten.

-- The youngest generation of a delivery tells its state. It knows its delivery's place, so that
-- "the newest dead ones" is a walk along one index.
ALTER TABLE llm_integrations.run
    ADD COLUMN seq bigint,
    ADD COLUMN is_last boolean NOT NULL DEFAULT true,
    ADD COLUMN forgotten_at timestamptz;    -- since then its body and its texts are gone
UPDATE llm_integrations.run r
SET seq = i.seq,
    is_last = NOT EXISTS (SELECT FROM llm_integrations.run later
                          WHERE later.delivery_id = r.delivery_id
                            AND later.generation > r.generation)
FROM llm_integrations.inbox i WHERE i.delivery_id = r.delivery_id;
ALTER TABLE llm_integrations.run ALTER COLUMN seq SET NOT NULL;
CREATE INDEX run_outcome ON llm_integrations.run (outcome, seq) WHERE is_last;

-- What retention has still to do, the oldest first; nothing else asks for the time of an end.
DROP INDEX llm_integrations.run_ended_at;
CREATE INDEX run_to_forget ON llm_integrations.run (ended_at)
    WHERE is_last AND forgotten_at IS NULL AND outcome IS NOT NULL;

CREATE INDEX inbox_issue_key ON llm_integrations.inbox (issue_key, seq);
CREATE INDEX inbox_issue_id ON llm_integrations.inbox (issue_id) WHERE issue_id <> '';

-- Who paused the fleet, and why.
ALTER TABLE llm_integrations.switch
    ADD COLUMN reason text NOT NULL DEFAULT '',
    ADD COLUMN changed_by text NOT NULL DEFAULT '';
