-- OAuth grants, sealed by the program: the key is never in the database.

CREATE TABLE llm_integrations.oauth_grant (
    name       text PRIMARY KEY,
    sealed     bytea NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);
