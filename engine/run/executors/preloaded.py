"""Imported by the fork server alone, before it forks hosts: imports what they will need. See `engine.run.executors.forks`."""

from __future__ import annotations

import os
from contextlib import suppress

from engine.run.executors.forks import told
from engine.run.executors.hosts import warm_up

nowhere = os.open(os.devnull, os.O_WRONLY)
for stream in (1, 2):
    os.dup2(nowhere, stream)  # what libraries say is for no terminal
os.close(nowhere)
with suppress(Exception):  # a host that needs what cannot be imported meets the error itself, and reports it
    warm_up(told())
