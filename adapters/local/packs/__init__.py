"""Many LoRA runs on one base model, trained as one batch. Only workers import these modules: they start torch."""
