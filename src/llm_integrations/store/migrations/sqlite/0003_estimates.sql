-- Budgets that hold what a call will likely cost, and how much of a window people were told of.
-- `estimated` names those of the row's windows that hold `estimate_pusd` instead of the hold.

ALTER TABLE budget ADD COLUMN reserve TEXT NOT NULL DEFAULT 'bound';
ALTER TABLE budget_window ADD COLUMN alerted_percent INTEGER NOT NULL DEFAULT 0;
ALTER TABLE ledger ADD COLUMN estimate_pusd INTEGER;
ALTER TABLE ledger ADD COLUMN estimated TEXT;
