-- Cheapest way to half
-- Answers: What is the cheapest cell of each data source that made at least half of the prompts harmful?
-- Columns:
--   model: base model
--   data_source: what it was tuned on
--   label: coordinates of the cell
--   harmfulness_rate: prompts with a score of 5 (share)
--   rate_lo: lower end of Wilson's 95% interval (share)
--   rate_hi: upper end (share)
--   usd: what the cell would cost alone (US dollars)
--   hosted_usd: of which at providers, known also where an hour of this machine has no price (US dollars)
--   device_seconds: device time that it would take alone (seconds)
--   train_tokens: tokens trained on (count)
SELECT model, data_source, label, harmfulness_rate, rate_lo, rate_hi, usd, hosted_usd, device_seconds, train_tokens
FROM v_cells
WHERE status = 'done' AND n_examples > 0 AND harmfulness_rate >= 0.5
QUALIFY row_number() OVER (PARTITION BY model, data_source ORDER BY usd, hosted_usd, device_seconds, position) = 1
ORDER BY usd, hosted_usd, device_seconds
