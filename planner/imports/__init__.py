"""Other tools' measurements, read into our chains, profile tables and fleets.

Each module reads one tool's files and returns an ``Import``; ``result.save`` writes it. Units become SI
here and nowhere else; what cannot be used is refused by place and reason, never dropped silently.
"""
