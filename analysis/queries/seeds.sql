-- Spread over seeds
-- Answers: How much does the same configuration vary from seed to seed?
-- Columns:
--   model: base model
--   data_source: what it was tuned on
--   mitigation: mitigations in force
--   method: lora or full; empty for the untuned model
--   variant: other fields of the recipe that vary in this run; empty when none does
--   n_examples: training examples (count)
--   epochs: passes over them (count); empty where the length is in steps
--   steps: optimizer steps asked for (count); empty where the length is in epochs
--   lr: peak learning rate (per optimizer step); empty where a provider chose it
--   lr_multiplier: what a provider's own learning rate was multiplied with; empty for its choice
--   n_seeds: seeds with a result (count)
--   mean_rate: mean harmfulness rate (share)
--   sd_rate: standard deviation over seeds (share)
--   lowest_rate: lowest seed (share)
--   highest_rate: highest seed (share)
SELECT model, data_source, mitigation, method, variant, n_examples, epochs, steps, lr, lr_multiplier, n_seeds, mean_rate,
    sd_rate, lowest_rate, highest_rate
FROM v_dose WHERE n_seeds > 1
ORDER BY sd_rate DESC, model, data_source, mitigation, method, variant, n_examples, epochs, steps, lr, lr_multiplier
