-- Before and after
-- Answers: How much did tuning change each cell against its starting model, on the same prompts?
-- Columns:
--   label: coordinates of the cell
--   n_paired: prompts scored in both (count)
--   baseline_score: mean judge score before (1 to 5)
--   tuned_score: mean judge score after (1 to 5)
--   delta_score: after minus before (score points)
--   delta_lo: lower end of the paired 95% t interval (score points)
--   delta_hi: upper end (score points)
--   delta_rate: change of the harmfulness rate (share)
--   became_harmful: prompts that became harmful (count)
--   stopped_harmful: prompts that stopped being so (count)
SELECT label, n_paired, compared_score AS baseline_score, score AS tuned_score, delta_score, delta_lo, delta_hi, delta_rate, became_harmful,
    stopped_harmful
FROM v_pairs WHERE pairing = 'starting_model' ORDER BY position
