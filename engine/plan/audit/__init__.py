"""What is wrong with the rows of a plan, found before anything is spent: held-out prompts among them, and private data."""
