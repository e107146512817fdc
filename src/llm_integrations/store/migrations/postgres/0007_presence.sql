-- A worker's death counts against what it worked on, not against what only waited there for a free
-- handler: a row without a time says that it waited.
ALTER TABLE llm_integrations.death ALTER COLUMN died_at DROP NOT NULL;
