"""What edgecut shows in files: CSV tables, pictures and pages."""
