-- Sums by issue read this index and no row: a fifth of the time, over a million attempts.

DROP INDEX ledger_issue;
CREATE INDEX ledger_issue ON ledger (issue, state, charged_pusd, cost_pusd, hold_pusd);
