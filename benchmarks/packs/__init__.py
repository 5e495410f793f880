"""What `packs_gpu.py` is made of: a model of random weights, the rows of its cells, and the work itself, timed."""
