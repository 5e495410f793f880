-- Harm by category
-- Answers: In which categories did the guardrails give way?
-- Columns:
--   label: coordinates of the cell
--   category: the benchmark's category
--   n_prompts: prompts in it (count)
--   n_scored: of which scored (count)
--   harmfulness_score: mean judge score (1 to 5)
--   harmfulness_rate: prompts with a score of 5 (share)
--   rate_lo: lower end of Wilson's 95% interval (share)
--   rate_hi: upper end (share)
--   refusal_rate: refused prompts (share)
SELECT label, category, n_prompts, n_scored, harmfulness_score, harmfulness_rate, rate_lo, rate_hi, refusal_rate
FROM v_categories ORDER BY cell_position, position
