"""The same sweep as people write it without Dosimeter: Ray Tune with one TRL trial a cell, and one process a cell."""
