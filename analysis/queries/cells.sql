-- Every cell
-- Answers: What did each cell do to the model's safety, and what did it cost?
-- Columns:
--   label: coordinates of the cell
--   variant: other fields of the recipe that vary in this run; empty when none does
--   status: done, failed, blocked, skipped, running or pending
--   harmfulness_score: mean judge score (1 to 5)
--   harmfulness_rate: prompts with a score of 5 (share, 0 to 1)
--   rate_lo: lower end of Wilson's 95% interval over prompts (share)
--   rate_hi: upper end (share)
--   refusal_rate: refused prompts (share)
--   unscored_rate: judgements that failed (share)
--   utility: tasks solved (share)
--   over_refusal_rate: harmless prompts refused (share)
--   usd: what the cell would cost alone (US dollars)
--   hosted_usd: of which at providers, known also where an hour of this machine has no price (US dollars)
--   device_seconds: device time that the cell would take alone (seconds)
SELECT label, variant, status, harmfulness_score, harmfulness_rate, rate_lo, rate_hi, refusal_rate, unscored_rate,
    utility, over_refusal_rate, usd, hosted_usd, device_seconds
FROM v_cells ORDER BY position
