"""The parts of a tuning study: where it is kept, who works on it, what is searched."""
