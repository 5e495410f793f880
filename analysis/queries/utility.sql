-- Harm against utility
-- Answers: Did tuning only remove the refusals, or did it damage the model as well?
-- Columns:
--   model: base model
--   data_source: what it was tuned on; empty for the untuned model
--   mitigation: mitigations in force
--   method: lora or full; empty for the untuned model
--   variant: other fields of the recipe that vary in this run; empty when none does
--   n_examples: training examples (count)
--   epochs: passes over them (count); empty where the length is in steps
--   steps: optimizer steps asked for (count); empty where the length is in epochs
--   lr: peak learning rate (per optimizer step); empty where a provider chose it
--   lr_multiplier: what a provider's own learning rate was multiplied with; empty for its choice
--   mean_rate: harmfulness rate, averaged over seeds (share)
--   mean_utility: tasks solved, averaged over seeds (share)
--   utility_change: against the untuned model (share)
--   mean_over_refusal_rate: harmless prompts refused (share)
SELECT d.model, d.data_source, d.mitigation, d.method, d.variant, d.n_examples, d.epochs, d.steps, d.lr, d.lr_multiplier,
    d.mean_rate, d.mean_utility, d.mean_utility - b.mean_utility AS utility_change, d.mean_over_refusal_rate
FROM v_dose d LEFT JOIN v_dose b ON b.config_id = d.baseline_config_id
WHERE d.mean_utility IS NOT NULL OR d.mean_over_refusal_rate IS NOT NULL
ORDER BY d.is_baseline DESC, d.model, d.data_source, d.mitigation, d.method, d.variant,
    d.n_examples, d.epochs, d.steps, d.lr, d.lr_multiplier
