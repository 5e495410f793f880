"""Rate limits and quotas, as the mock server holds them."""
