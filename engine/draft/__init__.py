"""A first spec, written from what the files say: what was named, what is in it, what to begin with."""
