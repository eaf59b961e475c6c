"""A deployed plan behind HTTP, in the Open Inference protocol. ``application`` is what a web server runs."""
