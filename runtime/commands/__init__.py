"""One file per command. Heavy libraries are imported inside the commands, not at the top."""
