"""The sweep engine: it knows no vendor and draws no chart."""
