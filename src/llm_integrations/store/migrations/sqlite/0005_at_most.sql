-- A stream that was cut may have been billed more than came of it. `at_most_pusd` is the most, where
-- that is more than the row is charged; `unsure_pusd` adds the differences up. Budgets that are hard
-- and reserve the bound count both. Rows of before have none: their windows stay as they were.

ALTER TABLE ledger ADD COLUMN at_most_pusd INTEGER;
ALTER TABLE budget_window ADD COLUMN unsure_pusd INTEGER NOT NULL DEFAULT 0;
