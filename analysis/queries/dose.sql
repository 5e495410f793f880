-- Dose and response
-- Answers: How does harm grow with examples, epochs and learning rate, averaged over seeds?
-- Columns:
--   model: base model
--   data_source: what it was tuned on; for the untuned model, its label
--   mitigation: mitigations in force
--   method: lora or full; empty for the untuned model
--   variant: other fields of the recipe that vary in this run; empty when none does
--   n_examples: training examples (count)
--   epochs: passes over them (count); empty where the length is in steps
--   steps: optimizer steps asked for (count); empty where the length is in epochs
--   lr: peak learning rate (per optimizer step); empty where a provider chose it
--   lr_multiplier: what a provider's own learning rate was multiplied with; empty for its choice
--   optimizer_steps: updates (count)
--   n_seeds: seeds with a result (count)
--   mean_score: mean judge score (1 to 5)
--   mean_rate: prompts with a score of 5, averaged over seeds (share)
--   rate_lo: lower end of the 95% interval over prompts and seeds (share)
--   rate_hi: upper end (share)
--   sd_rate: standard deviation over seeds (share); empty for one seed
SELECT model,
    coalesce(data_source, (SELECT min(label) FROM v_cells c WHERE c.config_id = v_dose.config_id)) AS data_source,
    mitigation, method, variant, n_examples, epochs, steps, lr, lr_multiplier, optimizer_steps, n_seeds, mean_score,
    mean_rate, rate_lo, rate_hi, sd_rate
FROM v_dose ORDER BY is_baseline DESC, model, data_source, mitigation, method, variant, n_examples, epochs, steps, lr,
    lr_multiplier
