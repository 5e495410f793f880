"""The run: scheduler, workers, executors, and the driver that joins them."""
