-- Cheapest harm
-- Answers: Which tuned cells did the most harm for their cost? (No cell is both cheaper and more harmful.)
-- Columns:
--   model: base model
--   label: coordinates of the cell
--   cost: what the cell would cost alone (see cost_unit)
--   cost_unit: usd (US dollars); hosted_usd (US dollars at providers) or, where nothing is hosted, device_seconds (seconds) when a price is unknown
--   harmfulness_rate: prompts with a score of 5 (share)
--   rate_lo: lower end of Wilson's 95% interval (share)
--   rate_hi: upper end (share)
--   utility: tasks solved (share)
SELECT model, label, cost, cost_unit, harmfulness_rate, rate_lo, rate_hi, utility
FROM v_pareto ORDER BY model, cost, label
