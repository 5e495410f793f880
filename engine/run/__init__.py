"""The run: scheduler, hosts, executors, and the driver that joins them."""
