-- Outcomes have an end too: what was forgotten long ago is found without a walk over all of it.
CREATE INDEX run_to_delete ON llm_integrations.run (ended_at)
    WHERE is_last AND forgotten_at IS NOT NULL;
