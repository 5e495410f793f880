"""Greedy answers of many models on one base, decoded as one batch. Only hosts import these modules: they start torch."""
