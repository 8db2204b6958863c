"""From models to programs: training steps, inference graphs, and what runs them on a state."""
