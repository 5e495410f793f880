"""What each kind of stage does: find its inputs, call its adapter, hand on what it made."""
