-- What went wrong
-- Answers: Which stages failed, were refused or were skipped, and which judgements gave no score?
-- Columns:
--   problem: stage, or judgement
--   what: failed, blocked or skipped; or a judgement's outcome
--   kind: kind of the stage
--   adapter: what was doing the work
--   n_judgements: judgements without a score (count); empty for stages
--   n_cells: cells touched (count)
--   first_cell: one of them
--   error_type: class of the error
--   error: its message, or the reason
--   raised_at: where it was raised
SELECT problem, what, kind, adapter, n_judgements, n_cells, first_cell, error_type, error, raised_at
FROM v_problems
ORDER BY problem DESC, CASE what WHEN 'failed' THEN 0 WHEN 'blocked' THEN 1 ELSE 2 END, n_cells DESC, stage_key, what
