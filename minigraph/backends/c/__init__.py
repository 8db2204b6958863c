"""Graphs compiled to C for the processor: one call a step, on all its cores."""
