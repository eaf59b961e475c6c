"""Energy: power over time, meters of many kinds behind one interface, and windows long enough to be read."""
