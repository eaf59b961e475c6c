"""The same chain of bundles run by edgecut and by what a user would pick instead: one module each."""
