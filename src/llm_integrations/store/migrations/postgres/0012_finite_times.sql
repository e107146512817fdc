-- "Never" was minus infinity, which PostgreSQL subtracts from version 17 on: before that each turn at
-- a pool of limits was refused, and every process went on with a share of its own.

ALTER TABLE llm_integrations.limit_pool
    ALTER COLUMN learned_at SET DEFAULT 'epoch',
    ALTER COLUMN paused_until SET DEFAULT 'epoch',
    ALTER COLUMN spaced_until SET DEFAULT 'epoch';
UPDATE llm_integrations.limit_pool
SET learned_at = greatest(learned_at, 'epoch'),
    paused_until = greatest(paused_until, 'epoch'),
    spaced_until = greatest(spaced_until, 'epoch');
