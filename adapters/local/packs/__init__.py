"""Many LoRA runs on one base model, trained as one batch. Only hosts import these modules: they start torch."""
