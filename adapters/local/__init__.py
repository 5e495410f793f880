"""Models on this machine: found, tuned with TRL and PEFT, and asked with transformers."""
