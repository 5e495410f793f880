"""HTTP as every provider needs it: requests that are sent once, errors, and rate limits in headers."""
