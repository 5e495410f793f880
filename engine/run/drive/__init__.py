"""The run itself: plan to results, until everything has ended or something stops it."""
